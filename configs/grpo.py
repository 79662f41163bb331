"""Reinforcement learning of a fine-tuned Qwen2-7B on translation, on 16 chips of v5p (v5p:2x2x4).

    marco train --config=configs/grpo.py --workdir=runs/grpo --config.init_from=runs/sft \
        --config.data=prompts.json

The command runs on every host. `init_from` is a model that answers in its chat template; `data` is
a JSON file that declares sources of kind "prompt". docs/reinforcement.md has such files, and this
command at a size that a laptop runs.

Length: 400 rounds of 64 prompts with 8 sampled answers each, a step a round. Results in the
workdir: metrics.jsonl with rewards by language, answers/ with what was sampled, and a checkpoint
every 100 steps. The paper has no such stage: the loss is Dr. GRPO's with DAPO's clipping, and the
rate is a customary one. No slice has run it.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config
from marco_jax.training.defaults import training_stage

_RECIPE = pathlib.Path(__file__).with_name("sft.py")


def get_config() -> ConfigDict:
    """The recipe of fine-tuning, with what differs."""
    c = load_config(str(_RECIPE))

    # Objective: answers that are like the reference, and in the language that is asked for.
    c.objective = "grpo"
    c.grpo.rewards = "chrf++=0.01,language=0.5"
    c.grpo.prompts = 64
    c.grpo.group = 8
    c.grpo.max_prompt_tokens = 512
    c.grpo.max_new_tokens = 512
    c.grpo.temperature = 1.0
    c.grpo.scale = "none"
    c.grpo.average = "constant"
    c.grpo.clip_low = 0.2
    c.grpo.clip_high = 0.28
    c.grpo.kl = 0.0

    # Data: the prompts of all sources alike.
    c.mixture.name = "prompt"
    c.mixture.within = "proportional"

    # Batch: 512 answers of up to 1,024 tokens with their prompts fit into 16 chips x 8 x 4,096,
    # in eight parts. Parts that shorter answers leave empty are not computed.
    c.batch.sequences_per_chip = 8
    c.batch.accumulation_steps = 8

    # Sampling: tokens of its batches, on all chips together.
    c.evaluation.tokens_per_batch = 524_288

    # One stage.
    c.steps = 400
    c.stages = "grpo"
    c.stage = ConfigDict({"grpo": training_stage(1, 1e-6, warmup_share=0.05, final_share=1.0)})

    c.log_every = 1
    c.checkpoint.every = 100
    return c
