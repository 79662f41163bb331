"""Which rooms need which libraries: a GPU box with jax, flax and optax alone can score and plan."""

import pathlib
import subprocess
import sys

import pytest

import marco_jax

PACKAGE = pathlib.Path(marco_jax.__file__).parent
BLOCKED = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tensorflow", "tensorflow_datasets", "seqio", "t5"}:
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
"""


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )


def test_the_blocker_blocks():
    assert "not installed here" in python(BLOCKED + "import seqio").stderr


@pytest.mark.parametrize(
    "modules",
    [
        "marco_jax.model.qwen2, marco_jax.weights.huggingface, marco_jax.model.mesh",
        "marco_jax.decoding.engine, marco_jax.decoding.kernels",
        "marco_jax.tokenizers.tokenizer, marco_jax.languages",
        "marco_jax.training.step, marco_jax.objectives.losses, marco_jax.training.optimizer",
    ],
)
def test_rooms_import_where_tensorflow_and_seqio_are_not_installed(modules):
    result = python(BLOCKED + f"import marco_jax.model, marco_jax.decoding, {modules}")
    assert result.returncode == 0, result.stderr


def test_the_package_alone_imports_neither_jax_nor_tensorflow():
    code = "import sys, marco_jax, marco_jax.__main__; print([m for m in ('jax', 'numpy', "
    code += "'tensorflow', 'apache_beam') if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"
