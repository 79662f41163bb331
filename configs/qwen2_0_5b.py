"""PLACEHOLDER 0_5b"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config


def get_config() -> ConfigDict:
    """Qwen2."""
    c = training_config()
    c.model.preset = "qwen2_0_5b"
    c.topology = "v5p:4x4x4"
    c.dtype = "bfloat16"
    c.remat = "full"
    c.steps = 70_000
    c.batch.length = 4096
    c.batch.sequences_per_chip = 1
    c.evaluation.max_length = 4096
    c.checkpoint.every = 1000
    return c
