"""Sources of conversations: how their documents are rendered and tokenised."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from marco_jax.data.corpus import Corpus
from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.texts import CHAT, PREFERENCE, Document
from marco_jax.tokenizers.chat_templates import CHATML_END, QWEN2_CHAT, render_with_spans
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.tokenizers.tokenizer_files import Companions


def chat_template(tokenizer: Tokenizer) -> str:
    """The tokenizer's own template, or Qwen2's where it has none."""
    return tokenizer.companions.chat_template or QWEN2_CHAT


def kind_of(corpus: Corpus, source: str) -> str:
    """The kind of a source, of corpus.KINDS."""
    return next(info.kind for info in corpus.infos() if info.name == source)


def has_conversations(corpus: Corpus, source: str) -> bool:
    """Whether a source's documents are conversations, alone or in pairs."""
    return kind_of(corpus, source) in (CHAT, PREFERENCE)


def task_fingerprint(
    corpus: Corpus, tokenizer: Tokenizer, source: str, hashes: FileHashes | None = None
) -> str:
    """A hash of a source's records, and of the chat template that renders them."""
    fingerprint = corpus.source_fingerprint(source, hashes)
    if not has_conversations(corpus, source):
        return fingerprint
    text = fingerprint + chat_template(tokenizer)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def render_document(document: Document, template: str) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text, and [start, stop) in characters of the parts to train on."""
    messages = [{"role": turn.role, "content": turn.content} for turn in document.turns]
    return render_with_spans(template, messages, [turn.trained for turn in document.turns])


def tokenize_conversation(
    tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a rendered conversation and their loss mask, int32 each.

    A token is trained on if it begins inside a span. Tokens after the last span are left out: no
    target follows them.
    """
    ids, starts = tokenizer.encode_with_offsets(text)
    loss_mask = np.zeros(len(ids), np.int32)
    for start, stop in spans:
        loss_mask[np.searchsorted(starts, start) : np.searchsorted(starts, stop)] = 1
    size = int(np.flatnonzero(loss_mask)[-1]) + 1 if loss_mask.any() else len(ids)
    return np.array(ids[:size], np.int32), loss_mask[:size]


def as_chat(tokenizer: Tokenizer, end: str = CHATML_END) -> Companions:
    """The files beside the tokenizer of a model that is trained on conversations.

    They have the template that conversations were rendered with, and generation stops at the token
    `end`, where a message ends, as well as at EOS.
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
