"""Tokenising sources once, into stores with random access.

The parts of a source are written one by one, by several processes at once (workers.py); a run that
was killed goes on with the parts that are missing. A store is found again by what is declared and
by the content of its files, wherever they lie and whenever they were touched.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data.conversations import kind_of, task_fingerprint
from marco_jax.data.corpus import Corpus
from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.store import (
    CONVERSATIONS,
    MANIFEST,
    PREFERENCES,
    TEXTS,
    TokenStore,
    describe_parts,
    finish_store,
    part_directory,
)
from marco_jax.data.store_repair import remove_leftovers, repair_store
from marco_jax.data.task_info import HELD_OUT_FILE, PartJob, TaskInfo, TaskOptions
from marco_jax.data.texts import CHAT, PREFERENCE
from marco_jax.data.workers import Context, Workers
from marco_jax.files import as_path
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

# Changes when the same documents make other stores.
VERSION = 1
# Text that is worth a process: it takes seconds to import TensorFlow.
_WORKER_BYTES = 4 << 20
# How often parts that are missing are looked for; see _finish.
_PASSES = 3


def prepare_stores(
    corpus: Corpus,
    tokenizer: Tokenizer,
    names: Sequence[str],
    cache_dir: str | pathlib.Path,
    *,
    host: tuple[int, int] = (0, 1),
    workers: Workers | None = None,
    verify: bool = False,
    tasks: Sequence[TaskInfo] = (),
    options: TaskOptions | None = None,
) -> dict[str, TokenStore]:
    """The token stores of some sources; what `cache_dir` lacks is tokenised and kept there.

    Args:
        corpus: has the sources.
        tokenizer: of the model.
        names: of sources of the corpus.
        cache_dir: hosts that share it share the work.
        host: (number, of how many hosts): each begins with parts of its own, then writes what is
            still missing; without a shared folder each writes everything.
        workers: processes of this host; by default this process does it.
        verify: read every byte of stores that are there, instead of a sample.
        tasks: the user's, which are tokenised too.
        options: how those are read; None: the defaults.

    Raises:
        ValueError: a source that the corpus does not have, or a record that cannot be read.
        OSError: files cannot be read or written; what is finished is kept.
        RunFailed: a process was killed.
    """
    known = corpus.sources()
    for name in names:
        if name not in known:
            raise ValueError(f"the mixture has a source {name!r} and the data has none: {known}")
    workers = workers or Workers(0, Context(corpus, tokenizer))
    cache = as_path(cache_dir)
    home = cache / tokenizer.fingerprint[:12]
    for folder in (cache, home):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(
                f"{folder} is a file where prepared data goes: delete it, or set data_cache to a "
                "folder"
            )
    hashes = FileHashes(cache / "files.json")
    jobs = {name: _source_jobs(corpus, tokenizer, name, home, hashes) for name in names}
    jobs |= {task.name: _task_jobs(task, options or TaskOptions(), home, hashes) for task in tasks}
    with contextlib.suppress(OSError):  # a cache that cannot be written to is read all the same
        hashes.save()
    unfinished = []
    for name, own in jobs.items():
        store = own[0].store
        remove_leftovers(store)
        for line in repair_store(store, len(own), whole=verify):
            _log.warning(f"{line}: it is made again")
        if not (store / MANIFEST).exists():
            unfinished.append(name)
    try:
        with _disk_full(cache):
            _finish({name: jobs[name] for name in unfinished}, workers, *host)
    except BaseException:  # KeyboardInterrupt too
        workers.close()
        for name in unfinished:
            remove_leftovers(jobs[name][0].store)
        raise
    return {name: TokenStore(own[0].store) for name, own in jobs.items()}


def _finish(
    jobs: Mapping[str, Sequence[PartJob]], workers: Workers, number: int, hosts: int
) -> None:
    """Writes the parts of stores that are missing, and their manifests."""
    # A second pass is for parts that another host found damaged, and deleted, at the same time.
    for _ in range(_PASSES):
        found: dict[pathlib.Path, Any] = {}
        for own in jobs.values():
            found |= describe_parts(own[0].store, len(own))
        missing = [
            job
            for own in jobs.values()
            for job in own
            if found[part_directory(job.store, job.number)] is None
        ]
        if not missing:
            break
        missing.sort(key=lambda job: -job.size)
        others = [job for n, job in enumerate(missing) if n % hosts != number]
        _write_parts(workers, [*missing[number::hosts], *others])
    tasks = [own[0] for own in jobs.values() if own[0].task]
    if tasks:
        for _ in workers.map("marco_jax.data.tokenise:write_held_out", tasks):
            pass
    for name, own in jobs.items():
        beside = [HELD_OUT_FILE] if own[0].task else []
        finish_store(own[0].store, len(own), {"source": name}, beside)


@contextlib.contextmanager
def _disk_full(cache: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"{cache}: the disk is full; the parts that are finished are kept: make room, and run "
            "the same command again"
        ) from error


def _source_jobs(
    corpus: Corpus, tokenizer: Tokenizer, name: str, home: pathlib.Path, hashes: FileHashes
) -> list[PartJob]:
    key = task_fingerprint(corpus, tokenizer, name, hashes)
    store = home / f"{name}-{key[:12]}-{VERSION}"
    kind = {CHAT: CONVERSATIONS, PREFERENCE: PREFERENCES}.get(kind_of(corpus, name), TEXTS)
    sizes = corpus.shard_bytes(name)
    return [PartJob(name, store, n, len(sizes), kind, size) for n, size in enumerate(sizes)]


def _task_jobs(
    task: TaskInfo, options: TaskOptions, home: pathlib.Path, hashes: FileHashes
) -> list[PartJob]:
    values = [options, task._replace(files=()), [hashes.of(path) for path in task.files]]
    key = hashlib.blake2b(json.dumps(values).encode(), digest_size=6).hexdigest()
    store = home / f"{task.name.replace(':', '_')}-{key}-{VERSION}"
    kind = CONVERSATIONS if task.prompts else TEXTS
    size = sum(as_path(path).stat().st_size for path in task.files) // task.shards
    parts = range(task.shards)
    return [PartJob(task.name, store, n, task.shards, kind, size, task, options) for n in parts]


def _write_parts(workers: Workers, jobs: Sequence[PartJob]) -> None:
    names = list(dict.fromkeys(job.source for job in jobs))
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} others" if len(names) > 4 else "")
    _log.info(f"tokenising {listed}")
    sizes = sum(job.size for job in jobs)
    total: dict[str, Any] = {"total": sizes, "unit": "B"} if sizes else {}
    started, done = time.perf_counter(), 0
    with Progress(f"tokenising {listed}", **total) as progress:
        most = -(-sizes // _WORKER_BYTES) if all(job.size for job in jobs) else None
        for job, tokens in workers.map("marco_jax.data.tokenise:write_job", jobs, most):
            progress(job.size)
            done += tokens
            rate = done / (time.perf_counter() - started)
            progress.name = f"tokenising {listed}, {rate:,.0f} tokens/s"
    seconds = time.perf_counter() - started
    _log.info(f"{done:,} tokens in {seconds:,.0f} s, {done / seconds:,.0f} tokens/s")
