"""Pieces of a kit: cut, carried in any order, joined; damage is named."""

import pathlib
import subprocess
import sys

import jax
import pytest

import benchmarks.gpu.__main__ as kit
import benchmarks.gpu.attention as kit_attention
from benchmarks.gpu.pieces import INDEX, cut, join
from benchmarks.gpu_training import ADAMW, create_bare_trainer
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.training.assemble import create_sharding, create_trainer
from marco_jax.training.defaults import training_config


@pytest.fixture
def folder(tmp_path):
    kit = tmp_path / "kit"
    (kit / "wheels").mkdir(parents=True)
    (kit / "wheels/one.whl").write_bytes(bytes(range(256)) * 40)
    (kit / "empty").touch()
    return kit


@pytest.fixture
def pieces(folder, tmp_path):
    out = tmp_path / "pieces"
    names = cut(folder, out, 4096)
    assert len(names) > 3 and all((out / name).stat().st_size <= 4096 for name in names)
    return out


def test_pieces_join_in_any_order(folder, pieces, tmp_path):
    store, carried = tmp_path / "store", tmp_path / "carried"
    names = sorted(path.name for path in pieces.glob("piece0*"))
    carried.mkdir()
    (pieces / INDEX).rename(carried / INDEX)
    for number, name in enumerate(reversed(names)):
        (pieces / name).rename(carried / name)
        missing = join(carried, store)
        assert missing == names[: len(names) - number - 1]
        (carried / name).unlink()
    for path in ("wheels/one.whl", "empty"):
        assert (store / "kit" / path).read_bytes() == (folder / path).read_bytes()


def test_a_damaged_piece_is_named(pieces, tmp_path):
    (pieces / "piece001").write_bytes(b"other")
    with pytest.raises(ValueError, match="piece001 is damaged"):
        join(pieces, tmp_path / "store")


def test_the_index_comes_first(pieces, tmp_path):
    (pieces / INDEX).unlink()
    with pytest.raises(ValueError, match="carry it with the first pieces"):
        join(pieces, tmp_path / "store")


@pytest.mark.parametrize(("failed", "ran"), [("attention", 1), ("decoding", 4), ("", 4)])
def test_nothing_is_measured_with_wrong_attention(failed, ran, tmp_path, monkeypatch):
    parts = []

    def run(part, *_):
        parts.append(part)
        return kit.FAILED if part == failed else kit.DONE

    monkeypatch.setattr(kit, "run", run)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/installed").touch()
    flags = [f"--{name}={tmp_path}" for name in ("kit", "workdir")]
    monkeypatch.setattr(sys, "argv", ["kit", *flags, f"--out={tmp_path / 'out'}"])
    assert kit.main() == (kit.FAILED if failed else kit.DONE)
    assert parts == ["attention", "training", "decoding", "study"][:ran]


BARE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    # Packages of training that the step alone must not need.
    names = {"ml_collections", "tensorboardX", "tensorflow", "seqio", "tqdm", "jinja2", "regex",
             "tokenizers", "safetensors", "sentencepiece", "huggingface_hub", "transformers",
             "torch", "apache_beam", "lxml", "sacrebleu", "langcodes", "google.protobuf"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not on a bare machine", name=name)

sys.meta_path.insert(0, Refuse())
import jax
import benchmarks.gpu.attention
from benchmarks.common import packed_batch, stepper
from benchmarks.gpu_training import create_bare_trainer
from marco_jax.model.qwen2_config import PRESETS

model = PRESETS["tiny"]
step = stepper(create_bare_trainer(model, jax.devices()[0]))
batch = packed_batch(2, 128, model.vocab_size, documents=4)
print(*(float(step(batch).loss_sums[0]) for _ in range(3)))
"""


def test_a_step_runs_where_only_jax_and_its_libraries_are(root):
    command = [sys.executable, "-c", BARE]
    found = subprocess.run(
        command, cwd=root, check=True, timeout=240, capture_output=True, text=True
    )
    first, *_, last = map(float, found.stdout.split())
    assert last < first


def test_the_bare_step_is_that_of_training():
    model, (device, *_) = PRESETS["tiny"], jax.devices()
    config = training_config()
    config.dtype, config.remat = "bfloat16", "minimal"
    trained = create_trainer(config, model, create_sharding(config, [device]), num_sources=1)
    bare = create_bare_trainer(model, device)
    assert bare.options == trained.options and bare.sharding == trained.sharding
    assert dict(config.optimizer) == ADAMW


def test_what_a_gpu_runs_imports_no_tensorflow(root):
    """With JAX, Flax, Optax, Orbax and the kit's wheels alone."""
    code = (
        "import sys\n"
        "import marco_jax.training.loop, marco_jax.evaluation.evaluator, benchmarks.gpu_training\n"
        "import benchmarks.gpu.decode, benchmarks.gpu.attention, experiments.real_base.__main__\n"
        "heavy = {'tensorflow', 'seqio', 'tensorflow_datasets', 'apache_beam'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(root), check=True, timeout=240)


def test_the_check_of_attention_tells_right_from_wrong(monkeypatch):
    def errors(kind, side):
        row = kit_attention.compare((2, 1, 16), 128, kind, ["blocked"], rounds=1)
        return row["errors"][side].values()

    packed, right = "packed, with padding", kit_attention.attention

    def across_documents(*operands, implementation, **given):
        if implementation == "blocked":
            ids = given["query_segment_ids"].at[:, 100:].set(1)
            given |= {"query_segment_ids": ids, "key_segment_ids": ids}
        return right(*operands, implementation=implementation, **given)

    assert max(errors(packed, "blocked")) <= kit_attention.MOST
    monkeypatch.setattr(kit_attention, "attention", across_documents)
    kit_attention.gradients.cache_clear()
    assert max(errors(packed, "blocked")) > kit_attention.MOST
    kit_attention.gradients.cache_clear()


def test_the_kinds_of_rows_are_what_they_say():
    kinds = {kind: kit_attention.segment_rows(kind, 512) for kind in kit_attention.KINDS}
    counts = {kind: [len(set(row) - {0}) for row in rows] for kind, rows in kinds.items()}
    assert counts == {
        "packed, with padding": [3, 3],
        "one document": [1, 1],
        "one document, with padding": [1, 1],
        "more than one call": [32, 8],
    }
    assert sum(counts["more than one call"]) > 2 * kit_attention.SEGMENTS_PER_ROW
    padded = {kind for kind, rows in kinds.items() if (rows[:, -1] == 0).all()}
    assert padded == {"packed, with padding", "one document, with padding"}
