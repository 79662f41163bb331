"""The built-in tasks on held-out data, and the lookup of task names."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from marco_jax.data.task_info import REGISTERED
from marco_jax.evaluation.benchmarks import BENCHMARKS

Kind = Literal["rolling", "multiple_choice", "generation", "registered"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task on held-out data; `kind` decides how its items are built.

    Attributes:
        name: the name used in results.
        kind: "rolling" measures the likelihood of whole texts, "multiple_choice" ranks given
            options, "generation" decodes greedily; "registered" too, of a task in SeqIO's registry.
        metrics: names of its metrics, the main one first; empty where functions name them.
        shots: default number of shots in a prompt.
        max_characters: held-out pairs with a longer side are left out.
        max_new_tokens: maximum length of a generated answer.
        chance: value of the main metric at random guessing.
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
    # Summed or per-byte log-probability mostly reflects how common an option is. In a weak model
    # the translations are distinguished by how much the question changes it (PMI).
    ("accuracy_pmi", "accuracy", "accuracy_norm"),
    shots=3,
    chance=0.25,
)
TRANSLATION = Task("translation", "generation", ("chrf++",), shots=3)

TASKS = {task.name: task for task in (BITS_PER_BYTE, PICK_TRANSLATION, TRANSLATION)}


# The key of numbers of items for tasks that are not named there.
EVERY_TASK = "all"
# Suffix of a task name: the task is skipped if there is no data for it.
OPTIONAL = "?"


def named_task(name: str) -> tuple[str, bool]:
    """Splits a config's task name ("translation?") into the name and whether it is optional.

    Raises:
        ValueError: neither a task nor a benchmark has this name; the message gives the nearest.
    """
    plain = name.removesuffix(OPTIONAL)
    if plain.startswith(REGISTERED):
        return plain, plain != name
    # A benchmark is named NAME[:FORMAT][@SPLIT].
    if plain.partition("@")[0].partition(":")[0] not in BENCHMARKS:
        get_task(plain)
    return plain, plain != name


def get_task(name: str) -> Task:
    """Looks up a built-in task by name; the ValueError for an unknown one gives the nearest."""
    if name in TASKS:
        return TASKS[name]
    if name.startswith(REGISTERED):
        return Task(name, "registered", ())
    known = [*TASKS, *BENCHMARKS]
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"known tasks are {', '.join(known)}"
    raise ValueError(f"task {name!r} is unknown: {remedy}")
