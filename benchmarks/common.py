"""What the scripts share: flags and JSON, sides that take turns, random batches and models."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from marco_jax.tokenizers.tokenizer_files import Companions

OURS = "marco_jax"
VOCABULARY = 151_936  # of Qwen2


def read_flags(document: str, **flags: tuple[Any, str]) -> argparse.Namespace:
    """The flags of a command line, whose help begins with the script's docstring.

    Args:
        document: the docstring.
        flags: (default, help) of each; values have the type of the default. A tuple is a
            comma-separated list, False a switch, and a type in place of a default is required.
    """
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, (default, text) in flags.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true", help=text)
        elif isinstance(default, type):
            parser.add_argument(f"--{name}", type=default, required=True, help=text)
        else:
            parser.add_argument(f"--{name}", default=default, type=_reader(default), help=text)
    return parser.parse_args()


def _reader(default: Any) -> Callable[[str], Any]:
    if isinstance(default, tuple):
        return lambda text: tuple(type(default[0])(value) for value in text.split(","))
    return type(default)


def print_json(value: Any) -> None:
    """Prints a result."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


@dataclasses.dataclass
class Times:
    """What the calls of one side took, and what the last of them returned."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    answer: Any = None

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls and times a function."""
        begin = time.perf_counter()
        self.answer = function()
        self.seconds.append(time.perf_counter() - begin)
        return self.answer

    @property
    def median(self) -> float:
        """Median of the wall-clock seconds."""
        return statistics.median(self.seconds)


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


class Peer:
    """Another process that answers each line of its input with a line of JSON."""

    def __init__(self, *command: str) -> None:
        """Starts it; its errors go to ours."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str = "") -> Any:
        """Its answer to a line.

        Raises:
            SystemExit: it has ended.
        """
        try:
            print(line, file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise SystemExit(f"{self._process.args} ended: its error is above") from None

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


@dataclasses.dataclass
class Ids:
    """Enough of a tokenizer for an engine that reads and writes ids: no id ends a text."""

    vocab_size: int = VOCABULARY
    eos_id: int = -2
    companions: Companions = Companions()

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


def load_engine(directory: str) -> tuple[Any, Any]:
    """The saved model as an Engine that reads ids, and its parameters."""
    from marco_jax.decoding.engine import Engine
    from marco_jax.weights.huggingface import load_huggingface

    config, params = load_huggingface(directory)
    return Engine(config, Ids(config.vocab_size), max_length=4096), params


def load_torch(directory: str) -> Any:
    """The same model as transformers' Qwen2ForCausalLM in float32, on all cores."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def packed_batch(rows: int, length: int, vocabulary: int, documents: int = 1, seed: int = 0) -> Any:
    """A training batch of random tokens: `documents` of one size a sequence, without padding."""
    from marco_jax.training.state import Batch

    tokens = np.random.default_rng(seed).integers(0, vocabulary, (rows, length + 1), np.int32)
    size = length // documents
    segment_ids = np.tile(np.arange(length, dtype=np.int32) // size + 1, (rows, 1))
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        positions=np.tile(np.arange(length, dtype=np.int32) % size, (rows, 1)),
        segment_ids=segment_ids,
        loss_weights=np.ones((rows, length), np.float32),
        source_ids=np.zeros_like(segment_ids),
    )


def training_step(config: Any, model: Any, device: Any) -> Callable[[Any], Any]:
    """A function that trains one step on a batch, as `marco train` assembles it on one device.

    It returns the metrics, having waited for all of the step.
    """
    from marco_jax.training.assemble import create_sharding, create_trainer

    return stepper(create_trainer(config, model, create_sharding(config, [device]), num_sources=1))


def stepper(trainer: Any) -> Callable[[Any], Any]:
    """A function that trains one step on a batch, from random parameters on, and waits for it."""
    import jax

    state = trainer.init(seed=0)

    def step(batch: Any) -> Any:
        nonlocal state
        state, metrics = trainer.step(state, jax.device_put(batch, trainer.batch_sharding))
        jax.block_until_ready(state)
        return metrics

    return step
