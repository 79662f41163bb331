"""Qwen2-72B in Marco-LLM's two stages, on 256 chips of TPU v5p.

    marco train --config=configs/qwen2_72b.py --workdir=DIR --config.init_from=QWEN2_72B \
        --config.data=SOURCES.json

The recipe is that of configs/qwen2_7b.py, with the same 300 billion tokens at 1,048,576 a step.
The preset has this size's own rms_norm_eps, 1e-5.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config

_RECIPE = pathlib.Path(__file__).with_name("qwen2_7b.py")


def get_config() -> ConfigDict:
    """The recipe of the 7B, with what differs."""
    c = load_config(str(_RECIPE))
    c.model.preset = "qwen2_72b"
    c.topology = "v5p:4x8x8"
    # 256 chips x 1 x 4,096 = 1,048,576 tokens a step.
    c.batch.sequences_per_chip = 1
    c.steps = 286_102
    # Layers are computed again in the backward pass.
    c.remat = "full"
    return c
