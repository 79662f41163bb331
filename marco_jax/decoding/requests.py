"""Requests to the engine, how tokens are drawn, and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """A request for the log-probability of `continuation` after `context`, both token ids.

    For an empty context pass the EOS token, [tokenizer.eos_id].
    """

    context: Sequence[int]
    continuation: Sequence[int]

    def __post_init__(self) -> None:
        if not self.context or not self.continuation:
            empty = "continuation" if self.context else "context"
            raise ValueError(f"{empty} is empty: a score needs at least one token of each")


@dataclasses.dataclass(frozen=True)
class Score:
    """Log-probability of a continuation (nats), and whether greedy decoding generates it."""

    logprob: float
    is_greedy: bool


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """A request for up to `max_new_tokens` tokens after `prompt`.

    Generation ends at EOS (or another of the engine's `end_ids`), or where one of the strings
    `stop` appears in the text; the text is cut before it.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt is empty: give at least the EOS token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: ask for at least 1")


@dataclasses.dataclass(frozen=True)
class Generation:
    """Generated tokens (without EOS) and their text, cut at the first stop string.

    Tokens after the cut are dropped; the last one kept may contain the start of the stop string.
    `ended` is False if generation was cut at max_new_tokens. `end` is the token that ended it; None
    where a stop string did, or nothing.
    """

    ids: tuple[int, ...]
    text: str
    ended: bool = True
    end: int | None = None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Temperature, top-k and top-p, applied in that order; temperature 0 is greedy.

    The default is greedy, without truncation. The generation config of Qwen2-Instruct has
    temperature 0.7, top_p 0.8 and top_k 20.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: use 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: use 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: use a share above 0 and at most 1")
