"""Import and export of Hugging Face directories: round trips, layouts on disk, wrong inputs."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import flatten, parameter_tree, unflatten
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.weights.huggingface import (
    check_exportable,
    load_huggingface,
    read_config,
    save_huggingface,
)

CONFIG = dataclasses.replace(PRESETS["tiny"], num_hidden_layers=3)
TIED = dataclasses.replace(CONFIG, tie_word_embeddings=True)
QWEN3 = PRESETS["qwen3_tiny"]


def random_params(config, dtype=np.float32):
    """Parameters whose every value differs, so that a swapped tensor or axis shows."""
    generator = np.random.default_rng(0)
    return parameter_tree(
        config, lambda row: jax.numpy.asarray(generator.normal(size=row.shape(config)), dtype)
    )


def assert_same(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path, value in left.items():
        assert value.dtype == right[path].dtype, path
        np.testing.assert_array_equal(np.asarray(value), np.asarray(right[path]), err_msg=path)


@pytest.fixture
def saved(tmp_path):
    directory = tmp_path / "saved"
    save_huggingface(directory, CONFIG, random_params(CONFIG))
    return directory


class FakeTokenizer:
    vocab_size = 256
    eos_id = 7

    def save(self, directory):
        (directory / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("config", [CONFIG, TIED, QWEN3], ids=["untied", "tied", "qwen3"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip_is_exact(tmp_path, config, dtype):
    params = random_params(config, dtype)
    save_huggingface(tmp_path / "out", config, params)
    loaded_config, loaded = load_huggingface(tmp_path / "out")
    assert loaded_config == config
    assert_same(loaded, params)


def test_layout_on_disk(saved):
    tensors = load_file(saved / "model.safetensors")
    params = flatten(random_params(CONFIG))
    query = np.asarray(params["layers/self_attn/q_proj/kernel"][1])  # [embed, heads, head_dim]
    stored = tensors["model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(stored, query.reshape(CONFIG.hidden_size, -1).T)
    output = np.asarray(params["layers/self_attn/o_proj/kernel"][2])  # [heads, head_dim, embed]
    stored = tensors["model.layers.2.self_attn.o_proj.weight"]
    np.testing.assert_array_equal(stored, output.reshape(-1, CONFIG.hidden_size).T)
    assert len(tensors) == 3 + 12 * CONFIG.num_hidden_layers


def test_config_carries_both_rope_schemas_and_dtypes(saved):
    fields = json.loads((saved / "config.json").read_text())
    assert fields["rope_theta"] == 1e6
    assert fields["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6}
    assert fields["torch_dtype"] == fields["dtype"] == "float32"
    assert fields["architectures"] == ["Qwen2ForCausalLM"]
    assert not (saved / "generation_config.json").exists()


def test_config_of_a_qwen3(tmp_path):
    save_huggingface(tmp_path / "out", QWEN3, random_params(QWEN3))
    fields = json.loads((tmp_path / "out/config.json").read_text())
    assert fields["architectures"] == ["Qwen3ForCausalLM"]
    assert (fields["model_type"], fields["head_dim"]) == ("qwen3", 32)
    assert fields["attention_bias"] is False
    assert not {"qkv_bias", "qk_norm"} & set(fields)
    names = set(load_file(tmp_path / "out/model.safetensors"))
    assert "model.layers.1.self_attn.k_norm.weight" in names
    assert not [name for name in names if name.endswith("bias")]


def test_tokenizer_and_its_ids_are_written(tmp_path):
    save_huggingface(tmp_path / "out", TIED, random_params(TIED), FakeTokenizer())
    assert (tmp_path / "out/tokenizer.json").exists()
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((tmp_path / "out" / name).read_text())
        ids = [fields[f"{role}_token_id"] for role in ("bos", "eos", "pad")]
        assert ids == [7, 7, 7], name


def test_shards_and_index(tmp_path):
    params = random_params(CONFIG)
    save_huggingface(tmp_path / "out", CONFIG, params, max_shard_bytes=200_000)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert files == sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == 4 * CONFIG.num_parameters
    assert max((tmp_path / "out" / name).stat().st_size for name in files) < 210_000
    assert_same(load_huggingface(tmp_path / "out")[1], params)


def test_dtype_is_converted_both_ways(tmp_path, saved):
    _, half = load_huggingface(saved, dtype=ml_dtypes.bfloat16)
    expected = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), random_params(CONFIG))
    assert_same(half, expected)
    save_huggingface(tmp_path / "half", CONFIG, random_params(CONFIG), dtype=ml_dtypes.bfloat16)
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "bfloat16"
    assert_same(load_huggingface(tmp_path / "half")[1], expected)


def test_sharded_load_equals_plain_load_and_exports_the_same(tmp_path, saved):
    devices = jax.devices()
    sharding = Sharding(create_mesh({"fsdp": len(devices) // 2, "tensor": 2}, devices))
    _, params = load_huggingface(saved, sharding=sharding)
    for leaf in jax.tree.leaves(params):
        assert leaf.sharding.mesh.size == len(devices)
    assert_same(params, random_params(CONFIG))
    save_huggingface(tmp_path / "again", CONFIG, params)
    first, second = (load_file(d / "model.safetensors") for d in (saved, tmp_path / "again"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


PROCESS = """
import sys
import jax
rank, port, source, target = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
from marco_jax.weights.huggingface import load_huggingface, save_huggingface
from marco_jax.model.mesh import Sharding, create_mesh
sharding = Sharding(create_mesh({"fsdp": 2, "tensor": 2}))
config, params = load_huggingface(source, sharding=sharding)
assert not any(leaf.is_fully_addressable for leaf in jax.tree.leaves(params))
save_huggingface(target, config, params, max_shard_bytes=200_000)
"""


def test_two_processes_load_their_parts_and_export_once(tmp_path, saved):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["JAX_PLATFORMS"] = "cpu"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), port, str(saved), str(tmp_path / "out")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    assert_same(load_huggingface(tmp_path / "out")[1], random_params(CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "saved"]


def test_tied_checkpoint_may_store_its_head_again(tmp_path):
    params = random_params(TIED)
    save_huggingface(tmp_path / "out", TIED, params)
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, path)
    assert_same(load_huggingface(tmp_path / "out")[1], params)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, path)
    with pytest.raises(ValueError, match="differs from .* tie_word_embeddings is true: set it"):
        load_huggingface(tmp_path / "out")


def test_existing_directories(tmp_path, saved):
    params = random_params(CONFIG)
    with pytest.raises(FileExistsError, match="is not empty: choose another"):
        save_huggingface(saved, CONFIG, params)
    (saved / "stale.txt").write_text("from an earlier export")
    doubled = jax.tree.map(lambda x: 2 * x, params)
    save_huggingface(saved, CONFIG, doubled, overwrite=True)
    assert_same(load_huggingface(saved)[1], doubled)
    assert not (saved / "stale.txt").exists()

    (tmp_path / "empty").mkdir()
    save_huggingface(tmp_path / "empty", CONFIG, params)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="is not an earlier export"):
        save_huggingface(tmp_path / "foreign", CONFIG, params, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        save_huggingface(tmp_path / "foreign/thesis.tex", CONFIG, params, overwrite=True)
    assert (tmp_path / "foreign/thesis.tex").read_text() == "precious"


def test_failed_export_leaves_nothing(tmp_path):
    class FullDisk(FakeTokenizer):
        def save(self, directory):
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_huggingface(tmp_path / "out", CONFIG, random_params(CONFIG), FullDisk())
    assert list(tmp_path.iterdir()) == []


def test_check_exportable_takes_abstract_arrays():
    check_exportable(CONFIG, abstract_params(CONFIG), FakeTokenizer())
    with pytest.raises(ValueError, match="lm_head/embedding is not one of"):
        check_exportable(TIED, abstract_params(CONFIG))
    with pytest.raises(ValueError, match="lm_head/embedding is missing"):
        check_exportable(CONFIG, abstract_params(TIED))
    wider = dataclasses.replace(CONFIG, intermediate_size=256)
    with pytest.raises(ValueError, match=r"mlp/gate_proj/kernel has shape .*128\).*256\)"):
        check_exportable(wider, abstract_params(CONFIG))
    large = FakeTokenizer()
    large.vocab_size = 257
    with pytest.raises(ValueError, match="tokenizer has 257 tokens, the embedding 256 rows"):
        check_exportable(CONFIG, abstract_params(CONFIG), large)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama': only qwen2"),
        ({"model_type": ["qwen2"]}, "only qwen2"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is true: give a Qwen3"),
        ({"model_type": "qwen3", "head_dim": None}, "head_dim is null: write a whole number"),
        (
            {"layer_types": ["full_attention", "linear_attention"]},
            "layer_types is .*linear_atten.*: give",
        ),
        ({"layer_types": 3}, "layer_types is 3: give a model"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2]}}, "'mrope', .* vision-language"),
        ({"rope_scaling": {"type": "default", "mrope_section": [2]}}, "give .* of a text model"),
        ({"rope_scaling": "yarn"}, 'rope_scaling is "yarn": write an object'),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters is .*full"),
        ({"rope_parameters": {"rope_theta": "1e6"}}, 'rope_theta is "1e6": write a number above 0'),
        ({"use_sliding_window": True}, "use_sliding_window is true: set it to false"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "RoPE scaling is 'yarn'"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}},
            "RoPE scaling is 'yarn'",
        ),
        ({"hidden_size": None}, "hidden_size is null: write a whole number"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set: give the unq"),
        ({"num_hidden_layers": 4}, "lacks model.layers.3.input_layernorm.weight and 11 more"),
        ({"num_hidden_layers": 2}, "model.layers.2.* and 11 more tensors, which a Qwen2"),
        ({"tie_word_embeddings": False, "vocab_size": 512}, r"\[256, 64\], config.json .*\[512, "),
    ],
)
def test_wrong_config_is_refused_in_one_line(saved, changes, message):
    edit_config(saved, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_huggingface(saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


COUNTS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
)
NUMBERS = ("rms_norm_eps", "rope_theta", "initializer_range")
FLAGS = ("tie_word_embeddings", "use_sliding_window")


@pytest.mark.parametrize(
    ("names", "values", "remedy"),
    [
        (COUNTS, (0, -1, "4", 4.0, True, [4]), "write a whole number of 1 or more"),
        (NUMBERS, (0, -1.0, "1e-6", None, False, float("inf")), "write a number above 0"),
        (FLAGS, ("false", 0, None), "write true or false"),
    ],
)
def test_a_value_of_a_wrong_type_is_named(saved, names, values, remedy):
    fields = json.loads((saved / "config.json").read_text())
    del fields["rope_parameters"]
    for name in names:
        for value in values:
            (saved / "config.json").write_text(json.dumps(fields | {name: value}))
            with pytest.raises(ValueError) as error:
                read_config(saved)
            shown = f"{saved}/config.json: {name} is {json.dumps(value)}: {remedy}"
            assert str(error.value) == shown


def test_absent_sizes_are_named(saved):
    fields = json.loads((saved / "config.json").read_text())
    for name in COUNTS[:6]:
        rest = {key: value for key, value in fields.items() if key != name}
        (saved / "config.json").write_text(json.dumps(rest))
        with pytest.raises(ValueError, match=rf"config.json: {name} is absent\b"):
            read_config(saved)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 12345.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 12345.0}},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 12345.0},
        {"rope_scaling": {"type": "default", "rope_theta": 12345.0}, "rope_theta": 1e6},
    ],
)
def test_either_rope_schema_is_read(saved, rope):
    fields = json.loads((saved / "config.json").read_text())
    del fields["rope_theta"], fields["rope_parameters"]
    (saved / "config.json").write_text(json.dumps(fields | rope))
    assert read_config(saved).rope_theta == 12345.0


def truncate(directory):
    path = sorted(directory.glob("model-*.safetensors"))[-1]
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 4)


def remove_shard(directory):
    sorted(directory.glob("model-*.safetensors"))[1].unlink()


def name_another_tensor(directory):
    path = directory / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("lm_head.weight", "lm_head.wait"))


def remove_weights(directory):
    for path in directory.glob("model*"):
        path.unlink()


def leave_lfs_pointer(directory):
    remove_weights(directory)
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def drop_config(directory):
    (directory / "config.json").unlink()


def break_config(directory):
    (directory / "config.json").write_text('{"model_type": "qwen2",')


def shrink_config(directory):
    (directory / "config.json").write_text("[]")


def drop_weight_map(directory):
    (directory / "model.safetensors.index.json").write_text("{}")


def map_to(value):
    def damage(directory):
        path = directory / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"]["model.norm.weight"] = value
        path.write_text(json.dumps(index))

    return damage


def break_header(directory):
    path = sorted(directory.glob("model-*.safetensors"))[0]
    header = json.dumps({"model.norm.weight": {"dtype": "F32", "shape": None}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (truncate, ValueError, "is truncated: .* bytes of at least"),
        (remove_shard, FileNotFoundError, "model-00002-of-.* is absent though .*index.json names"),
        (name_another_tensor, ValueError, "has no lm_head.wait though .*index.json lists it"),
        (remove_weights, FileNotFoundError, "has neither model.safetensors nor"),
        (leave_lfs_pointer, ValueError, "truncated or not a safetensors file: copy it again"),
        (drop_config, FileNotFoundError, "config.json is absent: give the directory"),
        (break_config, ValueError, "config.json is not JSON"),
        (shrink_config, ValueError, "config.json is not a JSON object"),
        (drop_weight_map, ValueError, "index.json has no weight_map"),
        (map_to(None), ValueError, "index.json: weight_map has null for model.norm.weight, not"),
        (map_to(7), ValueError, "weight_map has 7 for model.norm.weight, not the name of a file"),
        (map_to(""), ValueError, 'weight_map has "" for model.norm.weight'),
        (break_header, ValueError, "the header of model.norm.weight cannot be read: copy it"),
    ],
)
def test_damaged_directory_is_refused_in_one_line(tmp_path, damage, error, message):
    directory = tmp_path / "model"
    save_huggingface(directory, CONFIG, random_params(CONFIG), max_shard_bytes=200_000)
    damage(directory)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message) as raised:
        load_huggingface(directory)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_unsupported_dtype_is_named(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = np.ones(CONFIG.hidden_size, np.int8)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="model.norm.weight has dtype I8, .* unquantised"):
        load_huggingface(saved)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("axes", [None, {"fsdp": 2, "tensor": 2, "data": 2}])
def test_values_that_are_not_finite_are_counted(tmp_path, dtype, axes, capsys):
    flat = flatten(random_params(TIED, dtype))
    flat["norm/scale"] = flat["norm/scale"].at[:3].set(np.nan)
    path = "layers/self_attn/q_proj/kernel"
    flat[path] = flat[path].at[1, 0, 0, 0].set(np.inf).at[2, 5].set(-np.inf)
    save_huggingface(tmp_path / "out", TIED, unflatten(flat))
    sharding = Sharding(create_mesh(axes)) if axes else None
    capsys.readouterr()
    load_huggingface(tmp_path / "out", sharding=sharding)
    (line,) = capsys.readouterr().err.splitlines()
    name, layer = np.dtype(dtype).name, "model.layers.{}.self_attn.q_proj.weight"
    assert f"{tmp_path / 'out'}: 68 values are NaN or infinite as {name} (" in line
    assert f"({layer.format(1)}: 1, {layer.format(2)}: 64, model.norm.weight: 3)" in line


def test_a_dtype_that_is_too_narrow_shows(tmp_path, capsys):
    flat = flatten(random_params(TIED))
    flat["norm/scale"] = flat["norm/scale"].at[0].set(1e5)
    save_huggingface(tmp_path / "out", TIED, unflatten(flat))
    load_huggingface(tmp_path / "out")
    assert "infinite" not in capsys.readouterr().err
    load_huggingface(tmp_path / "out", dtype=np.float16)
    assert "1 value is NaN or infinite as float16" in capsys.readouterr().err
