"""Prompts of rows: plain texts, or conversations as the model was taught to read them."""

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
    """How a model talks.

    Attributes:
        template: Jinja, of a conversation.
        end_ids: the token that ends the assistant's message, where it is one.
        stop: the text that does, where it is not.
    """

    template: str
    end_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Chat:
        """The chat of the model that a tokenizer belongs to.

        What ends a message is what the template writes behind the assistant's.

        Raises:
            ValueError: the tokenizer has no chat template.
        """
        template = tokenizer.companions.chat_template
        if not template:
            raise ValueError(
                "the model has no chat template: give one that was fine-tuned on conversations, or "
                "put a chat_template.jinja beside its tokenizer"
            )
        exchange = [{"role": USER, "content": "0"}, {"role": ASSISTANT, "content": "0 said 0"}]
        text, [(start, stop)] = render_with_spans(template, exchange, [False, True])
        end = text[start:stop].partition(exchange[1]["content"])[2].strip()
        ids = tokenizer.encode(end) if end else []
        if len(ids) == 1:
            return cls(template, end_ids=tuple(ids))
        return cls(template, stop=(end,) if end else ())

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text up to where the assistant begins to answer.

        Raises:
            ValueError: the template rejects the conversation.
        """
        return render_chat(self.template, messages)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What a model reads for each of several rows.

    Attributes:
        texts: the prompts.
        messages: the conversations behind them; none where the prompts are plain.
        answers: the answers that rows bring, None where one brings none.
        chat: how the model talks; None where the prompts are plain.
    """

    texts: list[str]
    messages: list[Messages] = dataclasses.field(default_factory=list)
    answers: list[str | None] = dataclasses.field(default_factory=list)
    chat: Chat | None = None

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, place: str, *, chat: bool
    ) -> Prompts:
        """The prompts of rows; they are conversations where `chat` is set, or a row has messages.

        Raises:
            ValueError: a row at `place` has no prompt, or the model has no chat template.
        """
        if not chat and not any(name in row for row in rows for name in CONVERSATIONS):
            check_field(rows, "prompt", place)
            return cls([row["prompt"] for row in rows])
        talk = Chat.of(tokenizer)
        found = [question(row, f"{place}:{number}") for number, row in enumerate(rows, 1)]
        messages = [
            [{"role": turn.role, "content": turn.content} for turn in turns] for turns, _ in found
        ]
        texts = [talk.prompt(asked) for asked in messages]
        return cls(texts, messages, [answer for _, answer in found], talk)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer besides the separator."""
        return self.chat.end_ids if self.chat else ()

    def requests(
        self, tokenizer: Tokenizer, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[GenerateRequest]:
        """What the engine is asked; `stop` is told from the text that ends a message."""
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
