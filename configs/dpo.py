"""Direct preference optimisation of a model that has been fine-tuned on conversations.

`config.data` is a JSON file that declares sources of kind "preference"
(marco_jax/data/sources.py; `marco generate --pairs` makes them), and `config.init_from` the model,
which is the reference too. Beta and rate are Rafailov et al.'s (arXiv 2305.18290) and Zephyr's
(arXiv 2310.16944): the paper states none.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The resolved config of the run."""
    c = training_config()
    c.objective = "dpo"
    c.model.preset = "qwen2_7b"
    c.topology = "v5p:2x2x4"
    c.mixture.name = "preference"
    c.mixture.within = "proportional"
    c.stages = "dpo"
    c.stage = ConfigDict({"dpo": training_stage(1, 5e-7, warmup_share=0.1, final_share=0.0)})
    c.steps = 1000
    c.batch.length = 4096
    c.batch.sequences_per_chip = 2
    c.dtype = "bfloat16"
    c.remat = "minimal"
    c.optimizer.weight_decay = 0.0

    c.log_every = 10
    c.checkpoint.every = 250
    c.evaluation.tasks = ""
    c.evaluation.chat = True
    return c
