"""The record of a run on this machine: where it runs, its attempts, and how long slices were held.

It is LOGS/NAME.json. `launch` writes it and every other verb reads it: the cloud forgets a queued
resource that is deleted, and with it what it has cost.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.pods.estimate import cost_line
from marco_jax.files import read_json_object, write_json


@dataclasses.dataclass
class Record:
    """A run and its slices.

    Attributes:
        path: of the file.
        run: flags that say where it is: topology, num_slices, project, zone, via, cluster.
        chips: of all slices.
        attempt: how often the run was started.
        arguments: of `marco`, with which it was started last.
        held: seconds since 1970 at which slices came and went; the last may be None: still held.
        price: of a chip and hour, in any currency; None: not known.
        hours: that the plan predicts for the whole run, least and most; None: without a plan.
    """

    path: pathlib.Path
    run: dict[str, Any] = dataclasses.field(default_factory=dict)
    chips: int = 0
    attempt: int = 0
    arguments: list[str] = dataclasses.field(default_factory=list)
    held: list[list[float | None]] = dataclasses.field(default_factory=list)
    price: float | None = None
    hours: list[float] | None = None

    @classmethod
    def read(cls, logs: pathlib.Path, name: str) -> Record:
        """The record of a run; an empty one where there is none.

        Raises:
            ValueError: the file is not a record.
        """
        path = logs / f"{name}.json"
        if not path.exists():
            return cls(path)
        try:
            return cls(path, **read_json_object(path))
        except TypeError:
            raise ValueError(
                f"{path} is not a record of a run: give another folder in --logs"
            ) from None

    def write(self) -> None:
        """Writes the file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_json(self.path, {name: fields[name] for name in fields if name != "path"})

    @property
    def holds(self) -> bool:
        """Whether slices are held, as far as this machine knows."""
        return bool(self.held) and self.held[-1][1] is None

    def hold(self, now: float) -> None:
        """Slices are there."""
        if not self.holds:
            self.held.append([now, None])
            self.write()

    def release(self, now: float) -> None:
        """Slices are gone."""
        if self.holds:
            self.held[-1][1] = now
            self.write()

    def start(self, arguments: Sequence[str]) -> None:
        """The run is started once more, as `marco ARGUMENTS`."""
        self.attempt, self.arguments = self.attempt + 1, list(arguments)
        self.write()

    def lines(self, now: float, price: float | None = None) -> list[str]:
        """The attempt, and the cost so far and estimated; `price` replaces the record's."""
        if not self.chips:
            return [f"attempt and cost are not known: {self.path} has no record of the run"]
        price = self.price if price is None else price
        hours = sum((now if end is None else end) - start for start, end in self.held) / 3600
        so_far = f"held for {hours:,.1f} hours so far, {hours * self.chips:,.1f} chip-hours"
        if price is None:
            so_far += "; cost not known: give --price, of a chip and hour"
        else:
            so_far += f", cost {hours * self.chips * price:,.0f} at {price:g} a chip and hour"
        estimate = (
            "whole run not estimated: give launch --plan, what `marco plan --out` has written"
        )
        if self.hours is not None:
            estimate = (
                f"whole run, training steps alone: {cost_line(*self.hours, self.chips, price)}"
            )
        return [f"attempt {self.attempt}", so_far, estimate]
