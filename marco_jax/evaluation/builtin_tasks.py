"""The in-loop tasks, as data."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from marco_jax.evaluation.benchmarks import BENCHMARKS

Kind = Literal["rolling", "multiple_choice", "generation"]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a task measures; how its items are built follows from `kind`.

    Attributes:
        name: as it stands in results.
        kind: "rolling" reads the likelihood of whole texts, "multiple_choice" ranks given
            options, "generation" decodes greedily.
        metrics: names of its figures, the headline first.
        shots: solved examples in a prompt unless the caller says otherwise.
        max_characters: held-out pairs with a longer side are left out.
        max_new_tokens: of a generated answer.
        chance: value of the headline metric for a model that knows nothing.
    """

    name: str
    kind: Kind
    metrics: tuple[str, ...]
    shots: int = 0
    max_characters: int = 200
    max_new_tokens: int = 96
    chance: float | None = None


BITS_PER_BYTE = Task("bits_per_byte", "rolling", ("bits_per_byte",))
PICK_TRANSLATION = Task(
    "pick_translation",
    "multiple_choice",
    # Sums and means per byte are ruled by how common an option is; what tells translations
    # apart in a weak model is what the question adds.
    ("accuracy_pmi", "accuracy", "accuracy_norm"),
    shots=3,
    chance=0.25,
)
TRANSLATION = Task("translation", "generation", ("chrf++",), shots=3)

TASKS = {task.name: task for task in (BITS_PER_BYTE, PICK_TRANSLATION, TRANSLATION)}


# The suffix of a task that is left out where there is no data for it.
OPTIONAL = "?"


def named_task(name: str) -> tuple[str, bool]:
    """A task's name and whether it is optional, from how a config writes it ("translation?").

    Raises:
        ValueError: neither a task nor a benchmark has this name; the nearest is named.
    """
    plain = name.removesuffix(OPTIONAL)
    # A benchmark is named NAME[:FORMAT][@SPLIT].
    if plain.partition("@")[0].partition(":")[0] not in BENCHMARKS:
        get_task(plain)
    return plain, plain != name


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    known = [*TASKS, *BENCHMARKS]
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"known tasks are {', '.join(known)}"
    raise ValueError(f"task {name!r} is unknown: {remedy}")
