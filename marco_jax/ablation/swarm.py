"""Plans the runs of a sweep from its config and data: components, mixtures and tokens."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from marco_jax.ablation.components import Components, find_components
from marco_jax.ablation.design import Design, draw_design
from marco_jax.ablation.proxies import Proxy
from marco_jax.ablation.sweep_config import FIT_FIELDS, confirm_steps
from marco_jax.data.corpus import Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Within, get_mixture
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.workers import Context, Workers
from marco_jax.runtime.processes import first_process_first
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.training.assemble import create_sharding, global_rows
from marco_jax.training.config import (
    ConfigError,
    changed_fields,
    plan_stages,
    resolve_steps,
)
from marco_jax.training.defaults import training_config
from marco_jax.weights.models import find_model

_log = logging.getLogger(__name__)

TWO_STAGES = "two_stages"


@dataclasses.dataclass(frozen=True)
class Swarm:
    """The planned runs of a sweep.

    Attributes:
        components: the components whose weights vary.
        design: the mixtures to fit.
        proxies: one run per row of the design, then runs for comparison only.
        caps: maximum weight of each component, [components].
        tokens: target tokens of a proxy.
    """

    components: Components
    design: Design
    proxies: tuple[Proxy, ...]
    caps: np.ndarray
    tokens: float

    @property
    def prior(self) -> np.ndarray:
        """Weights of the prior, [components]."""
        return self.design.prior


def plan_swarm(config: ConfigDict, workdir: pathlib.Path) -> Swarm:
    """Reads the data's sources and sizes, and draws the design.

    Raises:
        ValueError: config fields are inconsistent; nothing has run.
    """
    fields = config.sweep
    if config.stages != "proxy":
        raise ConfigError(f"stages is {config.stages!r}: a sweep's runs have one stage, 'proxy'")
    if not config.init_from and not config.tokenizer.path:
        raise ConfigError(
            "init_from is empty: all runs of a sweep start from one base; set it to a base's "
            "workdir, or set tokenizer.path to start from random weights"
        )
    sharding = create_sharding(config)
    per_step = global_rows(config, sharding) * config.batch.length
    resolve_steps(config, per_step)
    plan_stages(config)
    corpus = load_corpus(config.data, config.seed, config.data_errors)
    infos = corpus.infos()
    within = Within(config.mixture.within, config.mixture.temperature, config.mixture.max_epochs)
    if within.method != "uniform":
        raise ConfigError(
            f"mixture.within is {within.method!r}: a sweep supports only 'uniform'; to vary "
            "weights within a group, list its sources in sweep.units"
        )
    if config.mixture.override:
        raise ConfigError("mixture.override is set by a sweep: leave it empty")
    mixture = get_mixture(config.mixture.name, infos, within)
    for note in mixture.notes:
        _log.info(f"mixture {mixture.name}: {note}")
    components = find_components(fields.units, mixture.shares, infos)
    tokens = float(config.steps * per_step)
    target = fields.target_tokens or float(confirm_steps(config) * per_step)
    caps = components.caps(_sizes(config, corpus, components, workdir), target, fields.max_epochs)
    runs = fields.runs or 4 * len(components.members)
    capped = dict(zip(components.members, caps.tolist(), strict=True))
    design = draw_design(components.prior, runs, fields.seed, caps=capped, least=fields.least)
    return Swarm(components, design, _proxies(config, components, design), caps, tokens)


def _proxies(config: ConfigDict, components: Components, design: Design) -> tuple[Proxy, ...]:
    found = []
    for name, weights in zip(design.names, design.weights, strict=True):
        # All runs start from the same base: only the prior's run evaluates it.
        first = name == design.names[0]
        changes = {"mixture.override": components.override(weights), "evaluation.at_start": first}
        found.append(Proxy(name, changes))
    if config.sweep.two_stages:
        stages = "stage1,stage2"
        changes = {"stages": stages, "mixture.name": stages, "evaluation.at_start": False}
        found.append(Proxy(TWO_STAGES, changes))
    return tuple(found)


def _sizes(
    config: ConfigDict, corpus: Corpus, components: Components, workdir: pathlib.Path
) -> dict[str, float]:
    """Target tokens of each source that is tokenised in advance (not streamed)."""
    path = config.tokenizer.path
    tokenizer = load_tokenizer(path) if path else find_model(config.init_from).tokenizer
    names = [s.name for s in components.sources if s.name in components.shares and not s.streamed]
    with first_process_first("sizes"):
        cache = config.data_cache or workdir / "data"
        context = Context.of(config, corpus, tokenizer)
        with Workers(config.feed.workers, context) as workers:
            stores = prepare_stores(corpus, tokenizer, names, cache, workers=workers)
    return {name: float(store.tokens + len(store.lengths)) for name, store in stores.items()}


def design_lines(swarm: Swarm, config: ConfigDict) -> list[str]:
    """Lines of text with the weights of each run, and the tokens of all."""
    names = list(swarm.components.members)
    width = max(8, *(len(name) + 1 for name in names))
    lines = [f"{'weights, %':<14}" + "".join(f"{name:>{width}}" for name in names)]
    lines.append(f"{'cap':<14}" + "".join(f"{100 * cap:>{width}.2f}" for cap in swarm.caps))
    for name, weights in zip(swarm.design.names, swarm.design.weights, strict=True):
        lines.append(f"{name:<14}" + "".join(f"{100 * w:>{width}.2f}" for w in weights))
    if config.sweep.two_stages:
        lines.append(f"{TWO_STAGES:<14}  stage1, then stage2, with the same tokens")
    for component, own in swarm.components.members.items():
        if own != (component,):
            lines.append(f"{component}: {', '.join(own)}")
    runs, confirm = len(swarm.proxies), config.sweep.confirm
    lines.append(
        f"{runs} runs of {config.steps:,} steps, {swarm.tokens:,.0f} tokens each: "
        f"{runs * swarm.tokens:,.0f} tokens"
    )
    if confirm.seeds:
        count, tokens = 2 * confirm.seeds, confirm_steps(config) / config.steps * swarm.tokens
        lines.append(
            f"confirmation: {count} runs of {tokens:,.0f} tokens: {count * tokens:,.0f} tokens"
        )
    return lines


def frozen_plan(swarm: Swarm, config: ConfigDict) -> dict[str, object]:
    """The parts of a sweep that must not change between starts, as plain data."""
    resolved = json.loads(config.to_json())
    resolved.pop("distributed", None)
    resolved["sweep"] = {k: v for k, v in resolved["sweep"].items() if k not in FIT_FIELDS}
    members = swarm.components.members
    rows = zip(swarm.design.names, swarm.design.weights.tolist(), strict=True)
    return {
        "config": resolved,
        "units": {component: list(own) for component, own in members.items()},
        "prior_shares": dict(swarm.components.shares),
        "caps": swarm.caps.tolist(),
        "design": [{"run": n, "weights": dict(zip(members, row, strict=True))} for n, row in rows],
        "proxies": [{"run": p.name, "changes": dict(p.changes)} for p in swarm.proxies],
        "tokens": swarm.tokens,
    }


def check_same(path: pathlib.Path, plan: Mapping[str, object]) -> None:
    """Checks that a sweep resumes with the plan of its first start, which wrote `path`.

    Raises:
        ConfigError: the plans differ; the message names the fields.
    """
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    # Sizes that an older plan does not state have their defaults.
    sizes = training_config().model.to_dict() | before["config"].get("model", {})
    lines = changed_fields(before["config"] | {"model": sizes}, plan["config"])
    if not lines and before["design"] != plan["design"]:
        lines = ["the design: the data has changed"]
    if lines:
        raise ConfigError(
            f"{path.parent} has a sweep with other settings ({'; '.join(lines)}): set them back "
            "or use a new workdir"
        )
