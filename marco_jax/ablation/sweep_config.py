"""The fields of `config.sweep`, their defaults and checks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from marco_jax.data.mixtures import table_groups
from marco_jax.extras import require
from marco_jax.languages import LANGUAGES, add_config_languages, names_in
from marco_jax.training.config import ConfigError
from marco_jax.training.defaults import training_config, training_stage

# Regressions; see fit.py and trees.py.
FITS = ("log-linear", "lightgbm")
# Fields that may change between starts, since they do not affect what the runs compute.
FIT_FIELDS = (
    *("fit", "targets", "objective", "bounds", "bound_quantile", "closeness", "draws"),
    *("confirm", "keep", "parallel", "lanes"),
)


def sweep_config() -> ConfigDict:
    """A training config whose one stage is a proxy run, with the fields of a sweep."""
    c = training_config()
    # The prior, around which mixtures are drawn: the mixture of both stages of Marco-LLM together.
    c.mixture.name = "flat"
    c.stages = "proxy"
    c.stage = ConfigDict(
        {
            "proxy": training_stage(1, 1e-5, warmup_share=0.02, final_share=0.1),
            # Stages of the run that is compared with one flat stage.
            "stage1": training_stage(160, 1e-5, warmup_share=0.02, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )
    c.evaluation.tasks = "bits_per_byte"
    c.evaluation.every_tasks = "bits_per_byte"
    c.evaluation.every = 0
    # Texts of proxies are not compared, and take time.
    c.evaluation.samples.prompts = 0
    # Proxies keep one checkpoint while they run.
    c.checkpoint.keep = 1
    c.sweep = ConfigDict(
        {
            # The components whose weights vary, see components.py: "groups", "sources", or names
            # such as "kk,ne,low-resource".
            "units": "groups",
            # Number of proxy runs, with prior and uniform mixture; 0 for four per component.
            "runs": 0,
            "seed": 0,
            # Smaller weights of a drawn mixture become 0 (Olmix, arXiv 2602.12237).
            "least": 0.002,
            # Weights are capped so that no source is read more often than this in `target_tokens`
            # tokens, the budget of the run that the mixture is for; 0 for the confirmation's.
            "max_epochs": 4.0,
            "target_tokens": 0.0,
            # Also run Stage-I, then Stage-II, with the tokens of a proxy.
            "two_stages": True,
            # "log-linear", or "lightgbm", the baseline of RegMix (arXiv 2407.01492).
            "fit": "log-linear",
            # Tasks whose metrics are fitted for each language, each "TASK[/METRIC]", such as
            # "bits_per_byte,belebele/accuracy". Accuracies count with the error of their items.
            "targets": "bits_per_byte",
            # Languages (or groups, or "all") to improve, with weights if they should not be equal:
            # "low-resource", or "kk=2,ne=1". A language means the first of `targets`; another one
            # is named in full: "kk,belebele/accuracy/kk=1".
            "objective": "low-resource",
            # By how much, relative to the prior, languages may get worse.
            "bounds": "en=0.01,zh=0.01",
            # The probability with which all bounds hold together, by the fits' posterior: 0.5 to
            # 0.99. A fit by LightGBM has none: there, bounds are on its estimate.
            "bound_quantile": 0.9,
            # Weight of the Kullback-Leibler divergence from the prior, against the mean of the
            # objective's targets relative to the prior.
            "closeness": 0.05,
            # Number of posterior draws for the intervals.
            "draws": 400,
            # Whether finished proxies keep their checkpoint.
            "keep": False,
            # How runs of one shape share the devices (lanes/lane_step.py): "none", one run after
            # the other; "vmap", the steps of several runs are one program on all devices; "slices",
            # each of several groups of devices computes the step of one run.
            "parallel": "none",
            # Number of runs at once; 0 for as many as fit in memory ("vmap", at most 16) or as the
            # mesh can be divided into ("slices").
            "lanes": 0,
            # Confirmation runs of proposal and prior: number of seeds (0 for none) and steps (0
            # for twice those of a proxy).
            "confirm": {"seeds": 3, "steps": 0},
        }
    )
    return c


def confirm_steps(config: ConfigDict) -> int:
    """Steps of a confirmation run: twice those of a proxy where none are set."""
    return config.sweep.confirm.steps or 2 * config.steps


def check_fields(config: ConfigDict) -> None:
    """Checks the sweep's fields before any run; raises ConfigError.

    Which languages have metrics is known only after the first run; here, names must be languages
    that are evaluated.
    """
    add_config_languages(config)
    fields = config.sweep
    if fields.fit not in FITS:
        raise ConfigError(f"sweep.fit is {fields.fit!r}: choose one of {', '.join(FITS)}")
    if fields.fit == "lightgbm":
        # Raise before the runs, not after them.
        require("sweep", "sweep.fit='lightgbm'")
    if not 0.5 <= fields.bound_quantile <= 0.99:
        raise ConfigError(
            f"sweep.bound_quantile is {fields.bound_quantile}: set it to a probability from 0.5 to "
            "0.99"
        )
    if not names_in(fields.targets):
        raise ConfigError("sweep.targets is empty: name a task, such as bits_per_byte")
    tasks = {re.split("[:@?]", name)[0] for name in names_in(config.evaluation.tasks)}
    for target in names_in(fields.targets):
        if target.partition("/")[0] not in tasks:
            raise ConfigError(
                f"sweep.targets names {target!r}: evaluation.tasks has only {', '.join(tasks)}"
            )
    evaluated = set(names_in(config.evaluation.languages)) or set(LANGUAGES)
    objective = parse_shares(fields.objective, "sweep.objective", 1.0)
    if not objective:
        raise ConfigError("sweep.objective is empty: name languages, such as low-resource")
    bounds = parse_shares(fields.bounds, "sweep.bounds")
    groups = table_groups()
    for field, names in (("sweep.objective", objective), ("sweep.bounds", bounds)):
        for name in names:
            codes = set(groups.get(name, (name,)))
            if name != "all" and "/" not in name and not evaluated & codes:
                near = difflib.get_close_matches(name, [*groups, *LANGUAGES], n=1)
                hint = f"did you mean {near[0]!r}?" if near and near[0] != name else ""
                raise ConfigError(f"{field}: {name!r} is not an evaluated language; {hint}")


def parse_shares(text: str, field: str, default: float | None = None) -> dict[str, float]:
    """Parses names with numbers, "en=0.01,zh=0.02"; names without a number get the default.

    Raises:
        ConfigError: an item is malformed.
    """
    found = {}
    for item in names_in(text):
        name, separator, value = item.partition("=")
        try:
            found[name.strip()] = float(value) if separator else float(default)
        except (TypeError, ValueError):
            raise ConfigError(f"{field}: {item!r} is not of the form NAME=NUMBER") from None
    return found


def resolve_targets(
    shares: Mapping[str, float], targets: Sequence[str], field: str
) -> dict[str, float]:
    """Converts numbers by language, group or "all" to numbers by target.

    Args:
        shares: numbers by name. A language means its target in the first task; a target may also
            be named in full ("belebele/accuracy/kk"). A group's number is divided equally among
            its languages.
        targets: the targets of the runs, as "TASK/METRIC/LANGUAGE".
        field: name of the config field, for messages.

    Raises:
        ConfigError: a name matches no target.
    """
    first = targets[0].rpartition("/")[0]
    by_language = {t.rpartition("/")[2]: t for t in targets if t.rpartition("/")[0] == first}
    found: dict[str, float] = {}
    for name, share in shares.items():
        languages = list(by_language) if name == "all" else table_groups().get(name, (name,))
        matching = [by_language[code] for code in languages if code in by_language]
        if name in targets:
            matching = [name]
        if not matching:
            near = difflib.get_close_matches(name, [*by_language, *table_groups()], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(by_language)}"
            raise ConfigError(f"{field}: no metric of {name!r}; {hint}")
        for target in matching:
            found[target] = found.get(target, 0.0) + share / len(matching)
    return found
