"""Tokenising sources once, into stores with random access: SeqIO's offline cache in our layout."""

from __future__ import annotations

import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from marco_jax.data.conversations import (
    chat_template,
    kind_of,
    render_document,
    task_fingerprint,
    tokenize_conversation,
)
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
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

# Characters that go to the tokenizer in one call, which spreads them over all cores.
_BATCH_CHARACTERS = 1 << 20


def prepare_stores(
    corpus: Corpus,
    tokenizer: Tokenizer,
    names: Sequence[str],
    cache_dir: str | pathlib.Path,
    *,
    part: tuple[int, int] = (0, 1),
) -> dict[str, TokenStore]:
    """The token stores of some sources; those that `cache_dir` lacks are tokenised and kept there.

    Args:
        corpus: has the sources.
        tokenizer: of the model.
        names: of sources.
        cache_dir: processes that share it share the work.
        part: (number, of how many processes): every process begins with sources of its own, then
            makes what is still missing; without a shared folder each makes everything.

    Raises:
        ValueError: a source that the corpus does not have, or a record that cannot be read.
    """
    known = corpus.sources()
    for name in names:
        if name not in known:
            raise ValueError(f"the mixture has a source {name!r} and the data has none: {known}")
    cache = pathlib.Path(cache_dir) / tokenizer.fingerprint[:12]
    directories = {
        name: cache / f"{name}-{task_fingerprint(corpus, tokenizer, name)[:12]}" for name in names
    }
    number, count = part
    own = [name for index, name in enumerate(names) if index % count == number]
    for name in [*own, *(name for name in names if name not in own)]:
        if not (directories[name] / MANIFEST).exists():
            _log.info(f"tokenising {name}")
            with Progress(f"tokenising {name}", unit="tokens") as progress:
                _tokenise(corpus, tokenizer, name, directories[name], progress)
    return {name: TokenStore(directories[name]) for name in names}


def _tokenise(
    corpus: Corpus,
    tokenizer: Tokenizer,
    name: str,
    directory: pathlib.Path,
    progress: Callable[[int], None],
) -> None:
    """Writes the store of a source; its SeqIO task (seqio_tasks.py) gives the same tokens."""
    fingerprint = f"{task_fingerprint(corpus, tokenizer, name)}-{tokenizer.fingerprint}"
    kind = {CHAT: CONVERSATIONS, PREFERENCE: PREFERENCES}.get(kind_of(corpus, name), TEXTS)
    about = {"source": name, "fingerprint": fingerprint, "kind": kind}
    documents: Iterable[np.ndarray | Record]
    if kind == TEXTS:
        documents = _ids(corpus, tokenizer, name)
    else:
        documents = _conversations(corpus, tokenizer, name)
    write_store(directory, _counted(documents, progress), about)


def _counted(
    documents: Iterable[np.ndarray | Record], progress: Callable[[int], None]
) -> Iterator[np.ndarray | Record]:
    """The same documents, while `progress` counts their tokens."""
    for document in documents:
        progress(len(document.ids if isinstance(document, Record) else document))
        yield document


def _conversations(corpus: Corpus, tokenizer: Tokenizer, name: str) -> Iterator[Record]:
    template = chat_template(tokenizer)
    for document in corpus.documents(name, TRAIN):
        text, spans = render_document(document, template)
        ids, loss_mask = tokenize_conversation(tokenizer, text, spans)
        yield Record(ids, loss_mask, document.language)


def _ids(corpus: Corpus, tokenizer: Tokenizer, name: str) -> Iterator[np.ndarray]:
    """Ids of each document, int32 [length]; the next ones are tokenised while these are written."""
    texts = (document.text for document in corpus.documents(name, TRAIN))
    with ThreadPoolExecutor(1, "tokenise") as pool:
        waiting = None
        for batch in _batches(texts):
            coming = pool.submit(_encode, tokenizer, batch)
            if waiting:
                yield from waiting.result()
            waiting = coming
        if waiting:
            yield from waiting.result()


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    rows = tokenizer.encode_batch(texts)
    ends = np.cumsum([len(row) for row in rows])
    return np.split(np.fromiter(itertools.chain.from_iterable(rows), np.int32, ends[-1]), ends[:-1])


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists of about _BATCH_CHARACTERS."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
