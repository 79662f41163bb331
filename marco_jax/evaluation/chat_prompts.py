"""Prompts of rows: plain texts, or conversations as the model was taught to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.decoding.requests import GenerateRequest
from marco_jax.evaluation.chat_templates import render_chat
from marco_jax.evaluation.rows import check_field
from marco_jax.tokenizer import Tokenizer

ASSISTANT, USER, SYSTEM = "assistant", "user", "system"
Messages = list[dict[str, str]]


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
        said = "0 said 0"
        exchange = [{"role": USER, "content": "0"}, {"role": ASSISTANT, "content": said}]
        asked = render_chat(template, exchange[:1])
        whole = render_chat(template, [*exchange, exchange[0]], add_generation_prompt=True)
        end = whole.removeprefix(asked).partition(said)[2].split("\n")[0].strip()
        ids = tokenizer.encode(end) if end else []
        return cls(template, tuple(ids), ()) if len(ids) == 1 else cls(template, (), (end,))

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text up to where the assistant begins to answer.

        Raises:
            ValueError: the template refuses the conversation.
        """
        return render_chat(self.template, messages)


def conversation_of(row: Mapping[str, Any], place: str) -> tuple[Messages, str | None]:
    """The messages that a row asks with, and the answer that it brings, if any.

    A row has "messages", objects with a role and content, of which a last one of the assistant is
    the answer; or a "prompt", a text or such a list. A "system" text may stand beside either.

    Raises:
        ValueError: the row at `place` has neither, or it does not end with a user's message.
    """
    asked = row.get("messages", row.get("prompt"))
    if isinstance(asked, str):
        asked = [{"role": USER, "content": asked}]
    if not isinstance(asked, list) or not all(_is_message(message) for message in asked):
        raise ValueError(
            f'{place} has no "prompt" (a text or messages) and no "messages" (objects with role '
            "and content)"
        )
    messages = [{"role": m["role"], "content": m["content"]} for m in asked]
    answer = None
    if messages and messages[-1]["role"] == ASSISTANT:
        answer = messages.pop()["content"]
    if not messages or messages[-1]["role"] != USER:
        raise ValueError(f"{place}: no user's message stands before the answer")
    system = row.get(SYSTEM)
    if isinstance(system, str) and system and messages[0]["role"] != SYSTEM:
        messages.insert(0, {"role": SYSTEM, "content": system})
    return messages, answer


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
        if not chat and not any("messages" in row for row in rows):
            check_field(rows, "prompt", place)
            return cls([row["prompt"] for row in rows])
        talk = Chat.of(tokenizer)
        found = [conversation_of(row, f"{place}:{number}") for number, row in enumerate(rows, 1)]
        messages = [asked for asked, _ in found]
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


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(
        isinstance(message.get(name), str) for name in ("role", "content")
    )
