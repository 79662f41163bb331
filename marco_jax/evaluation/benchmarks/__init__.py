"""The few-shot benchmarks of the paper: prompts from local files.

    from marco_jax.evaluation import benchmarks

    for prompt in benchmarks.prompts("belebele", "kk", "DATA", format="letter", shots=0):
        prompt.context, prompt.choices, prompt.gold

`BENCHMARKS` declares for each its files below the data directory, its languages, its prompt
formats and how shots are chosen. DATA holds a folder for each benchmark in its authors' layout (or
as a local Hugging Face or TFDS dataset); nothing is downloaded.
"""

from marco_jax.evaluation.benchmarks.prompts import available_languages, get_benchmark, prompts
from marco_jax.evaluation.benchmarks.rendering import Prompt
from marco_jax.evaluation.benchmarks.row_files import DataError
from marco_jax.evaluation.benchmarks.tables import BENCHMARKS

__all__ = ["BENCHMARKS", "DataError", "Prompt", "available_languages", "get_benchmark", "prompts"]
