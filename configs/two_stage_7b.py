"""Qwen2-7B through the whole of Marco-LLM, on 64 chips of v5p.

    python -m experiments.two_stage --config=configs/two_stage_7b.py --plan

and to run it, with --config.pretrain.init_from=QWEN2_7B (a directory), --config.pretrain.data,
--config.sft.data and --config.dpo.data (files that declare sources) and --workdir.
"""

import pathlib

from ml_collections import ConfigDict

from experiments.two_stage.settings import chain_config
from marco_jax.training.config import load_config

_FILES = [
    str(pathlib.Path(__file__).with_name(name)) for name in ("qwen2_7b.py", "sft.py", "dpo.py")
]


def get_config() -> ConfigDict:
    """The resolved config of the chain."""
    pretrain, sft, dpo = map(load_config, _FILES)
    for part in (sft, dpo):
        part.topology = pretrain.topology
        part.data = ""
    return chain_config(pretrain, sft, dpo)
