"""The parts of a chain, one after the other; those that are there already are not made again."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.post_training.translation import (
    conversation,
    ranked,
    scores,
    short_pairs,
    translate,
    write_source,
)
from marco_jax.data.corpus import Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.run_stores import read_held_out_record
from marco_jax.data.texts import HELD_OUT, TRAIN
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import Sampling
from marco_jax.files import write_json
from marco_jax.model.parameters import Params
from marco_jax.planning.plan import DoesNotFit, plan_step
from marco_jax.training.config import ConfigError
from marco_jax.training.loop import train
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.convert import export_model
from marco_jax.weights.manifest import finished_steps
from marco_jax.weights.models import load_model

_log = logging.getLogger(__name__)

DONE, STOPPED = 0, 143
PRETRAIN, SFT, DPO = "pretrain", "sft", "dpo"
PARTS = (PRETRAIN, SFT, DPO)
EXPORT = "huggingface"
SUMMARY = "chain.json"


def check(config: ConfigDict) -> None:
    """Refuses parts whose data nobody has named and that cannot be made here (ConfigError)."""
    for part in (SFT, DPO):
        if config[part].init_from:
            raise ConfigError(
                f"{part}.init_from is {config[part].init_from!r}: leave it empty, each part goes "
                "on from the one before; a chain begins at pretrain.init_from"
            )
        if not config[part].data and jax.process_count() > 1:
            raise ConfigError(
                f"{part}.data is empty: with several processes, name a file that declares sources "
                "(the chain makes data of its own in one process alone)"
            )


def run(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Base, Stage-I and Stage-II in one run, then SFT, DPO and an export.

    A killed chain goes on where it was when it is run again: parts whose last step is saved are
    passed over, the one that was cut resumes as any run does.

    Returns:
        0 when all is there, 143 when a SIGTERM ended a part after saving.

    Raises:
        ConfigError: fields that contradict one another.
        RunFailed: a part cannot go on; what it saved stands.
    """
    check(config)
    workdir.mkdir(parents=True, exist_ok=True)
    start = config[PRETRAIN].init_from
    for part in PARTS:
        fields = ConfigDict(config[part].to_dict())
        fields.init_from = str(start)
        if part != PRETRAIN and not fields.data:
            fields.data = str(_own_data(config, workdir, part, start))
        directory = workdir / part
        if is_done(directory, fields.steps):
            _log.info(f"{part}: done, {directory}")
        else:
            _log.info(f"{part}: {directory}")
            if train(fields, str(directory)) == STOPPED:
                return STOPPED
            # The next part has programs of its own.
            jax.clear_caches()
        start = directory
    out = workdir / EXPORT
    if not out.exists():
        dtype = jnp.dtype(config.export_dtype) if config.export_dtype else None
        export_model(start, out, dtype=dtype)
    _log.info(f"export: {out}")
    if jax.process_index() == 0:
        write_json(workdir / SUMMARY, summary(config, workdir))
    return DONE


def is_done(directory: pathlib.Path, steps: int) -> bool:
    """Whether a run has saved its last step."""
    saved = directory / CHECKPOINTS
    return saved.is_dir() and max(finished_steps(saved), default=0) >= steps


def _own_data(
    config: ConfigDict, workdir: pathlib.Path, part: str, start: str | pathlib.Path
) -> pathlib.Path:
    """A declaration of data that the chain makes: translations, and preferences among own ones."""
    path = workdir / f"{part}_data.json"
    if path.exists():
        return path
    corpus, own = _corpus(config), config.own_data
    if part == SFT:
        pairs = short_pairs(corpus, TRAIN, own.pairs, config[PRETRAIN].seed)
        write_source(path, "translations", "chat", [conversation(pair) for pair in pairs])
        return path
    _log.info(f"dpo: {own.samples} answers to each of {own.requests} requests a language, ranked")
    asked = short_pairs(corpus, TRAIN, own.requests, config[PRETRAIN].seed + 1)
    engine, params = _open(start)
    sampling = Sampling(temperature=own.temperature)
    drawn = [translate(engine, params, asked, sampling, seed=n) for n in range(own.samples)]
    rows = ranked(asked, drawn, own.least_gap)
    if not rows:
        raise ConfigError(
            f"own_data.least_gap is {own.least_gap}: no two answers to a request differ so much "
            "in chrF++; lower it, or name dpo.data"
        )
    write_source(path, "preferences", "preference", rows)
    return path


def _corpus(config: ConfigDict) -> Corpus:
    """Of the pretraining; which texts are held out does not depend on the seed."""
    return load_corpus(config[PRETRAIN].data, seed=config[PRETRAIN].seed)


def _open(directory: str | pathlib.Path) -> tuple[Engine, Params]:
    model = load_model(directory)
    return Engine(model.config, model.tokenizer, max_length=256), model.params


def summary(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Figures after each part: those of its last evaluation, and held-out translations.

    Translations are scored where the chain has made the data of fine-tuning itself.
    """
    found: dict[str, Any] = {}
    for part in PARTS:
        rows = workdir / part / "eval" / f"{config[part].steps}.json"
        found[part] = {"steps": config[part].steps}
        if rows.exists():
            found[part]["evaluation"] = json.loads(rows.read_text(encoding="utf-8"))
        if part != PRETRAIN and not config[SFT].data:
            corpus = _corpus(config)
            read_held_out_record(corpus, workdir / PRETRAIN)
            held_out = short_pairs(corpus, HELD_OUT, config.own_data.held_out, seed=0)
            engine, params = _open(workdir / part)
            translation = scores(held_out, translate(engine, params, held_out))
            found[part]["translation"] = translation
            jax.clear_caches()
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """The summary, a line a part."""
    told = []
    for part, results in found.items():
        means = [
            f"{row['task']} {row['metric']} {row['value']:.3f}"
            for row in results.get("evaluation", ())
            if row["language"] == "all" and "part" not in row
        ]
        if translation := results.get("translation"):
            means.append(f"held-out chrF++ {translation['chrf']:.2f} ± {translation['stderr']:.2f}")
            means.append(f"in the language asked for {translation['language_rate']:.1%}")
        told.append(f"{part}, {results['steps']} steps: {', '.join(means) or 'not evaluated'}")
    return told


def plan(config: ConfigDict, topology: str = "") -> dict[str, dict[str, Any]]:
    """Compiles the training step of every part for a TPU topology, by default the part's own.

    Returns:
        what `marco plan` measures, by part.

    Raises:
        ConfigError: no topology is named.
        DoesNotFit: a step has no room.
    """
    found = {}
    for part in PARTS:
        name = topology or config[part].topology
        if not name:
            raise ConfigError(f"{part}.topology is empty: give --topology=v5p:4x4x4")
        _log.info(f"{part}: compiled for {name}")
        try:
            found[part] = plan_step(config[part], name)
        except DoesNotFit as error:
            raise DoesNotFit(f"{part}: {error}") from None
    return found
