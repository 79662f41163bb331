"""All benchmarks, by name."""

from marco_jax.evaluation.benchmarks.spec import Benchmark
from marco_jax.evaluation.benchmarks.tables import (
    exams,
    mmlu,
    reading,
    reasoning,
    regional,
    translation,
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for module in (exams, mmlu, regional, reasoning, reading, translation)
    for benchmark in module.BENCHMARKS
}
