"""Prompts of input rows: plain texts, or conversations in the model's chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.data.chat import question, template_variables
from marco_jax.decoding.requests import GenerateRequest
from marco_jax.evaluation.input_rows import check_field
from marco_jax.tokenizers.chat_templates import ChatTemplate
from marco_jax.tokenizers.tokenizer import Tokenizer

Messages = list[dict[str, Any]]
# Fields that hold a list of messages.
CONVERSATIONS = ("messages", "conversations")


@dataclasses.dataclass(frozen=True)
class Chat:
    """A model's chat template, and what ends an assistant message in it.

    Attributes:
        template: renders a conversation as text.
        end_ids: the token that ends an assistant message, if it is a single token.
        stop: the text that ends it, if it is several tokens.
    """

    template: ChatTemplate
    end_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer, variables: Mapping[str, Any] | None = None) -> Chat:
        """Reads the chat template that belongs to a tokenizer.

        The end of a message is whatever the template writes after an assistant message. The user's
        `variables` of the template come before those that are kept beside the tokenizer.

        Raises:
            ValueError: the tokenizer has no chat template, or it rejects a question and its answer.
        """
        template = ChatTemplate.of(tokenizer, variables)
        end = template.end
        ids = tokenizer.encode(end) if end else []
        if len(ids) == 1:
            return cls(template, end_ids=tuple(ids))
        return cls(template, stop=(end,) if end else ())


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
        cls,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        location: str,
        *,
        chat: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompts:
        """The prompts of rows: conversations if `chat` is set or a row has messages.

        Chat templates see the user's `variables`, and a row's "tools" and "chat_template_kwargs".

        Raises:
            ValueError: a row at `location` has no prompt, or the model has no chat template.
        """
        if not chat and not any(name in row for row in rows for name in CONVERSATIONS):
            check_field(rows, "prompt", location)
            return cls([row["prompt"] for row in rows])
        form = Chat.of(tokenizer, variables)
        found = [question(row, f"{location}:{number}") for number, row in enumerate(rows, 1)]
        messages = [[turn.message() for turn in turns] for turns, _ in found]
        texts = []
        for number, (row, conversation) in enumerate(zip(rows, messages, strict=True), 1):
            place = f"{location}:{number}"
            try:
                own = template_variables(row, place)
                texts.append(form.template.prompt(conversation, own))
            except ValueError as error:
                raise ValueError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from None
        return cls(texts, messages, [answer for _, answer in found], form)

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
