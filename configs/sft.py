"""Supervised fine-tuning of Qwen2-7B on conversations, on 16 chips of TPU v5p (v5p:2x2x4).

    marco train --config=configs/sft.py --workdir=runs/sft --config.init_from=runs/stage2 \
        --config.data=chat.json

The command runs on every host. `init_from` is a workdir or a Hugging Face directory; `data` is a
JSON file that declares sources of kind "chat". docs/post_training.md has such files, and this
command at a size that a laptop runs.

Length: 2,000 steps of at most 262,144 tokens. Results in the workdir: metrics.jsonl, and a
checkpoint every 500 steps. Nothing is evaluated unless --config.evaluation.tasks names tasks.
The paper states no rates or batch sizes for fine-tuning: these are customary ones for this size.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of marco_jax/training/defaults.py."""
    c = training_config()

    # Model.
    c.model.preset = "qwen2_7b"
    c.dtype = "bfloat16"
    c.remat = "minimal"
    c.attention = "auto"  # splash on TPU

    # Machine: parameters, moments and batch are split over all chips.
    c.topology = "v5p:2x2x4"
    c.mesh.fsdp = -1

    # Objective: the cross-entropy of the assistant's messages; the rest is read.
    c.objective = "sft"

    # Data: a conversation counts as much as any other, whichever source it is from.
    c.mixture.name = "chat"
    c.mixture.within = "proportional"

    # Batch: 16 chips x 4 x 4,096 = 262,144 tokens a step. Conversations are packed into sequences.
    c.batch.length = 4096
    c.batch.sequences_per_chip = 4
    c.batch.accumulation_steps = 1

    # One stage.
    c.steps = 2000
    c.stages = "sft"
    c.stage = ConfigDict({"sft": training_stage(1, 1e-5, warmup_share=0.03, final_share=0.1)})

    # Optimizer: AdamW without weight decay.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.0
    c.optimizer.clip_norm = 1.0

    # Metrics, checkpoints.
    c.log_every = 10
    c.checkpoint.every = 500
    c.checkpoint.keep = 0

    # Evaluation: none, until tasks are named; those that generate then use the chat template.
    c.evaluation.tasks = ""
    c.evaluation.chat = True
    return c
