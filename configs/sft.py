"""Supervised fine-tuning: conversations, of which what the assistant says is learnt.

`config.data` is a JSON file that declares sources of kind "chat" (marco_jax/data/sources.py), and
`config.init_from` the model to start from. Rates and batch are customary ones for models of this
size: the paper states none.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The resolved config of the run."""
    c = training_config()
    c.objective = "sft"
    c.model.preset = "qwen2_7b"
    c.topology = "v5p:2x2x4"
    c.mixture.name = "chat"
    # A conversation counts as much as any other, whichever source it is from.
    c.mixture.within = "proportional"
    c.stages = "sft"
    c.stage = ConfigDict({"sft": training_stage(1, 1e-5, warmup_share=0.03, final_share=0.1)})
    c.steps = 2000
    c.batch.length = 4096
    c.batch.sequences_per_chip = 4
    c.dtype = "bfloat16"
    c.remat = "minimal"
    c.optimizer.weight_decay = 0.0

    c.log_every = 10
    c.checkpoint.every = 500
    c.evaluation.tasks = ""
    c.evaluation.chat = True
    return c
