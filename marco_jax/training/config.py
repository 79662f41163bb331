"""Reading a config file, overriding its fields from the command line, and what its fields mean.

A config is plain data: a Python file whose `get_config()` returns an ml_collections ConfigDict.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import itertools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from marco_jax.files import as_path, check_path, local_copy
from marco_jax.flat_fields import flat_fields
from marco_jax.languages import names_in
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.training.optimizer import StageSchedule

# What a run may train for: `config.objective`.
CPT, SFT, DPO, GRPO = OBJECTIVES = ("cpt", "sft", "dpo", "grpo")


# Groups of fields whose names are not fixed: those of tasks.
OPEN_GROUPS = ("evaluation.examples",)
# Fields with a URL that is not a path: a page for people to read, and a server.
_ADDRESSES = ("license_link", "tracking_uri")


class ConfigError(ValueError):
    """A config file or an override that cannot be used."""


def load_config(path: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Loads `path` and applies overrides of the form "field.subfield=value".

    Values are read as the type of the field they replace.

    Raises:
        ConfigError: no such file, an unknown field (the nearest name is suggested), a wrong type.
    """
    if not as_path(path).is_file():
        raise ConfigError(f"--config={path}: there is no such file")
    with local_copy(as_path(path)) as file:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={path}: the file defines no get_config()")
    config = module.get_config()
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--config.{override}: write --config.{name}=VALUE")
        _override(config, name, value)
    check_paths(config)
    return config


def check_paths(config: ConfigDict, prefix: str = "config") -> None:
    """Refuses fields that hold a URL of a hub or a web server (ValueError)."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            check_paths(value, f"{prefix}.{name}")
        elif isinstance(value, str) and name not in _ADDRESSES:
            check_path(f"{prefix}.{name}", value)


def _override(config: ConfigDict, name: str, text: str) -> None:
    *parents, leaf = name.split(".")
    if ".".join(parents) in OPEN_GROUPS:
        node = config
        for part in parents:
            node = node[part]
        # All values of such a group are of one type.
        node[leaf] = _parse(text, next(iter(node.values()), 0), name)
        return
    node: Any = config
    for depth, part in enumerate([*parents, leaf]):
        if not isinstance(node, ConfigDict) or part not in node:
            known = list(node) if isinstance(node, ConfigDict) else []
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise ConfigError(f"--config.{name}: there is no field {part!r}; {hint}")
        if depth < len(parents):
            node = node[part]
    node[leaf] = _parse(text, node[leaf], name)


def _parse(text: str, old: Any, name: str) -> Any:
    if isinstance(old, ConfigDict):
        raise ConfigError(f"--config.{name}: this is a group; set one of {', '.join(old)}")
    if isinstance(old, str):
        return text
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(old, (int, float)):
            return type(old)(text)
        return type(old)(ast.literal_eval(text))
    except (ValueError, KeyError, SyntaxError, TypeError):
        kind = type(old).__name__
        raise ConfigError(f"--config.{name}={text}: the value is no {kind}") from None


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage of a run: which mixture, for how many steps, at which learning rates."""

    name: str
    mixture: str
    schedule: StageSchedule

    @property
    def steps(self) -> int:
        """Steps of the stage."""
        return self.schedule.steps


def plan_stages(config: ConfigDict) -> list[StagePlan]:
    """The stages of a run, in order; their steps add up to config.steps.

    `config.stages` lists names; `config.stage.NAME` holds a stage's share of the steps (or its own
    steps) and its learning rate. `config.mixture.name` names one mixture for all stages, or one for
    each.

    Raises:
        ConfigError: names, shares or mixtures that do not fit together.
    """
    mixtures = stage_mixtures(config)
    ends = _stage_ends(config, list(mixtures))
    plans = []
    for (name, mixture), start, end in zip(mixtures.items(), [0, *ends], ends, strict=False):
        stage, steps = config.stage[name], end - start
        schedule = StageSchedule(
            steps=steps,
            peak=stage.learning_rate,
            shape=stage.schedule,
            warmup_steps=round(steps * stage.warmup_share),
            final_share=stage.final_share,
        )
        plans.append(StagePlan(name, mixture, schedule))
    return plans


def stage_mixtures(config: ConfigDict) -> dict[str, str]:
    """The mixture of each stage by the stage's name, in order.

    Raises:
        ConfigError: unknown names, or another number of mixtures than one or that of the stages.
    """
    names = names_in(config.stages)
    mixtures = names_in(config.mixture.name)
    if len(mixtures) not in (1, len(names)):
        raise ConfigError(
            f"mixture.name lists {len(mixtures)} mixtures for {len(names)} stages "
            f"({config.stages}): give one, or one a stage"
        )
    for name in names:
        if name not in config.stage:
            near = difflib.get_close_matches(name, list(config.stage), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(config.stage)}"
            raise ConfigError(f"stages names {name!r}, and there is no config.stage.{name}; {hint}")
    return dict(zip(names, itertools.cycle(mixtures), strict=False))


def _stage_ends(config: ConfigDict, names: list[str]) -> list[int]:
    """The step at which each stage ends."""
    own = [int(config.stage[name].get("steps", 0)) for name in names]
    if any(own):
        if min(own) < 1 or sum(own) != config.steps:
            raise ConfigError(
                f"the stages {config.stages!r} have {own} steps and steps is {config.steps}: set "
                "stage.NAME.steps of every stage, and steps to their sum"
            )
        return list(itertools.accumulate(own))
    shares = [float(config.stage[name].share) for name in names]
    if not names or min(shares) <= 0:
        raise ConfigError(f"the stages {config.stages!r} need shares above zero, not {shares}")
    if config.steps < len(names):
        raise ConfigError(f"steps is {config.steps}: {len(names)} stages need one each at least")
    return [round(config.steps * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]


def resolve_steps(config: ConfigDict, tokens_per_step: int) -> None:
    """Sets config.steps from `config.stage.NAME.tokens` or `.steps`, where stages have them.

    Raises:
        ConfigError: some stages have them and others have not.
    """
    stages = [config.stage[name] for name in names_in(config.stages) if name in config.stage]
    if not any(stage.get("tokens", 0) or stage.get("steps", 0) for stage in stages):
        return
    for stage in stages:
        if stage.get("tokens", 0):
            stage.steps = max(1, round(stage.tokens / tokens_per_step))
    if not all(stage.get("steps", 0) for stage in stages):
        raise ConfigError(
            f"some of the stages {config.stages!r} have tokens or steps of their own: "
            "set one of both for every stage"
        )
    config.steps = sum(stage.steps for stage in stages)


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """The steps of a run, resolved from its config and the size of its mesh.

    stages: in order. batch_rows: sequences of a global batch. length: positions of a sequence.
    """

    stages: tuple[StagePlan, ...]
    batch_rows: int
    length: int

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def tokens_per_step(self) -> int:
        """Positions of a global batch, padding included."""
        return self.batch_rows * self.length

    @property
    def ends(self) -> frozenset[int]:
        """The step after which each stage is over."""
        return frozenset(itertools.accumulate(stage.steps for stage in self.stages))

    def stage_at(self, step: int) -> str:
        """The name of the stage of a step, counted from 0."""
        for stage, end in zip(self.stages, sorted(self.ends), strict=True):
            if step < end:
                return stage.name
        return self.stages[-1].name


def plan_run(config: ConfigDict, batch_rows: int) -> RunPlan:
    """Resolves steps and stages; sets `config.steps` where stages state tokens or steps.

    Raises:
        ConfigError: fields of stages and mixtures that do not fit together.
    """
    length = config.batch.length
    resolve_steps(config, batch_rows * length)
    return RunPlan(tuple(plan_stages(config)), batch_rows, length)


def profiled_steps(text: str) -> tuple[int, int] | None:
    """The first and last step that `config.profile` names, "FIRST:LAST"; None where it is empty.

    Raises:
        ConfigError: anything else.
    """
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise ConfigError(f"config.profile is {text!r}: write FIRST:LAST, such as 10:13")
    return int(first), int(last)


def model_config(config: ConfigDict, vocab_size: int) -> Qwen2Config:
    """The model that `config.model` describes: a preset, or sizes of its own.

    `vocab_size` is the tokenizer's; a model of its own sizes gets it rounded up to 128 rows.
    """
    fields = config.model.to_dict()
    preset = fields.pop("preset")
    if preset:
        if preset not in PRESETS:
            raise ConfigError(f"model.preset is {preset!r}: choose one of {', '.join(PRESETS)}")
        model = PRESETS[preset]
        if model.vocab_size < vocab_size:
            raise ConfigError(
                f"model.preset {preset} has {model.vocab_size} vocabulary rows and the tokenizer "
                f"{vocab_size} ids: they do not belong together"
            )
        return model
    return Qwen2Config(vocab_size=-(-vocab_size // 128) * 128, **fields)


def changed_values(default: dict[str, Any], given: dict[str, Any]) -> dict[str, list[Any]]:
    """[default, value] by dotted name, of every field of `given` that differs from its default.

    A field that has no default has None there.
    """
    before = flat_fields(default)
    return {
        name: [before.get(name), value]
        for name, value in flat_fields(given).items()
        if name not in before or before[name] != value
    }


def changed_fields(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines "field: old -> new" for every field in which two resolved configs differ."""
    lines = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changed_fields(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} -> {after!r}")
    return lines
