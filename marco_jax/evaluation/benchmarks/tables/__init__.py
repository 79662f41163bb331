"""All benchmarks, by name."""

from __future__ import annotations

from marco_jax.evaluation.benchmarks.spec import Benchmark
from marco_jax.evaluation.benchmarks.tables import (
    exams,
    mmlu,
    reading,
    reasoning,
    translation,
)
from marco_jax.evaluation.benchmarks.tables import instruction_following as instructions

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for module in (exams, mmlu, reasoning, reading, translation, instructions)
    for benchmark in module.BENCHMARKS
}
