"""Rounds of sampled answers: sampling, rewarding, keeping, and packing into batches."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, Generation, Sampling
from marco_jax.files import read_json_lines, write_json_lines
from marco_jax.model.parameters import Params
from marco_jax.reinforcement.prompt_data import RolloutPrompt


@dataclasses.dataclass(frozen=True)
class Answer:
    """A sampled answer.

    Attributes:
        prompt: what it answers.
        ids: its tokens, with the one that ends it.
        text: its text.
        ended: False if it was cut at the most tokens.
        scores: what each scorer gives it, by name.
        reward: their weighted sum; nan for an answer that must not be used.
        advantage: over the other answers to the prompt (rewards.advantages).
        logps: log-probabilities of `ids` under the policy that sampled them; empty where the loss
            does not need them.
    """

    prompt: RolloutPrompt
    ids: tuple[int, ...]
    text: str
    ended: bool
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    reward: float = float("nan")
    advantage: float = float("nan")
    logps: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Positions that it takes in a batch: each predicts the next token."""
        return len(self.prompt.ids) + len(self.ids) - 1

    def to_json(self, labels: Sequence[str]) -> dict[str, Any]:
        """A line of a file of answers; numbers that are not finite become None."""
        return {
            "prompt": self.prompt.key,
            "label": labels[self.prompt.label],
            "text": self.text,
            "ended": self.ended,
            "reward": _plain(self.reward),
            "scores": {name: _plain(score) for name, score in self.scores.items()},
            "advantage": _plain(self.advantage),
            "ids": list(self.ids),
            "logps": list(self.logps),
        }

    @classmethod
    def from_json(cls, line: dict[str, Any], prompt: RolloutPrompt) -> Answer:
        """The answer to a prompt that `to_json` wrote."""
        return cls(
            prompt,
            tuple(line["ids"]),
            line["text"],
            line["ended"],
            {name: _number(score) for name, score in line["scores"].items()},
            _number(line["reward"]),
            _number(line["advantage"]),
            tuple(line["logps"]),
        )


def sample(
    engine: Engine,
    params: Params,
    prompts: Sequence[RolloutPrompt],
    *,
    group: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    ended: Callable[[int, Generation], None],
) -> list[Answer]:
    """Samples `group` answers to each prompt, neighbours in the result.

    An answer depends on the parameters, its prompt, its place in the round and the seed, and not on
    which others share a batch with it. `ended` is called with each answer's number and its text
    while others are still sampled.
    """
    requests = [
        GenerateRequest(prompt.ids, max_new_tokens) for prompt in prompts for _ in range(group)
    ]
    how = {"sampling": Sampling(temperature), "seed": seed}
    found = engine.generate(params, requests, ended=ended, **how)
    return [
        Answer(
            prompts[number // group],
            (*one.ids, one.end) if one.ended else one.ids,
            one.text,
            one.ended,
        )
        for number, one in enumerate(found)
    ]


def pack_answers(sizes: Sequence[int], length: int, most: int) -> list[list[int]]:
    """Puts answers of these sizes into rows of `length` positions, at most `most` in a row.

    The largest come first, each into the first row that has room for it.

    Returns:
        The numbers of the answers of each row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        size = sizes[number]
        row = next(
            (r for r, left in enumerate(room) if left >= size and len(rows[r]) < most), len(rows)
        )
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(number)
        room[row] -= size
    return rows


@dataclasses.dataclass(frozen=True)
class AnswerPosition:
    """Where an answer is in a batch: its row, and the position that predicts its first token."""

    row: int
    start: int


def batch_arrays(
    answers: Sequence[Answer],
    shape: tuple[int, int],
    ways: int,
    answers_per_row: int,
    *,
    off_policy: bool,
) -> tuple[dict[str, np.ndarray], list[AnswerPosition]]:
    """A global batch of answers behind their prompts, as the fields of training.state.Batch.

    Answers without an advantage are in no loss. Rows are filled on all devices alike, the first
    ones of each first, so that the parts of a batch that nothing is left for come last.

    Args:
        answers: that fit, as `check_run` of training has made sure.
        shape: rows and positions of the batch.
        ways: how many groups of devices share the rows out among them.
        answers_per_row: most answers in a row.
        off_policy: whether the batch has the log-probabilities of sampling.

    Returns:
        the arrays [rows, length], and the position of each answer.

    Raises:
        ValueError: the answers do not fit.
    """
    rows = pack_answers([answer.size for answer in answers], shape[1], answers_per_row)
    if len(rows) > shape[0]:
        raise ValueError(
            f"{len(answers)} answers take {len(rows)} rows, and a batch has {shape[0]}"
        )
    names = ("tokens", "targets", "positions", "segment_ids", "source_ids")
    arrays = {name: np.zeros(shape, np.int32) for name in names}
    floats = ("loss_weights", "advantages", *(("behaviour",) if off_policy else ()))
    arrays |= {name: np.zeros(shape, np.float32) for name in floats}
    positions: list[AnswerPosition | None] = [None] * len(answers)
    for number, members in enumerate(rows):
        row = number % ways * (shape[0] // ways) + number // ways
        start = 0
        for segment, member in enumerate(members, 1):
            answer = answers[member]
            ids, size = np.array([*answer.prompt.ids, *answer.ids], np.int32), answer.size
            span, first = slice(start, start + size), start + len(answer.prompt.ids) - 1
            arrays["tokens"][row, span], arrays["targets"][row, span] = ids[:-1], ids[1:]
            arrays["positions"][row, span] = np.arange(size)
            arrays["segment_ids"][row, span] = segment
            arrays["source_ids"][row, span] = answer.prompt.label
            if np.isfinite(answer.advantage):
                arrays["loss_weights"][row, first : start + size] = 1.0
                arrays["advantages"][row, first : start + size] = answer.advantage
            if off_policy and answer.logps:
                arrays["behaviour"][row, first : start + size] = answer.logps
            positions[member] = AnswerPosition(row, first)
            start += size
    return arrays, positions


def logps_of(
    answers: Sequence[Answer], positions: Sequence[AnswerPosition], logps: np.ndarray
) -> list[tuple[float, ...]]:
    """The log-probabilities of each answer's tokens, from those of a batch [rows, length]."""
    return [
        tuple(logps[at.row, at.start : at.start + len(answer.ids)].tolist())
        for answer, at in zip(answers, positions, strict=True)
    ]


def write_answers(path: pathlib.Path, answers: Sequence[Answer], labels: Sequence[str]) -> None:
    """Writes the answers of a round, a JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(path, [answer.to_json(labels) for answer in answers])


def read_answers(path: pathlib.Path, prompts: Sequence[RolloutPrompt], group: int) -> list[Answer]:
    """The answers to the prompts of a round that `write_answers` wrote; none if there is no file.

    Raises:
        ValueError: the file is damaged, or of other prompts.
    """
    if not path.exists():
        return []
    lines = read_json_lines(path)
    asked = [prompt for prompt in prompts for _ in range(group)]
    if [line.get("prompt") for line in lines] != [prompt.key for prompt in asked]:
        raise ValueError(f"{path} does not have the answers to this round's prompts")
    pairs = zip(lines, asked, strict=True)
    return [Answer.from_json(line, prompt) for line, prompt in pairs]


def answer_metrics(
    answers: Sequence[Answer], group: int, labels: Sequence[str]
) -> dict[str, float]:
    """Means over a round, of all answers and by label.

    reward, and reward_NAME of each scorer; answer_tokens; cut_share: answers that were cut at the
    most tokens; alike_share: prompts whose answers all have one reward, which change nothing;
    unused_share: answers without a reward.
    """
    found = _means(answers)
    by_prompt = np.array([answer.reward for answer in answers]).reshape(-1, group)
    found["alike_share"] = float(np.mean([len({*row[row == row]}) < 2 for row in by_prompt]))
    present = sorted({answer.prompt.label for answer in answers})
    for label in present if len(labels) > 1 else ():
        mine = [answer for answer in answers if answer.prompt.label == label]
        found |= {f"{name}/{labels[label]}": value for name, value in _means(mine).items()}
    return found


def _means(answers: Sequence[Answer]) -> dict[str, float]:
    used = [answer for answer in answers if np.isfinite(answer.reward)]
    found = {
        "answer_tokens": float(np.mean([len(answer.ids) for answer in answers])),
        "cut_share": float(np.mean([not answer.ended for answer in answers])),
        "unused_share": 1 - len(used) / len(answers),
    }
    if used:
        found["reward"] = float(np.mean([answer.reward for answer in used]))
        for name in used[0].scores:
            found[f"reward_{name}"] = float(np.mean([answer.scores[name] for answer in used]))
    return found


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
