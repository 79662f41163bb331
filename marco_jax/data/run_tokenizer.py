"""The tokenizer of a run: that of its workdir, of the model it starts from, or a new one."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from marco_jax.data.conversations import as_chat
from marco_jax.data.corpus import Corpus
from marco_jax.data.texts import TEXT
from marco_jax.languages import LANGUAGES
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.tokenizers.tokenizer import TOKENIZER, Tokenizer, load_tokenizer, train_sentencepiece

_log = logging.getLogger(__name__)

# Objectives that train on conversations.
_CHAT_OBJECTIVES = ("sft", "dpo", "grpo")
# Text of a language that a new tokenizer is trained on: enough for its pieces, and minutes for all.
TOKENIZER_CHARACTERS = 1_000_000


def find_tokenizer(
    config: ConfigDict, corpus: Corpus, workdir: pathlib.Path, base: Tokenizer | None
) -> Tokenizer:
    """The tokenizer in the workdir; a new run puts one there.

    It is the one of `config.tokenizer.path`, else `base`, else one that is trained on the corpus.

    Args:
        config: of the run; `tokenizer` and `objective` are read.
        corpus: of the run.
        workdir: of the run.
        base: the tokenizer of the model that the run starts from; None: random parameters.

    Raises:
        ValueError: one is to be trained, and the corpus has no monolingual text.
    """
    directory = workdir / TOKENIZER
    if directory.is_dir():
        return load_tokenizer(directory)
    if config.tokenizer.path:
        base = load_tokenizer(config.tokenizer.path)
    if base is None and not any(info.kind == TEXT for info in corpus.infos()):
        raise ValueError(
            "there is no text to train a tokenizer on in config.data, and no tokenizer: set "
            "tokenizer.path, or init_from"
        )
    if base is None:
        size = config.tokenizer.vocab_size
        _log.info(f"training a SentencePiece tokenizer of {size} pieces on the corpus")
        # Monolingual text alone: translations repeat it, and the wording of their templates.
        texts = (text for language in LANGUAGES for text in _sample(corpus, language))
        with Progress("training the tokenizer"):
            base = train_sentencepiece(texts, size, directory)
    if config.objective in _CHAT_OBJECTIVES:
        # The chat template goes with it, to exports too.
        given = parse_variables(config.chat.template_kwargs, "chat.template_kwargs")
        base.companions = as_chat(base, given)
    base.save(directory)
    return base


def _sample(corpus: Corpus, language: str) -> Iterator[str]:
    """Training texts of a language, as many as its tokenizer needs."""
    characters = 0
    for text in corpus.texts(language, "train"):
        if characters >= TOKENIZER_CHARACTERS:
            return
        yield text
        characters += len(text)
