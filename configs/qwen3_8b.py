"""Qwen3-8B in Marco-LLM's two stages, on 64 chips of TPU v5p (topology v5p:4x4x4, 16 hosts).

    marco plan  --config=configs/qwen3_8b.py
    marco train --config=configs/qwen3_8b.py --workdir=DIR --config.init_from=QWEN3_8B_BASE \
        --config.data=SOURCES.json

The recipe is that of configs/qwen2_7b.py, with the same 300 billion tokens at 1,048,576 a step.
`marco plan` predicts a peak of about 52 of 95 GiB a chip, and the time of a step. No slice has run
it. The other dense sizes are --config.model.preset=qwen3_0_6b, qwen3_1_7b, qwen3_4b, qwen3_14b and
qwen3_32b, each with a machine and batch that fit it: `marco plan --search=N` finds them.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config

_RECIPE = pathlib.Path(__file__).with_name("qwen2_7b.py")


def get_config() -> ConfigDict:
    """The recipe of Qwen2-7B, with the other model."""
    c = load_config(str(_RECIPE))
    c.model.preset = "qwen3_8b"
    return c
