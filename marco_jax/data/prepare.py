"""Tokenising sources once, into stores with random access: SeqIO's offline cache in our layout."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from marco_jax.data.conversations import kind_of, task_fingerprint
from marco_jax.data.corpus import CHAT, PREFERENCE, TRAIN, Corpus
from marco_jax.data.store import (
    CONVERSATIONS,
    MANIFEST,
    PREFERENCES,
    TEXTS,
    Record,
    TokenStore,
    write_store,
)
from marco_jax.tokenizer import Tokenizer

# Documents that cross between TensorFlow and Python in one step.
_BATCH = 256


def prepare_stores(
    corpus: Corpus,
    tokenizer: Tokenizer,
    names: Sequence[str],
    cache_dir: str | pathlib.Path,
    *,
    part: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, TokenStore]:
    """The stores of some sources; what has not been tokenised yet is, and kept in `cache_dir`.

    Args:
        corpus: has the sources.
        tokenizer: of the model.
        names: of sources.
        cache_dir: one that processes share lets them share the work.
        part: (number, of how many processes): every process begins with sources of its own, then
            makes what is still missing, so that it also works where nothing is shared.
        say: is told of long work.

    Raises:
        ValueError: a source that the corpus does not have, or a record that cannot be read.
    """
    known = corpus.sources()
    for name in names:
        if name not in known:
            raise ValueError(f"the mixture has a source {name!r} and the data has none: {known}")
    cache = pathlib.Path(cache_dir) / tokenizer.fingerprint[:12]
    places = {
        name: cache / f"{name}-{task_fingerprint(corpus, tokenizer, name)[:12]}" for name in names
    }
    number, count = part
    own = [name for index, name in enumerate(names) if index % count == number]
    for name in [*own, *(name for name in names if name not in own)]:
        if not (places[name] / MANIFEST).exists():
            say(f"tokenising {name}")
            _tokenise(corpus, tokenizer, name, places[name])
    return {name: TokenStore(places[name]) for name in names}


def _tokenise(corpus: Corpus, tokenizer: Tokenizer, name: str, directory: pathlib.Path) -> None:
    # TensorFlow is loaded only where something has yet to be tokenised. Its start-up notes (no
    # GPU, oneDNN) are no news here: it reads text.
    with _quiet_stderr():
        from marco_jax.data.tasks import register_task

        task = register_task(corpus, tokenizer, name)
    dataset = task.get_dataset(sequence_length=None, split=TRAIN, shuffle=False)
    fingerprint = f"{task_fingerprint(corpus, tokenizer, name)}-{tokenizer.fingerprint}"
    kind = {CHAT: CONVERSATIONS, PREFERENCE: PREFERENCES}.get(kind_of(corpus, name), TEXTS)
    about = {"source": name, "fingerprint": fingerprint, "kind": kind}
    if kind != TEXTS:
        records = (
            Record(row["tokens"], row["weights"], row["language"].decode())
            for row in dataset.as_numpy_iterator()
        )
        write_store(directory, records, about)
        return
    # Many documents cross from TensorFlow at once: the way takes longer than tokenising one.
    rows = dataset.map(lambda example: example["tokens"]).ragged_batch(_BATCH)
    documents = (
        ids[start:stop]
        for ids, splits in ((batch.flat_values.numpy(), batch.row_splits.numpy()) for batch in rows)
        for start, stop in itertools.pairwise(splits.tolist())
    )
    write_store(directory, documents, about)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what native libraries write to stderr, unless the block fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
