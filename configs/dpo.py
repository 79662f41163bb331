"""Direct preference optimisation of a fine-tuned Qwen2-7B, on 16 chips of TPU v5p (v5p:2x2x4).

    marco train --config=configs/dpo.py --workdir=runs/dpo --config.init_from=runs/sft \
        --config.data=pairs.json

The model of `init_from` is the reference as well; `data` is a JSON file that declares sources of
kind "preference", which `marco generate --pairs` makes. docs/post_training.md has such files, and
this command at a size that a laptop runs.

The recipe is that of configs/sft.py with another objective. Length: 1,000 steps of at most 131,072
tokens. Results in the workdir: metrics.jsonl with reward_accuracy and reward_margin, and a
checkpoint every 250 steps. Beta is Rafailov et al.'s (arXiv 2305.18290), the learning rate
Zephyr's (arXiv 2310.16944): the paper states none.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config
from marco_jax.training.defaults import training_stage

_RECIPE = pathlib.Path(__file__).with_name("sft.py")


def get_config() -> ConfigDict:
    """The recipe of fine-tuning, with what differs."""
    c = load_config(str(_RECIPE))

    # Objective: the chosen answer is to become likelier than the rejected one, compared with the
    # reference, whose log-probabilities are computed once before training.
    c.objective = "dpo"
    c.dpo.variant = "sigmoid"
    c.dpo.beta = 0.1
    c.dpo.sft_weight = 0.0
    c.dpo.reference = "cached"

    # Data.
    c.mixture.name = "preference"

    # Batch: 16 chips x 2 x 4,096 = 131,072 tokens a step, both answers of each pair included.
    c.batch.sequences_per_chip = 2

    # One stage.
    c.steps = 1000
    c.stages = "dpo"
    c.stage = ConfigDict({"dpo": training_stage(1, 5e-7, warmup_share=0.1, final_share=0.0)})

    c.checkpoint.every = 250
    return c
