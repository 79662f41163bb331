"""New pieces for a vocabulary from a corpus, and what they save on held-out text."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from marco_jax.data.load import load_corpus
from marco_jax.data.texts import HELD_OUT, TRAIN
from marco_jax.languages import get_language
from marco_jax.tokenizers.extension import Extension, compare_fertility, extend_vocabulary
from marco_jax.tokenizers.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)

# Characters of each language to learn from: enough for thousands of pieces.
CHARACTERS = 5_000_000
# Held-out texts that fertility is measured on.
_TEXTS = 2000


def learn_extension(
    hf_dir: str | os.PathLike, pieces: int, languages: Sequence[str], data: str
) -> tuple[Extension, dict[str, Any]]:
    """New pieces for a directory's tokenizer.

    Args:
        hf_dir: a directory with a byte-level BPE tokenizer.
        pieces: how many.
        languages: whose text they are learned from, as much of each.
        data: the corpus, as config.data.

    Returns:
        the extension, and a report: "pieces", "first_id", "tokens" (of the larger tokenizer), and
        "fertility" of each language before and after, on held-out text.

    Raises:
        ValueError: a tokenizer that is not extended, an unknown language, or one without text.
    """
    for language in languages:
        get_language(language)
    tokenizer, corpus = load_tokenizer(hf_dir), load_corpus(data)
    texts = {language: corpus.texts(language, TRAIN) for language in languages}
    extension = extend_vocabulary(tokenizer, texts, pieces, CHARACTERS)
    learned = len(extension.old_ids)
    if learned < pieces:
        _log.info(f"the text holds {learned:,} new pieces that occur twice, not {pieces:,}")
    held_out = {name: list(corpus.texts(name, HELD_OUT))[:_TEXTS] for name in languages}
    return extension, {
        "pieces": learned,
        "first_id": extension.first,
        "tokens": extension.tokenizer.vocab_size,
        "languages": list(languages),
        "fertility": compare_fertility(tokenizer, extension.tokenizer, held_out),
    }
