"""`marco import` and `marco export`: bit for bit, a tensor at a time, all or nothing."""

import dataclasses
import json
import resource
import shutil

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from marco_jax.__main__ import main
from marco_jax.files import shutil as shutil_there
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import flatten, parameter_table, parameter_tree, unflatten
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.tokenizers.tokenizer import byte_letters, load_tokenizer, qwen2_tokenizer
from marco_jax.tokenizers.tokenizer_files import Companions
from marco_jax.training.config import ConfigError
from marco_jax.training.restore import check_belongs
from marco_jax.weights.arrays import ArrayWriter, StoredParams, chunk_shape
from marco_jax.weights.checkpoints import read_meta
from marco_jax.weights.convert import export_model, import_huggingface, named_tensors
from marco_jax.weights.directory import huggingface_tensors
from marco_jax.weights.huggingface import load_huggingface, save_huggingface
from marco_jax.weights.models import find_model, load_model, load_weights

CONFIG = dataclasses.replace(PRESETS["tiny"], num_hidden_layers=3, vocab_size=320)
TIED = dataclasses.replace(CONFIG, tie_word_embeddings=True)
QWEN3 = dataclasses.replace(PRESETS["qwen3_tiny"], vocab_size=320)
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
TOKENIZER = qwen2_tokenizer(
    {letter: number for number, letter in enumerate(byte_letters())},
    [],
    Companions({"eos_token": "<|im_end|>"}, TEMPLATE, {"eos_token_id": [258, 256], "top_k": 20}),
)


def random_params(config, dtype):
    """Normal values, zeros (which a store might leave out), and the smallest ones."""
    generator = np.random.default_rng(0)

    def make(row):
        values = generator.normal(size=row.shape(config)).astype(dtype)
        values.flat[::7] = 0
        values.flat[1] = np.float32(1e-38)
        return jax.numpy.asarray(values)

    return parameter_tree(config, make)


def assert_same(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path, value in left.items():
        assert value.dtype == right[path].dtype, path
        np.testing.assert_array_equal(np.asarray(value), np.asarray(right[path]), err_msg=path)


def same_files(first, second, pattern="model*"):
    files = [
        {p.name: p.read_bytes() for p in directory.glob(pattern)} for directory in (first, second)
    ]
    return files[0] == files[1] and files[0]


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "hf"
    params = random_params(CONFIG, ml_dtypes.bfloat16)
    save_huggingface(directory, CONFIG, params, TOKENIZER, max_shard_bytes=100_000)
    return directory


@pytest.mark.parametrize("config", [CONFIG, TIED, QWEN3], ids=["untied", "tied", "qwen3"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("max_shard_bytes", [100_000, 5_000_000_000])
def test_import_of_an_export_is_the_model(tmp_path, config, dtype, max_shard_bytes):
    params = random_params(config, dtype)
    save_huggingface(tmp_path / "hf", config, params, TOKENIZER, max_shard_bytes=max_shard_bytes)
    import_huggingface(tmp_path / "hf", tmp_path / "imported")
    loaded = load_model(tmp_path / "imported")
    assert loaded.config == config
    assert_same(loaded.params, params)
    export_model(tmp_path / "imported", tmp_path / "again", max_shard_bytes=max_shard_bytes)
    assert same_files(tmp_path / "hf", tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "imported", "again"}


def test_what_lies_beside_the_weights_is_carried(tmp_path, hf):
    (hf / "README.md").write_text("---\nlicense: other\nlicense_link: 'https://x.y'\n---\n# A\n")
    import_huggingface(hf, tmp_path / "imported")
    export_model(tmp_path / "imported/checkpoints/0", tmp_path / "out")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_text() == (hf / name).read_text(), name
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.companions.chat_template == TEMPLATE
    assert tokenizer.fingerprint == TOKENIZER.fingerprint
    fields = json.loads((tmp_path / "out/config.json").read_text())
    assert fields["eos_token_id"] == [258, 256]
    card = (tmp_path / "out/README.md").read_text()
    assert 'license: "other"\nlicense_link: "https://x.y"\n' in card
    (hf / "README.md").unlink()


def test_dtypes_are_converted_when_asked(tmp_path, hf):
    assert main(["import", f"--hf={hf}", f"--out={tmp_path / 'a'}", "--dtype=float32"]) == 0
    wide = jax.tree.map(lambda x: x.astype(np.float32), load_huggingface(hf)[1])
    assert_same(load_model(tmp_path / "a").params, wide)
    command = ["export", f"--model={tmp_path / 'a'}", f"--out={tmp_path / 'b'}"]
    assert main([*command, "--dtype=bfloat16"]) == 0
    assert_same(load_huggingface(tmp_path / "b")[1], load_huggingface(hf)[1])


def test_a_directory_is_exported_without_an_import(tmp_path, hf):
    export_model(hf, tmp_path / "whole")
    assert (tmp_path / "whole/model.safetensors").exists()
    assert_same(load_huggingface(tmp_path / "whole")[1], load_huggingface(hf)[1])


def test_orbax_reads_it_onto_a_mesh_and_says_of_it_what_it_says_of_its_own(tmp_path, hf):
    import_huggingface(hf, tmp_path / "imported")
    sharding = Sharding(create_mesh({"fsdp": 4, "tensor": 2}))
    loaded = load_model(tmp_path / "imported", sharding)
    params = load_huggingface(hf)[1]
    assert_same(loaded.params, params)
    assert all(leaf.sharding.mesh.size == 8 for leaf in jax.tree.leaves(loaded.params))
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "orbax", params)
    ours = tmp_path / "imported/checkpoints/0/params/_METADATA"
    theirs = tmp_path / "orbax/_METADATA"
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())


def test_arrays_of_many_layers_a_chunk_are_read_too(tmp_path, hf):
    """As Orbax cuts them by itself, and checkpoints did once."""
    params = load_huggingface(hf)[1]
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "params", params)
    stored = StoredParams(tmp_path / "params", CONFIG)
    assert not stored.by_layer and stored.dtype == ml_dtypes.bfloat16
    expected = load_file_names(hf)
    for name, tensor in huggingface_tensors(CONFIG, stored.dtype, stored.read).items():
        np.testing.assert_array_equal(tensor.read(), expected[name], err_msg=name)


def load_file_names(directory):
    tensors = {}
    for path in directory.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def test_a_stream_may_be_changed_on_its_way(tmp_path, hf):
    """As an adapter is merged: tensors that read those of the base and add to them."""
    tensors = dict(named_tensors(find_model(hf)))
    norm = tensors["model.norm.weight"]
    changed = dataclasses.replace(norm, read=lambda: norm.read() + norm.dtype.type(1))
    assert changed.nbytes == 2 * CONFIG.hidden_size
    assert np.array_equal(changed.read(), norm.read() + norm.dtype.type(1))


def test_chunks_are_equal_parts_of_bounded_size():
    assert chunk_shape((3, 5), 2) == (3, 5)
    for shape in ((152_064, 8192), (8192, 64, 128), (29_568, 8192), (151_937, 4096)):
        chunk = chunk_shape(shape, 4)
        assert 4 * np.prod(chunk) <= 16 << 20
        assert all(size % part == 0 for size, part in zip(shape, chunk, strict=True))


class Killed(BaseException):
    """Ends a process as a signal would."""


@pytest.fixture
def killed(monkeypatch):
    """Kills the import when it has written some tensors, and counts what is written."""
    write, written = ArrayWriter.write, []

    def limit(tensors):
        def counted(self, row, layer, array):
            if len(written) == tensors:
                raise Killed
            written.append((row.path, layer))
            write(self, row, layer, array)

        written.clear()
        monkeypatch.setattr(ArrayWriter, "write", counted)
        return written

    return limit


def test_an_import_that_is_killed_goes_on(tmp_path, hf, killed, capsys):
    killed(10)
    with pytest.raises(Killed):
        import_huggingface(hf, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    journal = tmp_path / ".out.importing/import.jsonl"
    journal.write_text(journal.read_text() + '"model.layers.2.self')  # cut in a line
    written = killed(-1)
    import_huggingface(hf, tmp_path / "out")
    assert len(written) == 3 + 12 * 3 - 10
    assert "10 tensors are written" in capsys.readouterr().err
    assert_same(load_model(tmp_path / "out").params, load_huggingface(hf)[1])
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "card.json",
        "checkpoints",
        "tokenizer",
    }


def test_an_import_of_something_else_does_not_go_on(tmp_path, hf, killed):
    killed(10)
    with pytest.raises(Killed):
        import_huggingface(hf, tmp_path / "out")
    written = killed(-1)
    import_huggingface(hf, tmp_path / "out", dtype=np.float32)
    assert len(written) == 3 + 12 * 3
    assert load_model(tmp_path / "out").params["norm"]["scale"].dtype == np.float32


def llama(directory):
    path = directory / "config.json"
    fields = json.loads(path.read_text()) | {"model_type": "llama"}
    path.write_text(json.dumps(fields))


def cut_shard(directory):
    path = max(directory.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])


def lost_shard(directory):
    min(directory.glob("*.safetensors")).unlink()


def other_shape(directory):
    path = next(p for p in directory.glob("*.safetensors") if "model.norm.weight" in load_file(p))
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]
    save_file(tensors, path)


def null_in_the_index(directory):
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = None
    path.write_text(json.dumps(index))


def heads_in_quotes(directory):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": "4"}))


def no_tokenizer(directory):
    for path in directory.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize("command", ["import", "export"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (llama, "model_type is 'llama'"),
        (cut_shard, "is truncated"),
        (lost_shard, "is absent though model.safetensors.index.json names it"),
        (other_shape, "model.norm.weight has shape [63]"),
        (null_in_the_index, "weight_map has null for model.norm.weight"),
        (heads_in_quotes, 'config.json: num_attention_heads is "4": write a whole number'),
        (no_tokenizer, "--weights_only"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, hf, command, damage, message, capsys):
    shutil.copytree(hf, tmp_path / "hf")
    damage(tmp_path / "hf")
    flag = {"import": "hf", "export": "model"}[command]
    assert main([command, f"--{flag}={tmp_path / 'hf'}", f"--out={tmp_path / 'out'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"marco {command}: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_weights_are_imported_and_exported_without_a_tokenizer(tmp_path, hf, capsys):
    shutil.copytree(hf, tmp_path / "hf")
    no_tokenizer(tmp_path / "hf")
    command = ["import", f"--hf={tmp_path / 'hf'}", f"--out={tmp_path / 'out'}", "--weights_only"]
    assert main([*command, "--extend_vocabulary=10"]) == 2
    assert main(command) == 0
    assert not (tmp_path / "out/tokenizer").exists()
    with pytest.raises(FileNotFoundError, match="out/tokenizer holds no tokenizer: .* training"):
        load_model(tmp_path / "out")
    found = find_model(tmp_path / "out", weights_only=True)
    assert found.tokenizer is None
    assert_same(load_weights(found), load_huggingface(hf)[1])
    command = ["export", f"--model={tmp_path / 'out'}", f"--out={tmp_path / 'again'}"]
    assert main(command) == 2
    assert main([*command, "--weights_only"]) == 0
    assert_same(load_huggingface(tmp_path / "again")[1], load_huggingface(hf)[1])
    assert not list((tmp_path / "again").glob("tokenizer*"))
    # With tokenizer files in their folder the import is a model like any other.
    TOKENIZER.save(tmp_path / "out/tokenizer")
    assert load_model(tmp_path / "out").tokenizer.fingerprint == TOKENIZER.fingerprint


def test_values_that_are_not_finite_are_counted_also_after_a_kill(tmp_path, killed, capsys):
    flat = flatten(random_params(CONFIG, ml_dtypes.bfloat16))
    flat["embed_tokens/embedding"] = flat["embed_tokens/embedding"].at[5].set(np.nan)
    flat["lm_head/embedding"] = flat["lm_head/embedding"].at[0, :2].set(np.inf)
    save_huggingface(tmp_path / "hf", CONFIG, unflatten(flat), TOKENIZER)
    killed(10)
    with pytest.raises(Killed):
        import_huggingface(tmp_path / "hf", tmp_path / "out")
    killed(-1)
    capsys.readouterr()
    import_huggingface(tmp_path / "hf", tmp_path / "out")
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "infinite" in x)
    assert f"{tmp_path / 'hf'}: 66 values are NaN or infinite" in line
    assert "(model.embed_tokens.weight: 64, lm_head.weight: 2)" in line


def refuse_writes(monkeypatch):
    """The kernel refuses writes past a file's size limit as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def little_room(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil_there, "disk_usage", lambda path: usage._replace(free=1000))
    return lambda: None


@pytest.mark.parametrize("command", ["import", "export"])
@pytest.mark.parametrize(
    ("cause", "message"), [(refuse_writes, "File too large"), (little_room, "GB free and")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path, hf, command, cause, message, capsys, monkeypatch
):
    flag = {"import": "hf", "export": "model"}[command]
    undo = cause(monkeypatch)
    try:
        code = main([command, f"--{flag}={hf}", f"--out={tmp_path / 'out'}"])
    finally:
        undo()
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and message in line
    assert list(tmp_path.iterdir()) == []


def test_targets_that_are_there_are_left_alone(tmp_path, hf, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    assert main(["import", f"--hf={hf}", f"--out={tmp_path / 'out'}"]) == 2
    assert main(["export", f"--model={hf}", f"--out={tmp_path / 'out'}", "--overwrite"]) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    assert main(["export", f"--model={hf}", f"--out={tmp_path / 'new'}"]) == 0
    assert main(["export", f"--model={hf}", f"--out={tmp_path / 'new'}"]) == 2
    assert main(["export", f"--model={hf}", f"--out={tmp_path / 'new'}", "--overwrite"]) == 0


def test_one_import_at_a_time(tmp_path, hf, monkeypatch):
    """A second one into the same place would write what the first has begun."""
    from marco_jax.weights import convert as interop

    def busy(directory):
        raise ValueError(f"{directory} is in use by process 7 on host: stop that run")

    monkeypatch.setattr(interop, "locked", busy)
    (tmp_path / ".out.importing").mkdir()
    with pytest.raises(ValueError, match="in use by process 7"):
        import_huggingface(hf, tmp_path / "out")
    assert (tmp_path / ".out.importing").exists()


def test_a_checkpoint_from_before_a_field_has_its_default(tmp_path, hf):
    import_huggingface(hf, tmp_path / "out")
    step = tmp_path / "out/checkpoints/0"
    (path,) = (p for p in (step / "meta").rglob("*") if "qk_norm" in p.read_text())
    meta = json.loads(path.read_text())
    del meta["model"]["qk_norm"], meta["model"]["qkv_bias"]
    path.write_text(json.dumps(meta))
    here = {"model": dataclasses.asdict(CONFIG)}
    assert read_meta(step)["model"] == here["model"]
    check_belongs(read_meta(step), here)
    with pytest.raises(ConfigError, match="model.head_dim is 32, and 16 in this workdir's"):
        check_belongs(read_meta(step), {"model": here["model"] | {"head_dim": 32}})


def test_every_row_of_the_table_goes_through(hf):
    names = {name for row in parameter_table(CONFIG) for name in row.huggingface_names(CONFIG)}
    assert names == set(named_tensors(find_model(hf)))
