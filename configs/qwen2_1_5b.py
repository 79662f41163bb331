"""Qwen2-1.5B in Marco-LLM's two stages, on 64 chips of TPU v5e: the smallest size of the paper.

    marco train --config=configs/qwen2_1_5b.py --workdir=DIR --config.init_from=QWEN2_1_5B \
        --config.data=SOURCES.json

The recipe is that of configs/qwen2_7b.py, with the same 300 billion tokens at 1,048,576 a step.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config

_RECIPE = pathlib.Path(__file__).with_name("qwen2_7b.py")


def get_config() -> ConfigDict:
    """The recipe of the 7B, with what differs."""
    c = load_config(str(_RECIPE))
    c.model.preset = "qwen2_1_5b"
    c.topology = "v5e:8x8"
    # 64 chips x 4 x 4,096 = 1,048,576 tokens a step.
    c.batch.sequences_per_chip = 4
    c.steps = 286_102
    # Layers are computed again in the backward pass.
    c.remat = "full"
    return c
