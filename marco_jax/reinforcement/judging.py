"""Rewarding answers on the host while the devices sample others."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from marco_jax.decoding.requests import Generation
from marco_jax.reinforcement.rewards import Rewards

# Answers that the scorers are given at once.
_CHUNK = 64
# Bytes of an error that the first process tells the others.
_MESSAGE_BYTES = 1024


class Judging:
    """The scores of the answers of a round.

    Scorers, which may be random or remote, are asked in one thread of the first process, which
    sends their numbers to the other processes.
    """

    def __init__(self, rewards: Rewards, records: Sequence[Mapping[str, Any]]) -> None:
        """Takes the record of the prompt of each answer."""
        self._rewards, self._records = rewards, records
        self._waiting: list[tuple[int, str]] = []
        self._asked: list[tuple[list[int], concurrent.futures.Future]] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "rewards")

    def take(self, number: int, answer: Generation) -> None:
        """Takes the answer with a number; the scorers are asked once there are several."""
        if jax.process_index() > 0:
            return
        self._waiting.append((number, answer.text))
        if len(self._waiting) == _CHUNK:
            self._ask()

    def scores(self) -> np.ndarray:
        """What each scorer gives each answer, float64 [answers, scorers], once all were taken.

        It is the same in all processes, and all of them fail where the first one does.

        Raises:
            ValueError: a scorer fails.
        """
        self._ask()
        scores, problem = np.zeros((len(self._records), len(self._rewards.names))), ""
        try:
            with self._thread:
                for numbers, found in self._asked:
                    scores[numbers] = found.result()
        except ValueError as error:
            if jax.process_count() == 1:
                raise
            problem = str(error)
        if jax.process_count() == 1:
            return scores
        message = np.zeros(_MESSAGE_BYTES, np.uint8)
        text = problem.encode()[:_MESSAGE_BYTES]
        message[: len(text)] = np.frombuffer(text, np.uint8)
        # As bytes: JAX would round float64 to float32.
        sent = multihost_utils.broadcast_one_to_all((scores.view(np.uint8), message))
        received, message = (np.asarray(x).astype(np.uint8) for x in sent)
        if message.any():
            raise ValueError(message[message > 0].tobytes().decode(errors="replace"))
        return np.ascontiguousarray(received).view(np.float64).reshape(scores.shape)

    def _ask(self) -> None:
        if not self._waiting:
            return
        numbers, texts = ([*column] for column in zip(*self._waiting, strict=True))
        self._waiting = []
        rows = [self._records[number] for number in numbers]
        self._asked.append((numbers, self._thread.submit(self._rewards.score, rows, texts)))
