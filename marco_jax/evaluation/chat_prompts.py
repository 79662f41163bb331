"""Prompts of input rows: plain texts, or conversations in the model's chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.data.chat import ASSISTANT, USER, question
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.evaluation.input_rows import check_field
from marco_jax.tokenizers.chat_templates import render_chat, render_with_spans
from marco_jax.tokenizers.tokenizer import Tokenizer

Messages = list[dict[str, str]]
# Fields that hold a list of messages.
CONVERSATIONS = ("messages", "conversations")


@dataclasses.dataclass(frozen=True)
class Chat:
    """A model's chat template, and what ends an assistant message in it.

    Attributes:
        template: Jinja template of a conversation.
        end_ids: the token that ends an assistant message, if it is a single token.
        stop: the text that ends it, if it is several tokens.
    """

    template: str
    end_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Chat:
        """Reads the chat template that belongs to a tokenizer.

        The end of a message is whatever the template writes after an assistant message.

        Raises:
            ValueError: the tokenizer has no chat template.
        """
        template = tokenizer.companions.chat_template
        if not template:
            raise ValueError(
                "the model has no chat template: use a model fine-tuned on conversations, or put a "
                "chat_template.jinja beside its tokenizer"
            )
        exchange = [{"role": USER, "content": "0"}, {"role": ASSISTANT, "content": "0 said 0"}]
        text, [(start, stop)] = render_with_spans(template, exchange, [False, True])
        end = text[start:stop].partition(exchange[1]["content"])[2].strip()
        ids = tokenizer.encode(end) if end else []
        if len(ids) == 1:
            return cls(template, end_ids=tuple(ids))
        return cls(template, stop=(end,) if end else ())

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a conversation up to the start of the assistant's answer.

        Raises:
            ValueError: the template rejects the conversation.
        """
        return render_chat(self.template, messages)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of several input rows.

    If they are plain texts, there are no `messages` (their conversations) and no `chat` template.
    `answers` holds the answer that each row has, or None.
    """

    texts: list[str]
    messages: list[Messages] = dataclasses.field(default_factory=list)
    answers: list[str | None] = dataclasses.field(default_factory=list)
    chat: Chat | None = None

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, location: str, *, chat: bool
    ) -> Prompts:
        """The prompts of rows: conversations if `chat` is set or a row has messages.

        Raises:
            ValueError: a row at `location` has no prompt, or the model has no chat template.
        """
        if not chat and not any(name in row for row in rows for name in CONVERSATIONS):
            check_field(rows, "prompt", location)
            return cls([row["prompt"] for row in rows])
        template = Chat.of(tokenizer)
        found = [question(row, f"{location}:{number}") for number, row in enumerate(rows, 1)]
        messages = [
            [{"role": turn.role, "content": turn.content} for turn in turns] for turns, _ in found
        ]
        texts = [template.prompt(conversation) for conversation in messages]
        return cls(texts, messages, [answer for _, answer in found], template)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens besides EOS that end an answer."""
        return self.chat.end_ids if self.chat else ()

    def requests(
        self, tokenizer: Tokenizer, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[GenerateRequest]:
        """Generation requests; `stop` strings are added to the text that ends a message."""
        return text_requests(
            tokenizer, self.texts, max_new_tokens, (*stop, *(self.chat.stop if self.chat else ()))
        )


def text_requests(
    tokenizer: Tokenizer, texts: Sequence[str], max_new_tokens: int, stop: tuple[str, ...]
) -> list[GenerateRequest]:
    """Requests to continue texts."""
    return [
        GenerateRequest(tokenizer.encode(text) or [tokenizer.eos_id], max_new_tokens, stop)
        for text in texts
    ]
