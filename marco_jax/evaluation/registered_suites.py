"""Tasks in SeqIO's registry: the model answers held-out prompts, their metric functions judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from marco_jax.data.corpus import Corpus, TaskMetrics
from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.evaluation.outcomes import GIVEN, Measured, Outcomes, item_key
from marco_jax.evaluation.suites import Suite
from marco_jax.tokenizers.tokenizer import Tokenizer

# Tokens of an answer, at most.
MAX_NEW_TOKENS = 96


@dataclasses.dataclass(frozen=True)
class RegisteredSuite(Suite):
    """Greedy answers to held-out prompts of a task, up to EOS.

    `indices` are those of the prompts among the task's held-out examples.
    """

    generates: ClassVar[bool] = True
    task: str
    requests: Sequence[GenerateRequest]
    indices: Sequence[int]
    compute: TaskMetrics

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        corpus: Corpus,
        task: str,
        limit: int | None,
        max_new_tokens: int | None,
    ) -> RegisteredSuite | None:
        """Encodes the prompts; None where the task holds out none.

        Raises:
            ValueError: a task that the run does not read.
        """
        rows = [row for row in corpus.held_out_examples(task) if "prompt" in row][:limit]
        if not rows or corpus.task_metrics is None:
            return None
        requests = [
            GenerateRequest(
                tokenizer.encode(row["prompt"]) or [tokenizer.eos_id],
                max_new_tokens or MAX_NEW_TOKENS,
            )
            for row in rows
        ]
        return cls(task, requests, [row["index"] for row in rows], corpus.task_metrics)

    @property
    def examples(self) -> int:
        """Number of prompts."""
        return len(self.requests)

    def take(self, rows: Sequence[int]) -> RegisteredSuite:
        """See Suite."""
        requests, indices = ([own[row] for row in rows] for own in (self.requests, self.indices))
        return dataclasses.replace(self, requests=requests, indices=indices)

    def units(self) -> list[list[int]]:
        """All items belong together: the functions judge them together."""
        return [list(range(self.examples))]

    def outcomes(self, answers: Sequence[Generation]) -> Outcomes:
        """What the task's metric functions return for all answers together.

        Raises:
            ValueError: one of them fails.
        """
        values = self.compute(self.task, self.indices, [answer.text for answer in answers])
        given = {n: Measured(GIVEN, np.array([v], np.float64)) for n, v in values.items()}
        return Outcomes([item_key(self.task, index) for index in self.indices], given)
