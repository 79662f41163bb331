"""The whole of Marco-LLM in miniature: the demo, then fine-tuning and preferences on translations.

    python -m experiments.two_stage --config=configs/two_stage.py --workdir=runs/two_stage

The data of SFT and DPO are made by the chain; see experiments/two_stage/settings.py.
"""

import pathlib

from ml_collections import ConfigDict

from experiments.two_stage.settings import chain_config
from marco_jax.training.config import load_config

_FILES = [str(pathlib.Path(__file__).with_name(name)) for name in ("demo.py", "sft.py", "dpo.py")]


def get_config() -> ConfigDict:
    """The resolved config of the chain."""
    pretrain, sft, dpo = map(load_config, _FILES)
    for part in (sft, dpo):
        part.model = pretrain.model
        part.topology = ""
        part.dtype, part.remat = "float32", "none"
        part.data = ""
        part.batch.length = 256
        part.batch.sequences_per_chip = 16
        part.checkpoint.every = 50
        part.checkpoint.keep = 2
    # A small model far from converged bears rates that would ruin a large one.
    sft.steps, sft.stage.sft.learning_rate = 300, 1e-3
    dpo.steps, dpo.stage.dpo.learning_rate = 60, 1e-4
    return chain_config(pretrain, sft, dpo)
