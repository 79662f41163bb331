"""Qwen2-7B through the whole of Marco-LLM, on 64 chips of TPU v5p (topology v5p:4x4x4).

    python -m experiments.two_stage --config=configs/two_stage_7b.py --plan
    python -m experiments.two_stage --config=configs/two_stage_7b.py --workdir=DIR \
        --config.pretrain.init_from=QWEN2_7B --config.pretrain.data=SOURCES.json \
        --config.sft.data=CHAT.json --config.dpo.data=PAIRS.json

Both run at the root of a clone. The first, on any machine with the extra `plan`, says of every part
whether it fits its slice. The second runs on every host: Stage-I and Stage-II of
configs/qwen2_7b.py, then configs/sft.py and configs/dpo.py; QWEN2_7B is a workdir or a Hugging Face
directory, and the data are JSON files that declare sources. Results: a run for each part in
DIR/pretrain, sft and dpo, and the exported model in DIR/huggingface. No slice has run it.
"""

import pathlib

from ml_collections import ConfigDict

from experiments.two_stage.settings import chain_config
from marco_jax.training.config import load_config

_FILES = [
    str(pathlib.Path(__file__).with_name(name)) for name in ("qwen2_7b.py", "sft.py", "dpo.py")
]


def get_config() -> ConfigDict:
    """The recipe: three configs, and what differs from them."""
    pretrain, sft, dpo = map(load_config, _FILES)
    for part in (sft, dpo):
        # Machine: the 64 chips of the first part, so that a step has four times the tokens.
        part.topology = pretrain.topology
        part.data = ""  # to be named on the command line
    return chain_config(pretrain, sft, dpo)
