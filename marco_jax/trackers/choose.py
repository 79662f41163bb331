"""Which trackers a config names, and whether they can be used."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from marco_jax.extras import require
from marco_jax.languages import names_in
from marco_jax.runtime.user_code import load_callable
from marco_jax.trackers.mlflow_tracker import MlflowTracker
from marco_jax.trackers.tensorboard_tracker import TensorBoardTracker
from marco_jax.trackers.tracker import Tracker
from marco_jax.trackers.wandb_tracker import WandbTracker

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
TRACKERS: dict[str, type[Tracker]] = {
    TENSORBOARD: TensorBoardTracker,
    WANDB: WandbTracker,
    MLFLOW: MlflowTracker,
}
_METHODS = ("log", "sync", "close")


def tracker_names(config: ConfigDict) -> list[str]:
    """The names in `trackers`, once each, and "wandb" where `wandb.project` is set."""
    names = [*names_in(config.trackers), *([WANDB] if config.wandb.project else [])]
    return list(dict.fromkeys(names))


def check_trackers(config: ConfigDict) -> None:
    """Refuses trackers that a run could not start; the user's own are imported.

    Raises:
        ValueError: an unknown name, a class without the methods, a field that a tracker needs, or
            a missing package; the message has the remedy.
    """
    for name in tracker_names(config):
        tracker_class(name)
        if name == WANDB:
            if not config.wandb.project:
                raise ValueError(
                    "trackers names 'wandb' and wandb.project is empty: name a project"
                )
            require("wandb", f"wandb.project={config.wandb.project!r}")
        if name == MLFLOW:
            require("mlflow", "trackers=mlflow")
            if not (config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
                raise ValueError(
                    "trackers names 'mlflow' and mlflow.tracking_uri is empty: set it, or the "
                    "variable MLFLOW_TRACKING_URI"
                )


def tracker_class(name: str) -> Callable[..., Any]:
    """The class of a tracker: a name of TRACKERS, package.module:Class or file.py:Class.

    Raises:
        ValueError: it is unknown, cannot be imported, or lacks a method of Tracker.
    """
    if name in TRACKERS:
        return TRACKERS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, TRACKERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(TRACKERS)}, and"
        own = "" if near else " package.module:Class or file.py:Class"
        raise ValueError(f"trackers names {name!r}, which is not known: {hint}{own}")
    try:
        found = load_callable(name)
    except Exception as error:  # whatever the user's module raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"trackers names {name!r}, which cannot be imported: {reason}") from error
    # Those that a class derives from Tracker and does not write.
    abstract = getattr(found, "__abstractmethods__", frozenset())
    lacking = [m for m in _METHODS if m in abstract or not callable(getattr(found, m, None))]
    if lacking:
        raise ValueError(
            f"trackers names {name!r}, which has no {', '.join(lacking)}: write the methods of "
            "marco_jax.trackers.tracker.Tracker"
        )
    return found
