"""What the engine is asked and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """Asks for the log-probability of `continuation` after `context`, both token ids.

    Where there is no context the caller gives the document separator, [tokenizer.eos_id].
    """

    context: Sequence[int]
    continuation: Sequence[int]

    def __post_init__(self) -> None:
        if not self.context or not self.continuation:
            empty = "continuation" if self.context else "context"
            raise ValueError(f"{empty} is empty: a score needs at least one token of each")


@dataclasses.dataclass(frozen=True)
class Score:
    """Summed log-probability (nats) of a continuation, and whether greedy decoding gives it."""

    logprob: float
    is_greedy: bool


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """Asks for up to `max_new_tokens` tokens after `prompt`.

    Generation ends at the document separator (or another id that the engine was told of), or where
    one of `stop` appears in the text; the text is cut before it.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt is empty: give at least the document separator")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: ask for at least 1")


@dataclasses.dataclass(frozen=True)
class Generation:
    """New tokens (the separator not included) and their text, cut at the first stop string.

    Tokens behind the text are cut off, too; the last one may begin the stop string. `ended` tells
    an answer that came to an end from one that was cut at max_new_tokens.
    """

    ids: tuple[int, ...]
    text: str
    ended: bool = True
