"""What the scripts share: sides that take turns, random batches and models, a tokenizer of ids."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

OURS = "marco_jax"
VOCABULARY = 151_936  # of Qwen2


@dataclasses.dataclass
class Times:
    """What the calls of one side took, and what the last of them returned."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    answer: Any = None

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls and times a function."""
        begin, used = time.perf_counter(), time.process_time()
        self.answer = function()
        self.seconds.append(time.perf_counter() - begin)
        self.cpu_seconds.append(time.process_time() - used)
        return self.answer

    @property
    def median(self) -> float:
        """Median of the wall-clock seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        """Median of the CPU seconds, which other work on the machine disturbs less."""
        return statistics.median(self.cpu_seconds)


def take_turns(
    sides: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 0
) -> dict[str, Times]:
    """Calls every side once a round, so that other work on the machine falls on all of them alike.

    The rounds of `warm_up` come first and are not timed.
    """
    for _ in range(warm_up):
        for side in sides.values():
            side()
    times = {name: Times() for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].call(side)
    return times


def ratios(times: Mapping[str, Times], ours: str, theirs: str) -> dict[str, float]:
    """How many times as long the other side takes, by medians."""
    return {
        "ratio": round(times[theirs].median / times[ours].median, 3),
        "ratio_of_cpu_seconds": round(times[theirs].cpu_median / times[ours].cpu_median, 3),
    }


class Peer:
    """Another Python process that answers each line of its input with a line of JSON."""

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts it; its errors go to ours."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment or {}),
        )

    def ask(self, line: str) -> Any:
        """Its answer to a line.

        Raises:
            SystemExit: it has ended.
        """
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(self._process.args)} ended: its error is above")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


class Ids:
    """Enough of a tokenizer for an engine that reads and writes ids: no id ends a text."""

    eos_id = -2

    def __init__(self, vocab_size: int) -> None:
        """Of a model with so many ids."""
        self.vocab_size = vocab_size

    def decode(self, ids: list[int]) -> str:
        """Nothing: texts are not compared."""
        return ""


def save_small_model(directory: str, vocabulary: int = VOCABULARY) -> None:
    """Writes the small model with random weights as a Hugging Face directory."""
    from marco_jax.model.qwen2 import init_params
    from marco_jax.model.qwen2_config import PRESETS
    from marco_jax.weights.huggingface import save_huggingface

    config = dataclasses.replace(PRESETS["small"], vocab_size=vocabulary)
    save_huggingface(directory, config, init_params(config, seed=0), overwrite=True)


def load_torch(directory: str) -> Any:
    """The same model as transformers' Qwen2ForCausalLM in float32, on all cores."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def packed_batch(rows: int, length: int, vocabulary: int, documents: int = 1, seed: int = 0) -> Any:
    """A training batch of random tokens; each sequence holds whole documents and no padding."""
    from marco_jax.training.state import Batch

    random = np.random.default_rng(seed)
    tokens = random.integers(0, vocabulary, (rows, length + 1), dtype=np.int32)
    segment_ids, positions = np.empty((2, rows, length), np.int32)
    for row in range(rows):
        cuts = np.sort(random.choice(np.arange(1, length), documents - 1, replace=False))
        sizes = np.diff([0, *cuts, length])
        segment_ids[row] = np.repeat(np.arange(1, documents + 1), sizes)
        positions[row] = np.concatenate([np.arange(size) for size in sizes])
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        positions=positions,
        segment_ids=segment_ids,
        loss_weights=np.ones((rows, length), np.float32),
        source_ids=np.zeros_like(segment_ids),
    )


def training_step(config: Any, model: Any, device: Any) -> Callable[[Any], Any]:
    """A function that trains one step on a batch, as `marco train` assembles it on one device.

    It returns the metrics, having waited for all of the step.
    """
    import jax

    from marco_jax.training.assemble import create_sharding, create_trainer

    trainer = create_trainer(config, model, create_sharding(config, [device]), num_sources=1)
    state = trainer.init(seed=0)

    def step(batch: Any) -> Any:
        nonlocal state
        state, metrics = trainer.step(state, jax.device_put(batch, trainer.batch_sharding))
        jax.block_until_ready(state)
        return metrics

    return step
