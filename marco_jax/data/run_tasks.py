"""The tasks and mixtures of a run, registered when this module is imported: for SeqIO's own tools.

The environment variable MARCO_WORKDIR names the run: docs/seqio.md has the commands. Sources are
"marco_kk", mixtures of the paper "marco_stage1". The mixtures that the run reads, with its
overrides, are "marco_run_" and the name of the stage: once the run has begun, their rates are such
that SeqIO draws examples in the run's shares of tokens.
"""

from __future__ import annotations

import json
import os
import pathlib

from marco_jax.data.load import load_corpus
from marco_jax.data.seqio_tasks import register_mixture
from marco_jax.data.workers import Context, enter
from marco_jax.files import as_path, read_json_object
from marco_jax.languages import add_languages
from marco_jax.tokenizers.tokenizer import TOKENIZER, load_tokenizer

WORKDIR_VARIABLE = "MARCO_WORKDIR"


def register_run(workdir: pathlib.Path) -> None:
    """Registers the tasks and mixtures of the run in a workdir.

    Raises:
        OSError: it holds no run.
        ValueError: its files cannot be used.
    """
    config = read_json_object(workdir / "config.json")
    add_languages(config["languages"]["extra"])
    tokenizer = load_tokenizer(workdir / TOKENIZER)
    corpus = load_corpus(config["data"], config["seed"], config["data_errors"])
    enter(Context.of(config, corpus, tokenizer))
    described = workdir / "mixture.json"
    if not described.exists():
        return
    mixture = json.loads(described.read_text(encoding="utf-8"))
    sizes = mixture["sources"]
    for stage in mixture["stages"]:
        rates = {}
        for source, share in stage["shares"].items():
            size = sizes[source]
            # Shares of tokens as rates of examples, where sizes are known.
            per_example = size["tokens"] / size["documents"] if size["tokens"] else 1.0
            rates[source] = share / per_example
        register_mixture(f"run_{stage['name']}", rates)


if WORKDIR_VARIABLE in os.environ:
    register_run(as_path(os.environ[WORKDIR_VARIABLE]))
