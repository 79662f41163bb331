"""Processes that prepare data: they import TensorFlow and SeqIO, so that training need not."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

from marco_jax.data.corpus import Corpus
from marco_jax.data.input_parts import import_module
from marco_jax.languages import add_languages, names_in
from marco_jax.runtime.errors import RunFailed
from marco_jax.tokenizers.tokenizer import Tokenizer

# Between two looks at whether the parent is alive, in seconds.
_PAUSE = 0.5

T = TypeVar("T")


class Context(NamedTuple):
    """What a process prepares data from.

    corpus, tokenizer: of the run. modules: of the user, which register tasks and mixtures. caches:
    directories of SeqIO's offline caches. languages: `config.languages.extra`.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    modules: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    languages: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], corpus: Corpus, tokenizer: Tokenizer) -> Context:
        """The context of a run with a resolved config."""
        fields = config["mixture"]
        modules, caches = names_in(fields["modules"]), names_in(fields["tasks"]["caches"])
        return cls(corpus, tokenizer, modules, caches, config["languages"]["extra"])


class Workers:
    """A pool of processes with a context; started when it is first used."""

    def __init__(self, count: int, context: Context) -> None:
        """`count` processes; 0: this one, -1: one for each core."""
        self._count = count if count >= 0 else os.cpu_count() or 1
        self._context = context
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def map(
        self, function: str, items: Sequence[T], most: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Calls a function with the context and each item, and yields items with results.

        Args:
            function: "module:name" within this package: a process that calls it imports it, and
                this one need not.
            items: plain data. With several processes they are finished in any order.
            most: at most so many processes, where the work is little: each takes seconds to start.

        Raises:
            RunFailed: a process was killed.
        """
        if self._count == 0:
            for item in items:
                yield item, _call(self._context, function, item)
            return
        if self._pool is None:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._count,
                # A fork of a process with threads of JAX may hang.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(self._context, os.getpid()),
            )
        most = min(most or self._count, self._count)
        left, running = list(reversed(items)), {}
        try:
            while left or running:
                # The pool starts a process when none is free.
                while left and len(running) < most:
                    item = left.pop()
                    running[self._pool.submit(_call, None, function, item)] = item
                done, _ = concurrent.futures.wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise RunFailed(
                "a process that prepares data was killed, probably for want of memory: set "
                "feed.workers to fewer; the same command goes on with the parts that are missing"
            ) from None

    def close(self) -> None:
        """Ends the processes, in the middle of a call too; other calls are dropped."""
        if self._pool:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            self._pool = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_context: list[Context] = []


def enter(context: Context) -> None:
    """Registers the tasks of a context in this process, then those of the user's modules."""
    if _context and _context[0] is context:
        return
    add_languages(context.languages)
    with _quiet():
        import seqio
        import tensorflow as tf

        from marco_jax.data.seqio_tasks import register_corpus
        from marco_jax.data.seqio_vocabulary import set_run_tokenizer

        # It looks for accelerators now: they are JAX's.
        tf.config.set_visible_devices([], "GPU")
    # SeqIO logs every dataset that it opens.
    logging.getLogger("absl").setLevel(logging.WARNING)
    set_run_tokenizer(context.tokenizer)
    register_corpus(context.corpus, context.tokenizer)
    seqio.add_global_cache_dirs(list(context.caches))
    for module in context.modules:
        import_module(module)
    _context[:] = [context]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off standard error what TensorFlow's libraries write there while they are loaded."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _start(context: Context, parent: int) -> None:
    # A terminal sends Ctrl-C to all processes: this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # SeqIO imports JAX, which must not take the accelerators of the parent.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # One process a core: more threads would only wait for each other.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _given.append(context)


# The context that this process was started with.
_given: list[Context] = []


def _end_with(parent: int) -> None:
    """Ends this process when its parent was killed."""
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    os._exit(1)


def _call(context: Context | None, function: str, item: Any) -> Any:
    # Entered here and not at the start, so that errors of the user's modules reach the parent.
    context = context or _given[0]
    enter(context)
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(context, item)
