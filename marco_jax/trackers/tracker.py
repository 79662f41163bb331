"""What a tracker is: the interface between a run and a service that shows its metrics."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from typing import Any

from marco_jax.flat_fields import flat_fields


class Tracker(abc.ABC):
    """Sends the metrics of a run to a service, or to files.

    A class of the user's own derives from this one, or has the same methods without it. Only the
    first process of a run has trackers. A tracker is made before the first step; from then on a
    thread of its own makes all calls, one after another and in order, so that a service that does
    not answer holds up no step. What a tracker raises is logged once, and training goes on:
    metrics.jsonl has every metric anyway.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], step: int) -> None:
        """Starts the run at the service, or goes on with it. This one does nothing.

        Args:
            workdir: of the run; in an object store it is a path with the methods of pathlib.Path.
            config: every field of the run, groups as dicts; `flat_config` puts them in one dict.
            step: finished steps that the run goes on from, 0 at its first start. Steps after it
                come again, if an earlier attempt took them.
        """
        del workdir, config, step

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes metrics of a step.

        Args:
            step: finished steps, at least that of the call before. A step may have several calls,
                such as one of training and one of evaluation.
            metrics: finite numbers by name, such as "train/loss" or "loss/kk".
        """

    def sync(self) -> None:  # noqa: B027
        """Makes what was logged safe; called before every checkpoint. This one does nothing."""

    def close(self) -> None:  # noqa: B027
        """Ends the run at the service, the last call of all. This one does nothing."""


def flat_config(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The fields of a config by their whole names, such as "optimizer.b1".

    Args:
        config: groups as dicts.

    Returns:
        Values as they are; those that are neither numbers nor strings become strings, and None is
        left out.
    """
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flat_fields(config).items()
        if value is not None
    }
