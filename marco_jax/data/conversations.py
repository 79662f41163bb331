"""Sources of conversations: how their documents are rendered and tokenised."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.corpus import Corpus
from marco_jax.data.file_hashes import FileHashes
from marco_jax.data.texts import DIALOGUES, Document
from marco_jax.tokenizers.chat_templates import QWEN2_CHAT, TEMPLATE_VARIABLES, ChatTemplate
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.tokenizers.tokenizer_files import Companions

_log = logging.getLogger(__name__)


def chat_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The tokenizer's own template, or Qwen2's where it has none."""
    return ChatTemplate.of(tokenizer, default=QWEN2_CHAT)


def kind_of(corpus: Corpus, source: str) -> str:
    """The kind of a source, of corpus.KINDS."""
    return next(info.kind for info in corpus.infos() if info.name == source)


def has_conversations(corpus: Corpus, source: str) -> bool:
    """Whether a source's documents are conversations, alone or in pairs."""
    return kind_of(corpus, source) in DIALOGUES


def task_fingerprint(
    corpus: Corpus, tokenizer: Tokenizer, source: str, hashes: FileHashes | None = None
) -> str:
    """A hash of a source's records, and of the chat template that renders them."""
    fingerprint = corpus.source_fingerprint(source, hashes)
    if not has_conversations(corpus, source):
        return fingerprint
    text = fingerprint + chat_template(tokenizer).fingerprint
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def render_document(
    document: Document, template: ChatTemplate
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text, and [start, stop) in characters of the parts to train on."""
    messages = [turn.message() for turn in document.turns]
    selected = [turn.trained for turn in document.turns]
    return template.spans(messages, selected, document.variables)


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


def as_chat(tokenizer: Tokenizer, variables: Mapping[str, Any] | None = None) -> Companions:
    """The files beside the tokenizer of a model that is trained on conversations.

    They have the template that conversations are rendered with and its variables, and generation
    stops where the template ends a message, as well as at EOS. A warning is logged for a template
    that writes no end.
    """
    settings = dict(tokenizer.companions.settings)
    if variables:
        settings[TEMPLATE_VARIABLES] = {**(settings.get(TEMPLATE_VARIABLES) or {}), **variables}
    template = ChatTemplate.of(tokenizer, variables, QWEN2_CHAT)
    generation = dict(tokenizer.companions.generation or {})
    ids = tokenizer.encode(template.end) if template.end else []
    if len(ids) == 1:
        generation["eos_token_id"] = list(dict.fromkeys([*ids, tokenizer.eos_id]))
        generation.setdefault("pad_token_id", tokenizer.eos_id)
    elif not ids:
        _log.warning(
            "the chat template writes nothing after an assistant message: the model does not learn "
            "to stop; a template that ends a message with {{ eos_token }} teaches it"
        )
    return dataclasses.replace(
        tokenizer.companions,
        settings=settings,
        chat_template=template.source,
        generation=generation or None,
    )
