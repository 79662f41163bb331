"""The tokenizer of a run: that of its workdir, of the model it starts from, or a new one."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from marco_jax.data.conversations import as_chat
from marco_jax.data.corpus import Corpus
from marco_jax.languages import LANGUAGES
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from marco_jax.training.config import DPO, SFT
from marco_jax.weights.checkpoints import TOKENIZER

_log = logging.getLogger(__name__)

# A language shows a new tokenizer this much text: enough for its pieces, and minutes for all.
TOKENIZER_CHARACTERS = 1_000_000


def find_tokenizer(
    config: ConfigDict, corpus: Corpus, workdir: pathlib.Path, given: Tokenizer | None
) -> Tokenizer:
    """The workdir's own tokenizer; else a given one, or one trained on the corpus, saved there.

    `given` is that of the model that the run starts from; `config.tokenizer.path` goes before it.
    """
    directory = workdir / TOKENIZER
    if directory.is_dir():
        return load_tokenizer(directory)
    if config.tokenizer.path:
        given = load_tokenizer(config.tokenizer.path)
    if given is None:
        size = config.tokenizer.vocab_size
        _log.info(f"training a SentencePiece tokenizer of {size} pieces on the corpus")
        # Monolingual text alone: translations repeat it, and the words of their templates.
        texts = (text for language in LANGUAGES for text in _sample(corpus, language))
        with Progress("training the tokenizer"):
            given = train_sentencepiece(texts, size, directory)
    if config.objective in (SFT, DPO):
        # What the model learns to read and write goes with it, to exports too.
        given.companions = as_chat(given)
    given.save(directory)
    return given


def _sample(corpus: Corpus, language: str) -> Iterator[str]:
    """Training texts of a language, as many as its tokenizer needs."""
    characters = 0
    for text in corpus.texts(language, "train"):
        if characters >= TOKENIZER_CHARACTERS:
            return
        yield text
        characters += len(text)
