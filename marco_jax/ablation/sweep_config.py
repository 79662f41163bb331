"""Fields of `config.sweep`, and what they mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from marco_jax.data.mixtures import GROUPS
from marco_jax.extras import require
from marco_jax.languages import LANGUAGES
from marco_jax.training.config import ConfigError
from marco_jax.training.defaults import training_config, training_stage

# Regressions; see fit.py and trees.py.
FITS = ("log-linear", "lightgbm")
# Fields that may change between starts: they are of the fit, not of the runs.
OF_THE_FIT = ("fit", "targets", "objective", "bounds", "closeness", "draws", "confirm", "keep")


def sweep_config() -> ConfigDict:
    """A training config whose one stage is a proxy run, with the fields of a sweep."""
    c = training_config()
    # The prior, which all mixtures are drawn around: what Marco-LLM's two stages read in all.
    c.mixture.name = "flat"
    c.stages = "proxy"
    c.stage = ConfigDict(
        {
            "proxy": training_stage(1, 1e-5, warmup_share=0.02, final_share=0.1),
            # Of the run that is compared with one flat stage.
            "stage1": training_stage(160, 1e-5, warmup_share=0.02, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )
    c.evaluation.tasks = "bits_per_byte"
    c.evaluation.every_tasks = "bits_per_byte"
    c.evaluation.every = 0
    # Of proxies, one checkpoint is kept while they run.
    c.checkpoint.keep = 1
    c.sweep = ConfigDict(
        {
            # What is moved, see units.py: "groups", "sources", or names, such as
            # "kk,ne,low-resource".
            "units": "groups",
            # Proxy runs, the prior and the uniform mixture among them; 0: four a unit.
            "runs": 0,
            "seed": 0,
            # Smaller weights of a drawn mixture become 0 (Olmix, arXiv 2602.12237).
            "least": 0.002,
            # No weight that reads a source more often than this in `target_tokens` tokens: those
            # of the run that the mixture is for; 0: of the confirmation.
            "max_epochs": 4.0,
            "target_tokens": 0.0,
            # One more run: Stage-I, then Stage-II, with the tokens of a proxy.
            "two_stages": True,
            # "log-linear", or "lightgbm", the baseline of RegMix (arXiv 2407.01492).
            "fit": "log-linear",
            # Tasks whose figures are fitted, language by language, each "TASK[/METRIC]".
            "targets": "bits_per_byte",
            # Languages (or groups, or "all") whose figures are to improve, with weights if they
            # should not count alike: "low-resource", or "kk=2,ne=1".
            "objective": "low-resource",
            # By how much of the prior's figure languages may get worse.
            "bounds": "en=0.01,zh=0.01",
            # Weight of the Kullback-Leibler divergence from the prior, against the mean of the
            # objective's figures, each a share of the prior's.
            "closeness": 0.05,
            # Functions out of the posterior, behind the intervals.
            "draws": 400,
            # Whether done proxies keep their checkpoint.
            "keep": False,
            # The proposal and the prior, each with so many seeds (0: not at all) and steps (0:
            # twice those of a proxy).
            "confirm": {"seeds": 3, "steps": 0},
        }
    )
    return c


def check_fields(config: ConfigDict) -> None:
    """Refuses what would come to light only after the runs (ConfigError).

    Which languages have figures is known after the first of them; names of none are refused here.
    """
    fields = config.sweep
    if fields.fit not in FITS:
        raise ConfigError(f"sweep.fit is {fields.fit!r}: choose one of {', '.join(FITS)}")
    if fields.fit == "lightgbm":
        # Known before the runs, not after them.
        require("sweep", "sweep.fit='lightgbm'")
    if not _names(fields.targets):
        raise ConfigError("sweep.targets is empty: name a task, such as bits_per_byte")
    tasks = {re.split("[:@?]", name)[0] for name in _names(config.evaluation.tasks)}
    for target in _names(fields.targets):
        if target.partition("/")[0] not in tasks:
            raise ConfigError(
                f"sweep.targets names {target!r}: evaluation.tasks has only {', '.join(tasks)}"
            )
    evaluated = set(_names(config.evaluation.languages)) or set(LANGUAGES)
    objective = parse_shares(fields.objective, "sweep.objective", 1.0)
    if not objective:
        raise ConfigError("sweep.objective is empty: name languages, such as low-resource")
    bounds = parse_shares(fields.bounds, "sweep.bounds")
    for field, names in (("sweep.objective", objective), ("sweep.bounds", bounds)):
        for name in names:
            known = name == "all" or "/" in name or evaluated & set(GROUPS.get(name, (name,)))
            if not known:
                near = difflib.get_close_matches(name, [*GROUPS, *LANGUAGES], n=1)
                hint = f"did you mean {near[0]!r}?" if near and near[0] != name else ""
                raise ConfigError(f"{field}: {name!r} is no language that is evaluated; {hint}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_shares(text: str, field: str, default: float | None = None) -> dict[str, float]:
    """Names with numbers: "en=0.01,zh=0.02". Names alone have the default.

    Raises:
        ConfigError: the item that cannot be read.
    """
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = item.partition("=")
        try:
            found[name.strip()] = float(value) if separator else float(default)
        except (TypeError, ValueError):
            raise ConfigError(f"{field}: {item!r} is not of the form NAME=NUMBER") from None
    return found


def resolve_targets(
    shares: Mapping[str, float], targets: Sequence[str], field: str
) -> dict[str, float]:
    """Weights by target, from names of languages, groups, or "all".

    Args:
        shares: by name. A language means its target of the first task; a target may be named whole
            ("belebele/accuracy/kk"). A group's languages share its weight.
        targets: what runs have figures of, as "TASK/METRIC/LANGUAGE".
        field: for messages.

    Raises:
        ConfigError: a name that means no target.
    """
    first = targets[0].rpartition("/")[0]
    by_language = {t.rpartition("/")[2]: t for t in targets if t.rpartition("/")[0] == first}
    found: dict[str, float] = {}
    for name, share in shares.items():
        languages = list(by_language) if name == "all" else GROUPS.get(name, (name,))
        meant = [by_language[code] for code in languages if code in by_language]
        if name in targets:
            meant = [name]
        if not meant:
            near = difflib.get_close_matches(name, [*by_language, *GROUPS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(by_language)}"
            raise ConfigError(f"{field}: no figure of {name!r}; {hint}")
        for target in meant:
            found[target] = found.get(target, 0.0) + share / len(meant)
    return found
