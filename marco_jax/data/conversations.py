"""Sources of conversations: how a document of one is written, and what its tokens follow from."""

from __future__ import annotations

import hashlib

from marco_jax.chat_templates import QWEN2_CHAT, render_learnt
from marco_jax.data.corpus import CHAT, PREFERENCE, Corpus, Document
from marco_jax.tokenizer import Tokenizer


def chat_template(tokenizer: Tokenizer) -> str:
    """The tokenizer's own template, or Qwen2's for one that brings none."""
    return getattr(tokenizer, "chat_template", None) or QWEN2_CHAT


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
    return render_learnt(template, messages, [turn.learnt for turn in document.turns])
