"""Qwen2-0.5B in Marco-LLM's two stages, on 16 chips of TPU v5e: for ablations and trials.

    marco train --config=configs/qwen2_0_5b.py --workdir=DIR --config.init_from=QWEN2_0_5B \
        --config.data=SOURCES.json

The recipe is that of configs/qwen2_7b.py, with the same 300 billion tokens at 262,144 a step.
Parameters and moments are 5.5 GiB in all; split over the slice they leave room for whole sequences.
"""

import pathlib

from ml_collections import ConfigDict

from marco_jax.training.config import load_config

_RECIPE = pathlib.Path(__file__).with_name("qwen2_7b.py")


def get_config() -> ConfigDict:
    """The recipe of the 7B, with what differs."""
    c = load_config(str(_RECIPE))
    c.model.preset = "qwen2_0_5b"
    c.topology = "v5e:4x4"
    # 16 chips x 4 x 4,096 = 262,144 tokens a step.
    c.batch.sequences_per_chip = 4
    c.steps = 1_144_409
    # Layers are computed again in the backward pass.
    c.remat = "full"
    return c
