"""The prompts of a run: which are answered in each round, in an order that depends on no state.

A round answers `config.grpo.prompts` prompts. The prompts of round n are a function of the sources,
the mixture, the seed and n, so that a restart replays nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.conversations import chat_template
from marco_jax.data.corpus import Corpus
from marco_jax.data.mixtures import Within, get_mixture
from marco_jax.data.order import Interleave, Permutation
from marco_jax.data.overrides import apply_override
from marco_jax.data.resume_order import refuse_change
from marco_jax.data.texts import TRAIN, Document
from marco_jax.data.training_data import Plan
from marco_jax.files import write_json
from marco_jax.tokenizers.chat_templates import ChatTemplate
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RolloutPrompt:
    """A prompt: its ids, all fields of its record, its name, and the label that metrics are by.

    label is a number: the index of a name in `PromptData.labels`.
    """

    ids: tuple[int, ...]
    record: Mapping[str, Any]
    key: str
    label: int


class PromptData:
    """Prompts by round.

    It has what the train loop asks of TrainingData, except for batches: these need the model.

    Attributes:
        labels: names behind the prompts' labels, a source or "source/language".
    """

    is_adaptive = False

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        corpus: Corpus,
        tokenizer: Tokenizer,
        plan: Plan,
    ) -> None:
        """Reads and tokenises the prompts; all are held in memory.

        Args:
            config: `seed`, `mixture`, `grpo` and `batch.length` are read.
            workdir: of the run.
            corpus: with sources of kind "prompt".
            tokenizer: of the model.
            plan: stages and batch size of the run.

        Raises:
            ValueError: a mixture that cannot be read, or a source without a prompt that is short
                enough.
        """
        self._config, self._workdir, self._stages = config, workdir, list(plan.stages)
        self.shape = (plan.batch_rows, config.batch.length)
        infos = corpus.infos()
        fields = config.mixture
        within = Within(fields.within, fields.temperature, fields.max_epochs)
        wanted = sorted({s for x in self._stages for s in get_mixture(x.mixture, infos).shares})
        template = chat_template(tokenizer)
        found = {name: self._read(corpus, name, template, tokenizer) for name in wanted}
        self.labels = tuple(label for name in wanted for label in _labels(name, found[name]))
        numbers = {label: number for number, label in enumerate(self.labels)}
        self._prompts = {
            name: [_prompt(document, ids, numbers) for document, ids in found[name]]
            for name in wanted
        }
        sizes = {name: len(prompts) for name, prompts in self._prompts.items()}
        self._shares = []
        for stage in self._stages:
            budget = float(self._rounds(stage.steps) * config.grpo.prompts)
            shares = get_mixture(stage.mixture, infos, within, sizes, budget).shares
            shares = apply_override(shares, fields.override, infos, stage.name, set(wanted))
            self._shares.append({name: shares.get(name, 0.0) for name in wanted})
        self._orders = [
            Interleave(list(shares.values()), (config.seed, number))
            for number, shares in enumerate(self._shares)
        ]

    def round(self, number: int) -> list[RolloutPrompt]:
        """The prompts of a round (counted from 0)."""
        count = self._config.grpo.prompts
        stage, first, used = self._stage_of(number)
        names, order = list(self._shares[stage]), self._orders[stage]
        found = []
        for position in range((number - first) * count, (number - first + 1) * count):
            source, rank = order.locate(position)
            prompts = self._prompts[names[source]]
            epoch, index = divmod(int(used[source]) + rank, len(prompts))
            shuffled = Permutation(len(prompts), (self._config.seed, source, epoch))
            found.append(prompts[int(shuffled(np.array(index)))])
        return found

    def _stage_of(self, number: int) -> tuple[int, int, np.ndarray]:
        """The stage of a round, its first round, and the prompts of each source used before it."""
        used, first = np.zeros(len(self._prompts), np.int64), 0
        ends = itertools.accumulate(stage.steps for stage in self._stages)
        for stage, end in enumerate(ends):
            after = self._rounds(end)
            if number < after or stage == len(self._stages) - 1:
                return stage, first, used
            used = used + self._orders[stage].counts((after - first) * self._config.grpo.prompts)
            first = after
        raise ValueError(f"round {number}: there are no stages")

    def _rounds(self, steps: int) -> int:
        """Rounds that begin within the first `steps` steps."""
        return -(-steps // (self._config.grpo.updates * self._config.grpo.epochs))

    def _read(
        self, corpus: Corpus, name: str, template: ChatTemplate, tokenizer: Tokenizer
    ) -> list[tuple[Document, tuple[int, ...]]]:
        """The prompts of a source with their ids, without those that are too long."""
        most, found, long = self._config.grpo.max_prompt_tokens, [], 0
        for document in corpus.documents(name, TRAIN):
            messages = [turn.message() for turn in document.turns]
            ids = tuple(tokenizer.encode(template.prompt(messages, document.variables)))
            long += len(ids) > most
            if len(ids) <= most:
                found.append((document, ids))
        if long:
            _log.warning(
                f"{name}: {long} of {long + len(found)} prompts have more than {most} tokens and "
                "are left out (grpo.max_prompt_tokens)"
            )
        if not found:
            raise ValueError(
                f"{name} has no prompt of up to {most} tokens (grpo.max_prompt_tokens)"
            )
        return found

    # What the train loop asks of its data besides.

    def describe_batch(self, step: int) -> list[str]:
        """The sources of the prompts that are answered for a step, with their names."""
        number = step // (self._config.grpo.updates * self._config.grpo.epochs)
        return [
            f"{self.labels[prompt.label]}: {prompt.key[:80]!r}" for prompt in self.round(number)
        ]

    def observe(self, row: Mapping[str, Any]) -> None:
        """Takes a line of metrics; the order of prompts does not depend on it."""

    def next_change(self, step: int) -> int:
        """The step at which shares change next: the last one."""
        return self._config.steps

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps of the order of prompts: plain data."""
        grpo = self._config.grpo
        return {
            "prompts": {
                "seed": self._config.seed,
                "round": [grpo.prompts, grpo.group, grpo.updates, grpo.epochs],
                "shares": self._shares,
                "sources": {name: _fingerprint(found) for name, found in self._prompts.items()},
            }
        }

    def resume(self, state: Mapping[str, Any], step: int) -> None:
        """Goes on after `step` steps of a checkpoint, given its `state`.

        Raises:
            OrderChanged: the order is another one now, and mixture.accept_change is not set.
        """
        before = json.loads(json.dumps(state.get("prompts", {})))
        now = json.loads(json.dumps(self.state(step)["prompts"]))
        changes = [name for name in now if before and before.get(name) != now[name]]
        lines = [f"{name} of prompts: {before.get(name)} -> {now[name]}" for name in changes]
        if lines and not self._config.mixture.accept_change:
            refuse_change(lines)
        for line in lines:
            _log.info(f"the order of prompts changes at step {step}: {line}")

    def record(self) -> None:
        """Writes mixture.json, and logs how many prompts each source has."""
        stages = [
            {"name": stage.name, "steps": stage.steps, "shares": shares}
            for stage, shares in zip(self._stages, self._shares, strict=True)
        ]
        sizes = {name: {"prompts": len(found)} for name, found in self._prompts.items()}
        if jax.process_index() == 0:
            write_json(self._workdir / "mixture.json", {"stages": stages, "sources": sizes})
        for name, found in self._prompts.items():
            _log.info(f"{name}: {len(found)} prompts")

    def close(self) -> None:
        """Nothing is open."""


def _labels(source: str, found: Sequence[tuple[Document, Any]]) -> list[str]:
    languages = sorted({document.language for document, _ in found})
    if len(languages) == 1:
        return [source]
    return [f"{source}/{language or 'unknown'}" for language in languages]


def _prompt(document: Document, ids: tuple[int, ...], numbers: Mapping[str, int]) -> RolloutPrompt:
    label = numbers.get(document.source)
    if label is None:
        label = numbers[f"{document.source}/{document.language or 'unknown'}"]
    return RolloutPrompt(ids, document.record, document.key, label)


def _fingerprint(prompts: Sequence[RolloutPrompt]) -> str:
    """A hash of all prompts of a source."""
    digest = hashlib.blake2b(digest_size=16)
    for prompt in prompts:
        digest.update(np.array([len(prompt.ids), *prompt.ids], np.int32).tobytes())
    return digest.hexdigest()
