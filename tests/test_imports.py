"""Which rooms need which libraries: a GPU box with jax, flax and optax alone can score and plan."""

import ast
import pathlib
import subprocess
import sys

import pytest

import marco_jax

PACKAGE = pathlib.Path(marco_jax.__file__).parent
FLOORS = {
    "commands": 9,
    "__main__": 9,
    "lm_eval": 9,
    "ablation": 8,
    "planning": 8,
    "training": 7,
    "weights": 6,
    "reports": 5,
    "evaluation": 4,
    "decoding": 3,
    "data": 3,
    "curation": 2,
    "model": 2,
    "tokenizers": 2,
    "runtime": 1,
    "languages": 1,
    "ngrams": 1,
    "files": 1,
    "extras": 1,
}

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
        "marco_jax.training.step, marco_jax.training.losses, marco_jax.training.optimizer",
    ],
)
def test_rooms_import_where_tensorflow_and_seqio_are_not_installed(modules):
    result = python(BLOCKED + f"import marco_jax.model, marco_jax.decoding, {modules}")
    assert result.returncode == 0, result.stderr


def test_the_package_alone_imports_neither_jax_nor_tensorflow():
    code = "import sys, marco_jax, marco_jax.__main__; print([m for m in ('jax', 'numpy', "
    code += "'tensorflow', 'apache_beam') if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"


def test_no_room_imports_one_above_it():
    upward = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "marco_jax":
                    names = [f"marco_jax.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "marco_jax" and len(parts) > 1:
                    above = FLOORS.get(parts[1], 0) > FLOORS.get(room, 9)
                    same_floor = FLOORS.get(parts[1]) == FLOORS.get(room) and parts[1] != room
                    if above or (same_floor and {room, parts[1]} == {"data", "decoding"}):
                        upward.append(f"{file.name} imports {name}")
    assert not upward


def test_no_file_of_the_package_imports_experiments():
    users = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "experiments" in {name.partition(".")[0] for name in imported(file)}
    ]
    assert not users


def imported(file):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
