"""Sources of conversations: how a document of one is written, and what its tokens follow from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from marco_jax.data.corpus import CHAT, PREFERENCE, Corpus, Document
from marco_jax.tokenizers.chat_templates import CHATML_END, QWEN2_CHAT, render_with_spans
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.tokenizers.tokenizer_files import Companions


def chat_template(tokenizer: Tokenizer) -> str:
    """The tokenizer's own template, or Qwen2's for one that brings none."""
    return tokenizer.companions.chat_template or QWEN2_CHAT


def kind_of(corpus: Corpus, source: str) -> str:
    """The kind of a source, of corpus.KINDS."""
    return next(info.kind for info in corpus.infos() if info.name == source)


def has_conversations(corpus: Corpus, source: str) -> bool:
    """Whether a source's documents are conversations, alone or in pairs."""
    return kind_of(corpus, source) in (CHAT, PREFERENCE)


def task_fingerprint(corpus: Corpus, tokenizer: Tokenizer, source: str) -> str:
    """A hash of a source's documents, and of the chat template that they are written with."""
    fingerprint = corpus.source_fingerprint(source)
    if not has_conversations(corpus, source):
        return fingerprint
    text = fingerprint + chat_template(tokenizer)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def render_document(document: Document, template: str) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text, and [start, stop) in characters of what is learnt of it."""
    messages = [{"role": turn.role, "content": turn.content} for turn in document.turns]
    return render_with_spans(template, messages, [turn.learnt for turn in document.turns])


def tokenize_conversation(
    tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a rendered conversation, int32, and a weight for each, 1 where it is learnt, int32.

    A token is learnt where it begins inside a span. What follows the last span is left out: there
    is nothing to learn from it.
    """
    ids, places = tokenizer.encode_with_offsets(text)
    weights = np.zeros(len(ids), np.int32)
    for start, stop in spans:
        weights[np.searchsorted(places, start) : np.searchsorted(places, stop)] = 1
    size = int(np.flatnonzero(weights)[-1]) + 1 if weights.any() else len(ids)
    return np.array(ids[:size], np.int32), weights[:size]


def as_chat(tokenizer: Tokenizer, end: str = CHATML_END) -> Companions:
    """What lies beside the tokenizer of a model that has learnt to talk.

    It has the template that conversations were written with, and generation stops where a message
    does, at the token `end`, as well as at the end of a text.
    """
    generation = dict(tokenizer.companions.generation or {})
    (stop, *rest) = tokenizer.encode(end)
    if not rest:
        generation["eos_token_id"] = [stop, tokenizer.eos_id]
        generation.setdefault("pad_token_id", tokenizer.eos_id)
    template = chat_template(tokenizer)
    return dataclasses.replace(
        tokenizer.companions, chat_template=template, generation=generation or None
    )
