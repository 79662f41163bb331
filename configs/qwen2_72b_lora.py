"""Low-rank adapters of Qwen2-72B on 16 chips of v5p, trained on conversations.

The base lies over the chips in bfloat16, without gradients or moments. `config.data` and
`config.init_from` are as in configs/sft.py; continual pretraining and preferences go the same way,
with --config.objective and --config.mixture.name. Rank and rate are those of the LoRA paper's and
QLoRA's larger models (arXiv 2106.09685, 2305.14314).
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The resolved config of the run."""
    c = training_config()
    c.objective = "sft"
    c.model.preset = "qwen2_72b"
    c.topology = "v5p:2x2x4"
    c.lora.rank = 16
    c.lora.alpha = 32.0
    c.mixture.name = "chat"
    # A conversation counts as much as any other, whichever source it is from.
    c.mixture.within = "proportional"
    c.stages = "sft"
    c.stage = ConfigDict({"sft": training_stage(1, 1e-4, warmup_share=0.03, final_share=0.1)})
    c.steps = 2000
    c.batch.length = 4096
    c.batch.sequences_per_chip = 1
    c.dtype = "bfloat16"
    c.remat = "full"
    c.optimizer.weight_decay = 0.0

    c.log_every = 10
    c.checkpoint.every = 500
    c.evaluation.tasks = ""
    return c
