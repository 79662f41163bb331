"""The commands of the study as data: what the base is asked, how each arm is trained and asked."""

from __future__ import annotations

import dataclasses
import pathlib

from marco_jax.evaluation.benchmark_tasks import is_benchmark
from marco_jax.languages import LANGUAGES
from marco_jax.training.config import load_config
from marco_jax.weights.checkpoints import CHECKPOINTS

BASE, STAGES, NAIVE = "base", "two_stages", "low_resource_only"
# English, Chinese, and the low-resource languages of configs/real_base.py.
TRAINED = "en,zh,kk,ne,he,ur,uk,bn"
_OTHERS = ",".join(code for code in LANGUAGES if code not in TRAINED.split(","))
CONFIG = "configs/real_base.py"

# What differs between the arms; the tokens are the same.
_ARMS = {
    STAGES: {},
    # Fine-tuning without a mixture: one stage that reads the six languages and nothing else.
    NAIVE: {
        "stages": "stage1",
        "mixture.name": "flat",
        "mixture.override": "low-resource=1,"
        "id=0,it=0,ms=0,nl=0,pl=0,ru=0,th=0,vi=0,cs=0,el=0,hu=0,ro=0,az=0",
    },
}
# Fields of a machine, over those of the config. A GPU of 80 GB reads 4.2 million tokens an arm.
DEVICES = {
    "cpu": {},
    "gpu": {
        "dtype": "bfloat16",
        "batch.length": 4096,
        "steps": 128,
        "checkpoint.every": 64,
        "evaluation.tokens_per_batch": 65_536,
    },
}


@dataclasses.dataclass(frozen=True)
class Question:
    """One `marco eval`: its tasks, languages and number of items a language and subject."""

    name: str
    tasks: str
    languages: str
    items: int
    flags: tuple[str, ...] = ()

    @property
    def reads_corpus(self) -> bool:
        """Whether it asks for held-out text, rather than a benchmark."""
        return not is_benchmark(self.tasks)


# Asked before training, and of every arm.
PAIRED = (
    Question("bits", "bits_per_byte", TRAINED, 24),
    Question("xcopa", "xcopa:0", "en,zh", 500),
    Question("translation", "translation", TRAINED, 16, ("--shots=3", "--max_new_tokens=64")),
    Question("belebele", "belebele:cloze:0", TRAINED, 60),
)
# What the base knows besides.
ALONE = (
    Question("xcopa_others", "xcopa:0", "et,ht,id,sw,tr", 500),
    Question("bits_others", "bits_per_byte", _OTHERS, 16),
    Question("mmlu", "mmlu:5", "en", 16),
    Question("xstorycloze", "xstorycloze:0", "es,id,sw,zh,my", 400),
    Question("belebele_letters", "belebele:1", "en,zh,de,ja,az,kk,ne,he,ur,bn", 70),
)


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where the study finds and writes: the user's base, corpus, benchmarks, and its workdir."""

    init_from: str
    data: str
    benchmarks: str
    workdir: pathlib.Path

    def results(self, model: str, question: Question) -> pathlib.Path:
        """Results of a question to the base or an arm."""
        return self.workdir / "results" / model / f"{question.name}.json"

    def difference(self, arm: str, question: Question) -> pathlib.Path:
        """What an arm changed in the base's results, item by item."""
        return self.workdir / "results" / arm / f"{question.name}.difference.json"

    def arm(self, arm: str) -> pathlib.Path:
        """The workdir of an arm."""
        return self.workdir / arm


def arm_names(seeds: int) -> list[str]:
    """The arms over all seeds."""
    return [f"{arm}-seed{seed}" for seed in range(seeds) for arm in _ARMS]


def ask(paths: Paths, model: str, question: Question) -> list[str]:
    """`marco eval` of the base or an arm."""
    data = paths.data if question.reads_corpus else paths.benchmarks
    return [
        "eval",
        f"--model={paths.init_from if model == BASE else paths.arm(model)}",
        f"--tasks={question.tasks}",
        f"--languages={question.languages}",
        f"--limit={question.items}",
        *question.flags,
        f"--data_dir={data}",
        f"--out={paths.results(model, question)}",
    ]


def compare(paths: Paths, arm: str, question: Question) -> list[str]:
    """`marco eval --compare` of the base and an arm."""
    before, after = (paths.results(model, question) for model in (BASE, arm))
    out = paths.difference(arm, question)
    return ["eval", "--compare", str(before), str(after), f"--out={out}"]


def train(paths: Paths, arm: str, device: str, fields: list[str]) -> tuple[list[str], pathlib.Path]:
    """`marco train` of an arm, and its last checkpoint; `fields` are the user's own and come last.

    Raises:
        ConfigError: an unknown field.
    """
    name, _, seed = arm.partition("-seed")
    changes = {
        "init_from": paths.init_from,
        "data": paths.data,
        "data_cache": paths.workdir / "data",
        "seed": seed,
        **DEVICES[device],
        **_ARMS[name],
    }
    given = [*(f"{field}={value}" for field, value in changes.items()), *fields]
    last = paths.arm(arm) / CHECKPOINTS / str(load_config(CONFIG, given).steps)
    command = ["train", f"--config={CONFIG}", f"--workdir={paths.arm(arm)}"]
    return [*command, *(f"--config.{field}" for field in given)], last
