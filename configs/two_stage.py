"""The whole of Marco-LLM in miniature: the demo, then fine-tuning and preferences on translations.

    python -m experiments.two_stage --config=configs/two_stage.py --workdir=runs/two_stage

It runs at the root of a clone, on a CPU, with the extra `demo`, and goes on where it was cut off.
The base, Stage-I and Stage-II are those of configs/demo.py; fine-tuning and preferences are those
of configs/sft.py and configs/dpo.py at the demo's size, on translation requests that the chain
makes from the corpus. Results: a run for each part in runs/two_stage/pretrain, sft and dpo, the
exported model in huggingface/, and held-out chrF++ after each part in chain.json. A field of a part
is --config.sft.steps=100; experiments/two_stage/settings.py describes the others.
"""

import pathlib

from ml_collections import ConfigDict

from experiments.two_stage.settings import chain_config
from marco_jax.training.config import load_config

_FILES = [str(pathlib.Path(__file__).with_name(name)) for name in ("demo.py", "sft.py", "dpo.py")]


def get_config() -> ConfigDict:
    """The recipe: three configs, and what differs from them."""
    pretrain, sft, dpo = map(load_config, _FILES)
    for part in (sft, dpo):
        # Model and machine, those of the demo.
        part.model = pretrain.model
        part.topology = ""
        part.dtype = "float32"
        part.remat = "none"
        # Data: made by the chain.
        part.data = ""
        # Batch: 16 x 256 = 4,096 tokens a step on each device.
        part.batch.length = 256
        part.batch.sequences_per_chip = 16
        part.checkpoint.every = 50
        part.checkpoint.keep = 2

    # A small model far from convergence takes rates that would ruin a large one.
    sft.steps = 300
    sft.stage.sft.learning_rate = 1e-3
    dpo.steps = 60
    dpo.stage.dpo.learning_rate = 1e-4
    return chain_config(pretrain, sft, dpo)
