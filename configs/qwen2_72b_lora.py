"""Low-rank adapters of Qwen2-72B, trained on conversations, on 16 chips of TPU v5p (v5p:2x2x4).

    marco train --config=configs/qwen2_72b_lora.py --workdir=runs/lora \
        --config.init_from=QWEN2_72B --config.data=chat.json

The recipe is that of configs/qwen2_7b_lora.py, with 65,536 tokens a step at most.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config

_RECIPE = pathlib.Path(__file__).with_name("qwen2_7b_lora.py")


def get_config() -> ConfigDict:
    """The recipe of the 7B, with what differs."""
    c = load_config(str(_RECIPE))
    c.model.preset = "qwen2_72b"
    c.topology = "v5p:2x2x4"
    return c
