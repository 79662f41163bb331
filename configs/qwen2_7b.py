"""Qwen2-7B in two stages on 64 chips of v5p: the size of the paper's headline results.

fsdp over all chips; with 95 GiB a chip no matrix product need be computed twice.
The corpus and the weights to start from are `config.data` and `config.init_from`.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config


def get_config() -> ConfigDict:
    """The resolved config of the run."""
    c = training_config()
    c.model.preset = "qwen2_7b"
    c.topology = "v5p:4x4x4"
    # 1,048,576 tokens a step, 300B in all: 160B of Stage-I and 140B of Stage-II (Table 3).
    c.batch.length = 4096
    c.batch.sequences_per_chip = 4
    c.steps = 286_102
    c.dtype = "bfloat16"
    c.remat = "minimal"

    c.log_every = 10
    c.checkpoint.every = 1000
    c.evaluation.every = 5000
    c.evaluation.max_length = 4096
    c.evaluation.tokens_per_batch = 65_536
    return c
