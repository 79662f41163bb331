"""The user's own SeqIO tasks and mixtures: what of them a run reads.

This runs where SeqIO is imported, in the processes that prepare data (workers.py). The run gets
plain data: the tasks, where their data lies, and the rates of the mixtures.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import seqio

from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.seqio_tasks import CorpusDataSource
from marco_jax.data.seqio_vocabulary import same_vocabulary
from marco_jax.data.task_info import Registered, Request, TaskInfo, TaskOptions
from marco_jax.data.workers import Context
from marco_jax.files import as_path, glob_paths

# Output features of a task, and what its examples are: texts, or prompts with what answers them.
TEXT_FEATURES = (("targets",), ("tokens",), ("text",))
PROMPT_FEATURES = ("inputs", "targets")
# A source is read in at most so many parts.
_MOST_SHARDS = 1024
# Packages whose functions change with their version alone.
_LIBRARIES = ("seqio", "tensorflow", "tensorflow_datasets", "t5", "marco_jax")


def describe(context: Context, request: Request) -> Registered:
    """The tasks and rates behind registered names.

    Raises:
        ValueError: a name that is not registered, a task without the split, with other features
            than those of a text or a prompt, with another vocabulary than the run's, or a rate
            that cannot be computed.
    """
    tasks: dict[str, TaskInfo] = {}
    rates: dict[str, dict[str, float]] = {}
    for name in request.names:
        found = seqio.get_mixture_or_task(_known(name, "mixture.name"))
        members = [found] if isinstance(found, seqio.Task) else found.tasks
        rates[name] = {}
        for task in members:
            rate = 1.0 if task is found else _rate(found, task)
            if rate <= 0:
                continue
            if isinstance(task.source, CorpusDataSource):
                rates[name][task.source.name] = rate
                continue
            rates[name][task.name] = rate
            if task.name not in tasks:
                split = request.options.split
                tasks[task.name] = _describe_task(context, task, request.options, split)
        if not rates[name]:
            raise ValueError(f"mixture.name {name!r}: all its rates are 0")
    evaluated = [
        _describe_evaluated(context, name, request.options)
        for name in request.evaluated
        if name not in tasks
    ]
    return Registered(tuple(tasks.values()), tuple(evaluated), rates)


def _known(name: str, field: str, *, mixtures: bool = True) -> str:
    """The name of a registered task, or mixture; refuses others and suggests the nearest."""
    names = [*seqio.TaskRegistry.names(), *(seqio.MixtureRegistry.names() if mixtures else ())]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "set mixture.modules to what registers it"
        raise ValueError(f"{field} {name!r} is not registered: {hint}")
    return name


def _rate(mixture: seqio.Mixture, task: seqio.Task) -> float:
    try:
        return float(mixture.get_rate(task))
    except Exception as error:  # whatever the user's rate function raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"mixture.name {mixture.name!r}: the rate of {task.name!r} cannot be computed: {reason}"
        ) from None


def _describe_evaluated(context: Context, name: str, options: TaskOptions) -> TaskInfo:
    """A task that is evaluated and not trained on."""
    _known(name, "evaluation.tasks", mixtures=False)
    task = seqio.TaskRegistry.get(name)
    described = _describe_task(context, task, options, options.held_out_split)
    if not (described.prompts and described.metrics):
        raise ValueError(
            f'evaluation.tasks: the task {name!r} needs "inputs" and "targets", and metric '
            "functions of targets and predictions"
        )
    return described


def _describe_task(
    context: Context, task: seqio.Task, options: TaskOptions, split: str
) -> TaskInfo:
    features = tuple(task.output_features)
    if features not in TEXT_FEATURES and set(features) != set(PROMPT_FEATURES):
        raise ValueError(
            f"the task {task.name!r} has the features {', '.join(features)}: a task has "
            '"targets" alone, a text, or "inputs" and "targets", a prompt and its answer'
        )
    for name in features:
        vocabulary = task.output_features[name].vocabulary
        if not same_vocabulary(vocabulary, context.tokenizer):
            raise ValueError(
                f"the task {task.name!r}: the vocabulary of {name!r}, {vocabulary}, is not the "
                "run's tokenizer: write marco_jax.data.seqio_vocabulary.run_vocabulary() in its "
                "features, or change them with Task.replace"
            )
    cached = bool(task.supports_caching and task.cache_dir)
    if task.requires_caching and not cached:
        raise ValueError(
            f"the task {task.name!r} needs its offline cache, and no directory of "
            "mixture.tasks.caches has it: make it with seqio_cache_tasks"
        )
    if split not in task.splits:
        field = "split" if split == options.split else "held_out_split"
        raise ValueError(
            f"the task {task.name!r} has no split {split!r}, it has "
            f"{', '.join(map(str, task.splits))}: set mixture.tasks.{field}"
        )
    try:
        if cached:
            listed = glob_paths(f"{task.cache_dir}/{split}.tfrecord-*")
        else:
            listed = [str(shard) for shard in task.source.list_shards(split)]
    except Exception as error:  # of TFDS: a dataset that is not prepared, and the like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"the task {task.name!r} cannot be read: {reason}") from None
    if not listed:
        raise ValueError(f"the task {task.name!r} has no files of the split {split!r}")
    files = tuple(path for path in listed if as_path(path).is_file())
    return TaskInfo(
        task.name,
        prompts=set(features) == set(PROMPT_FEATURES),
        shards=min(len(listed), _MOST_SHARDS),
        cached=cached,
        held_out_split=options.held_out_split if options.held_out_split in task.splits else "",
        files=files,
        code=_code(context, task),
        metrics=bool(task.predict_metric_fns),
    )


def _code(context: Context, task: seqio.Task) -> str:
    """A hash of the files with the code that makes a task's examples, libraries' apart."""
    hashes, digest = FileHashes(), hashlib.blake2b(digest_size=16)
    digest.update(repr((task.name, sorted(task.output_features), seqio.__version__)).encode())
    paths = {module for module in context.modules if module.endswith(".py")}
    for function in _functions([*task.preprocessors, *vars(task.source).values()]):
        module = inspect.getmodule(function)
        if module and module.__name__.partition(".")[0] not in _LIBRARIES:
            paths.add(getattr(module, "__file__", None) or "")
    for path in sorted(filter(None, paths)):
        digest.update(hashes.of(str(as_path(path))).encode())
    return digest.hexdigest()


def _functions(values: Iterable[Any]) -> Iterator[Any]:
    """Functions among values, also those inside functools.partial."""
    for value in values:
        while isinstance(value, functools.partial):
            value = value.func
        if callable(value) and hasattr(value, "__code__"):
            yield inspect.unwrap(value)
