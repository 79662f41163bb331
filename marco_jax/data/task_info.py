"""Plain data that crosses to the processes that prepare data: tasks, and parts to be written."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

# What `evaluation.tasks` calls a task in SeqIO's registry: "seqio:NAME".
REGISTERED = "seqio:"
# Beside a task's parts: its texts that are evaluated on.
HELD_OUT_FILE = "held_out.jsonl"


class TaskOptions(NamedTuple):
    """How tasks are read: fields of `config.mixture`.

    split: that is trained on. held_out_split: that is evaluated on. held_out: share of the texts
    that is held out where a task has no such split. loss_on_targets_only: whether a prompt is
    trained on too.
    """

    split: str = "train"
    held_out_split: str = "validation"
    held_out: float = 0.01
    loss_on_targets_only: bool = True


class TaskInfo(NamedTuple):
    """A task.

    Attributes:
        name: in SeqIO's registry; it is the source's name too.
        prompts: whether its examples are prompts with answers, and not texts.
        shards: parts that it is read in.
        cached: whether it is read from its offline cache.
        held_out_split: the split that is evaluated on; "" if it has none.
        files: of its data, as far as they are known.
        code: a hash of the code that makes its examples.
        metrics: whether it has metric functions of answers.
    """

    name: str
    prompts: bool
    shards: int
    cached: bool
    held_out_split: str
    files: tuple[str, ...]
    code: str
    metrics: bool = False


class Request(NamedTuple):
    """Names of registered mixtures or tasks, of tasks that are evaluated, and how both are read."""

    names: tuple[str, ...]
    evaluated: tuple[str, ...]
    options: TaskOptions


class Registered(NamedTuple):
    """Tasks that are trained on, tasks that are only evaluated, and rates by mixture and source."""

    tasks: tuple[TaskInfo, ...]
    evaluated: tuple[TaskInfo, ...]
    rates: Mapping[str, Mapping[str, float]]


class PartJob(NamedTuple):
    """A part of a store that is to be written.

    Attributes:
        source: name of the source, or of the user's task.
        store: directory of the store.
        number: of the part; of `parts`.
        kind: of the store.
        size: bytes of the files that are read, 0 where it is not known.
        task: the user's; None for a source of the corpus.
        options: how the user's task is read.
    """

    source: str
    store: pathlib.Path
    number: int
    parts: int
    kind: str
    size: int
    task: TaskInfo | None = None
    options: TaskOptions = TaskOptions()


class ModelAnswers(NamedTuple):
    """What a model answers to held-out prompts of a task: texts, and the prompts' numbers."""

    job: PartJob
    indices: tuple[int, ...]
    texts: tuple[str, ...]
