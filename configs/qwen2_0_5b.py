"""Qwen2-0.5B in two stages on 16 chips of v5e: for ablations and trials.

Parameters and moments are 5.5 GiB in all: fsdp over the slice leaves room for whole rows.
The corpus and the weights to start from are `config.data` and `config.init_from`.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config


def get_config() -> ConfigDict:
    """The resolved config of the run."""
    c = training_config()
    c.model.preset = "qwen2_0_5b"
    c.topology = "v5e:4x4"
    # 262,144 tokens a step, 300B in all: 160B of Stage-I and 140B of Stage-II (Table 3).
    c.batch.length = 4096
    c.batch.sequences_per_chip = 4
    c.steps = 1_144_409
    c.dtype = "bfloat16"
    c.remat = "full"

    c.log_every = 10
    c.checkpoint.every = 1000
    c.evaluation.every = 5000
    c.evaluation.max_length = 4096
    c.evaluation.tokens_per_batch = 65_536
    return c
