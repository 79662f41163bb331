"""The token stores of a run, and the held-out texts that it may be evaluated on."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.data.leaks import LeakFinder
from marco_jax.data.mixtures import is_mixture_name
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.store import TokenStore
from marco_jax.data.task_info import (
    HELD_OUT_FILE,
    ModelAnswers,
    PartJob,
    Registered,
    Request,
    TaskInfo,
    TaskOptions,
)
from marco_jax.data.texts import CHAT, TEXT, SourceInfo
from marco_jax.data.workers import Context, Workers
from marco_jax.files import read_json_lines, read_json_object, write_json
from marco_jax.languages import get_language, names_in
from marco_jax.tokenizers.tokenizer import TOKENIZER, Tokenizer, load_tokenizer

# In a workdir: the hashes of held-out texts that are left out, and the held-out texts of tasks.
HELD_OUT_RECORD = "held_out.json"

_log = logging.getLogger(__name__)


class RunStores(NamedTuple):
    """Token stores by source, and rates of sources by the user's mixtures."""

    stores: dict[str, TokenStore]
    rates: Mapping[str, Mapping[str, float]]


def prepare_run(
    config: ConfigDict,
    workdir: pathlib.Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    mixtures: Sequence[str],
    wanted: Sequence[str],
    evaluated: Sequence[str],
    *,
    verify: bool,
) -> RunStores:
    """Tokenises what a run reads and is not tokenised yet; this may take long.

    The user's tasks are added to the corpus, and held-out texts that training reads under another
    name are taken from it.

    Args:
        config: `data_cache`, `mixture` and `feed` are read.
        workdir: of the run.
        corpus: the text.
        tokenizer: of the model.
        mixtures: names of the mixtures of all stages.
        wanted: sources of the corpus that our own mixtures among them read.
        evaluated: tasks of SeqIO's registry that are evaluated.
        verify: see prepare_stores.

    Raises:
        ValueError: sources, tasks or mixtures that cannot be read.
    """
    fields = config.mixture.tasks
    options = TaskOptions(
        fields.split, fields.held_out_split, fields.held_out, fields.loss_on_targets_only
    )
    context = Context.of(config, corpus, tokenizer)
    with Workers(config.feed.workers, context) as workers:
        registered = Registered((), (), {})
        names = tuple(name for name in mixtures if not is_mixture_name(name))
        if names or evaluated:
            asked = [Request(names, tuple(evaluated), options)]
            ((_, registered),) = workers.map("marco_jax.data.registered:describe", asked)
        ours = {s for rates in registered.rates.values() for s in rates} & set(corpus.sources())
        infos = {info.name: info for info in corpus.infos()}
        stores = prepare_stores(
            corpus,
            tokenizer,
            [name for name in infos if name in {*wanted, *ours} and not infos[name].streamed],
            config.data_cache or workdir / "data",
            host=(jax.process_index(), jax.process_count()),
            workers=workers,
            verify=verify,
            tasks=registered.tasks,
            options=options,
        )
        folders = {task.name: stores[task.name].directory for task in registered.tasks}
        for task in registered.evaluated:
            folders[task.name] = workdir / "data" / f"evaluated-{task.name}"
            job = PartJob(task.name, folders[task.name], 0, task.shards, "", 0, task, options)
            for _ in workers.map("marco_jax.data.tokenise:write_held_out", [job]):
                pass
    tasks = (*registered.tasks, *registered.evaluated)
    _add_tasks(corpus, tasks, folders, fields.languages)
    corpus.task_metrics = _TaskMetrics(context, tasks, options, config.feed.workers)
    leaked = _find_leaks(corpus, stores)
    if jax.process_index() == 0:
        _record(workdir, corpus, tasks, options, leaked)
    return RunStores(stores, registered.rates)


def read_held_out_record(corpus: Corpus, workdir: pathlib.Path) -> None:
    """Gives the corpus of a run the held-out texts that the run in `workdir` is evaluated on."""
    path = workdir / HELD_OUT_RECORD
    if not path.exists():
        return
    record = read_json_object(path)
    tasks = [TaskInfo(**row["task"]) for row in record["tasks"]]
    for row, task in zip(record["tasks"], tasks, strict=True):
        corpus.add_task(SourceInfo(task.name, row["kind"], row["language"]), row["examples"])
    corpus.leave_out([int(text, 16) for text in record["left_out"]])
    if tasks:
        config = read_json_object(workdir / "config.json")
        context = Context.of(config, corpus, load_tokenizer(workdir / TOKENIZER))
        options = TaskOptions(**record["options"])
        corpus.task_metrics = _TaskMetrics(context, tasks, options, 1)


def task_languages(text: str) -> dict[str, str]:
    """Languages of tasks from "my_task=kk,other=en".

    Raises:
        ValueError: an item of another form, or an unknown language.
    """
    languages = {}
    for item in names_in(text):
        name, separator, code = (part.strip() for part in item.partition("="))
        if not separator:
            raise ValueError(f"mixture.tasks.languages: {item!r} is not of the form task=language")
        languages[name] = get_language(code).code
    return languages


def _add_tasks(
    corpus: Corpus, tasks: Sequence[TaskInfo], folders: Mapping[str, pathlib.Path], languages: str
) -> None:
    codes = task_languages(languages)
    unknown = sorted(set(codes) - {task.name for task in tasks})
    if unknown:
        raise ValueError(
            f"mixture.tasks.languages names {unknown[0]!r}, and the mixture has no such task: it "
            f"has {', '.join(task.name for task in tasks) or 'none of the modules'}"
        )
    for task in tasks:
        rows = read_json_lines(folders[task.name] / HELD_OUT_FILE)
        kind = CHAT if task.prompts else TEXT
        info = SourceInfo(task.name, kind, codes.get(task.name, ""))
        corpus.add_task(info, rows)


def _find_leaks(corpus: Corpus, stores: Mapping[str, TokenStore]) -> list[int]:
    """Leaves out held-out texts that occur in training text, and returns their hashes."""
    finder = LeakFinder(corpus.held_out_texts())
    found = np.zeros(len(finder.hashes), bool)
    for store in stores.values():
        found |= store.holds(finder.hashes)
    leaked = sorted(finder.find(finder.hashes[found].tolist()))
    if leaked:
        _log.info(
            f"{len(leaked):,} of {finder.size:,} held-out texts occur in training text too, and "
            "are not evaluated on"
        )
    corpus.leave_out(leaked)
    return leaked


class _TaskMetrics:
    """Calls the metric functions of tasks, in a process that is started when it is needed."""

    def __init__(
        self, context: Context, tasks: Sequence[TaskInfo], options: TaskOptions, workers: int
    ) -> None:
        self._workers = Workers(min(1, abs(workers)), context)
        nowhere = pathlib.Path()
        self._jobs = {
            task.name: PartJob(task.name, nowhere, 0, task.shards, "", 0, task, options)
            for task in tasks
        }

    def __call__(
        self, task: str, indices: Sequence[int], texts: Sequence[str]
    ) -> dict[str, tuple[float, float]]:
        answers = ModelAnswers(self._jobs[task], tuple(indices), tuple(texts))
        function = "marco_jax.data.registered_metrics:compute"
        ((_, values),) = self._workers.map(function, [answers])
        return values


def _record(
    workdir: pathlib.Path,
    corpus: Corpus,
    tasks: Sequence[TaskInfo],
    options: TaskOptions,
    leaked: Sequence[int],
) -> None:
    infos = {info.name: info for info in corpus.infos()}
    described = [
        {
            "task": task._asdict(),
            "kind": infos[task.name].kind,
            "language": infos[task.name].language,
            "examples": corpus.held_out_examples(task.name),
        }
        for task in tasks
    ]
    left_out = [f"{value:016x}" for value in leaked]
    record = {"left_out": left_out, "tasks": described, "options": options._asdict()}
    write_json(workdir / HELD_OUT_RECORD, record)
