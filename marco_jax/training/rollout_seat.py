"""Reinforcement learning in the train loop: rounds of answers, and the steps that learn from them.

A round samples answers to its prompts with the parameters in training, where they lie, rewards
them, and cuts them into the batches of its steps. The host rewards answers while others are still
sampled. If a round has more than one step, the answers' log-probabilities under the sampling policy
are computed at its start. The answers are kept in a file, from which a run that was stopped within
a round goes on.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Generator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.reinforcement import rollouts
from marco_jax.reinforcement.judging import Judging
from marco_jax.reinforcement.prompt_data import PromptData
from marco_jax.reinforcement.rewards import Rewards, advantages
from marco_jax.reinforcement.rollouts import Answer
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.training.clock import REWARDS, SAMPLING
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.seat import Seat
from marco_jax.training.state import Batch, StepMetrics, TrainState
from marco_jax.training.step import Trainer

_log = logging.getLogger(__name__)

ANSWERS = "answers"


class RolloutSeat(Seat):
    """The seat of a run with `config.objective` "grpo", which makes its own batches."""

    def __init__(self, config: ConfigDict, tokenizer: Tokenizer, workdir: pathlib.Path) -> None:
        """Reads the rewards; `tokenizer` is the model's, with its chat template.

        Raises:
            ValueError: rewards that do not exist, or a template whose messages no token ends.
        """
        self._config, self._fields, self._tokenizer = config, config.grpo, tokenizer
        self._rewards = Rewards.of(config.grpo.rewards)
        chat = Chat.of(tokenizer)
        if chat.stop:
            raise ValueError(
                f"the chat template ends an answer with {chat.stop[0]!r}, which is several tokens: "
                "objective 'grpo' needs a template that ends it with one"
            )
        self._end_ids = chat.end_ids
        self._directory = workdir / ANSWERS
        self._round, self._answers = -1, []

    def take(self, trainer: Trainer, data: PromptData, writer: MetricsWriter) -> None:
        """Seats a run before its first step."""
        super().take(trainer, data, writer)
        self._engine = Engine(
            trainer.config,
            self._tokenizer,
            sharding=trainer.sharding,
            dtype=trainer.options.dtype,
            max_length=self._fields.max_prompt_tokens + self._fields.max_new_tokens,
            tokens_per_batch=self._config.evaluation.tokens_per_batch,
            end_ids=self._end_ids,
        )

    def batches(self, first: int, stop: int) -> Generator[int, None, None]:
        """The numbers of the steps first..stop, counted from 0: a batch needs the parameters."""
        yield from range(first, stop)

    def step(self, state: TrainState, batch: int) -> tuple[TrainState, StepMetrics]:
        """The state after the step number `batch`; at the start of a round answers are sampled."""
        number, part = divmod(batch, self._fields.updates * self._fields.epochs)
        if number != self._round:
            self._answers = self._make_round(state, number, part)
            self._round = number
        if part == 0:
            group, labels = self._fields.group, self.data.labels
            self.writer.of_step[batch + 1] = rollouts.answer_metrics(self._answers, group, labels)
        epoch, update = divmod(part, self._fields.updates)
        chosen = np.arange(len(self._answers))
        if self._fields.updates > 1:
            seed = [self._config.seed, number, epoch]
            chosen = np.random.default_rng(seed).permutation(chosen)
        own = chosen.reshape(self._fields.updates, -1)[update]
        arrays, _ = self._arrays([self._answers[index] for index in own])
        return self.trainer.step(state, self._put(arrays))

    def _make_round(self, state: TrainState, number: int, part: int) -> list[Answer]:
        """The answers of a round: sampled, or those in its file where the round goes on."""
        prompts, path = self.data.round(number), self._directory / f"{number:06d}.jsonl"
        if part:
            answers = rollouts.read_answers(path, prompts, self._fields.group)
            if not answers:
                raise ValueError(
                    f"{path} is not there: step {part} of round {number} needs its answers; remove "
                    "the checkpoint within the round, or put the file back"
                )
            return answers
        group = self._fields.group
        judging = Judging(self._rewards, [p.record for p in prompts for _ in range(group)])
        with self.clock.part(SAMPLING):
            # The step before must not count as sampling.
            jax.block_until_ready(state.params)
            answers = rollouts.sample(
                self._engine,
                self.trainer.model_params(state),
                prompts,
                group=group,
                max_new_tokens=self._fields.max_new_tokens,
                temperature=self._fields.temperature,
                seed=int(np.random.SeedSequence([self._config.seed, number]).generate_state(1)[0]),
                ended=judging.take,
            )
        parts = self._dispatch_logps(state, answers)
        with self.clock.part(REWARDS):
            scores = judging.scores()
        answers = self._rewarded(answers, scores)
        if parts:
            found = [logps for part in parts for logps in self._fetch_logps(*part)]
            pairs = zip(answers, found, strict=True)
            answers = [dataclasses.replace(answer, logps=logps) for answer, logps in pairs]
        if jax.process_index() == 0:
            rollouts.write_answers(path, answers, self.data.labels)
            if old := self._fields.keep_rounds:
                (self._directory / f"{number - old:06d}.jsonl").unlink(missing_ok=True)
        return answers

    def _rewarded(self, answers: Sequence[Answer], scores: np.ndarray) -> list[Answer]:
        """The answers with their scores, rewards and advantages."""
        totals = self._rewards.total(scores)
        gains = advantages(totals, self._fields.group, self._fields.scale)
        if self._fields.mask_cut:
            gains = np.where([answer.ended for answer in answers], gains, np.nan)
        return [
            dataclasses.replace(
                answer,
                scores=dict(zip(self._rewards.names, given.tolist(), strict=True)),
                reward=float(total),
                # As the step reads it, and so that a file has it exactly.
                advantage=float(np.float32(gain)),
            )
            for answer, given, total, gain in zip(answers, scores, totals, gains, strict=True)
        ]

    def _dispatch_logps(
        self, state: TrainState, answers: Sequence[Answer]
    ) -> list[tuple[Sequence[Answer], list[rollouts.AnswerPosition], jax.Array]]:
        """Starts to compute the answers' log-probabilities, a batch after the other."""
        options, found = self.trainer.options.policy, []
        if not options.off_policy:
            return []
        size = len(answers) // self._fields.updates
        for start in range(0, len(answers), size):
            own = answers[start : start + size]
            arrays, positions = self._arrays(own)
            logps = self.trainer.target_logps(state.params, self._put(arrays), state.frozen)
            found.append((own, positions, logps))
        return found

    def _fetch_logps(
        self,
        answers: Sequence[Answer],
        positions: Sequence[rollouts.AnswerPosition],
        logps: jax.Array,
    ) -> list[tuple[float, ...]]:
        if jax.process_count() > 1:
            logps = multihost_utils.process_allgather(logps, tiled=True)
        return rollouts.logps_of(answers, positions, np.asarray(logps))

    def _arrays(
        self, answers: Sequence[Answer]
    ) -> tuple[dict[str, np.ndarray], list[rollouts.AnswerPosition]]:
        options = self.trainer.options.policy
        return rollouts.batch_arrays(
            answers,
            self.data.shape,
            self.trainer.sharding.ways("batch"),
            options.answers_per_row,
            off_policy=options.off_policy,
        )

    def _put(self, arrays: dict[str, np.ndarray]) -> Batch:
        """The global batch on the mesh; every process has all of it on its host."""
        layout = self.trainer.batch_sharding
        return Batch(
            **{
                name: jax.make_array_from_callback(x.shape, layout, lambda index, x=x: x[index])
                for name, x in arrays.items()
            }
        )
