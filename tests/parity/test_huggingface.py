"""Directories that transformers writes are read, and those that we write load in transformers."""

import dataclasses
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from marco_jax.model.parameters import flatten
from marco_jax.model.qwen2_config import PRESETS, Qwen2Config
from marco_jax.weights.huggingface import load_huggingface, read_config, save_huggingface

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def all_tensors(directory):
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def load_without_warnings(directory, capfd, caplog):
    """Loads as a user would; whatever transformers says of the weights fails the test."""
    # transformers' logger keeps its records from pytest unless it propagates.
    transformers.logging.enable_propagation()
    capfd.readouterr()
    with caplog.at_level("WARNING"):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            directory, output_loading_info=True
        )
    transformers.logging.disable_propagation()
    problems = {name: value for name, value in info.items() if value}
    said = [record.message for record in caplog.records if record.name.startswith("transformers")]
    printed = [
        line for line in capfd.readouterr().err.splitlines() if "Loading weights" not in line
    ]
    assert (problems, said, [line for line in printed if line.strip()]) == ({}, [], [])
    return model.eval()


def test_export_of_an_import_is_bit_exact(qwen2_directory, tmp_path):
    config, params = load_huggingface(qwen2_directory)
    save_huggingface(tmp_path / "out", config, params)
    before, after = all_tensors(qwen2_directory), all_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        np.testing.assert_array_equal(tensor, after[name], err_msg=name)


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 300_000])
def test_export_loads_in_transformers(
    qwen2_directory, tmp_path, load_torch, torch_logits, capfd, caplog, max_shard_bytes
):
    config, params = load_huggingface(qwen2_directory)
    save_huggingface(tmp_path / "out", config, params, max_shard_bytes=max_shard_bytes)
    model = load_without_warnings(tmp_path / "out", capfd, caplog)
    assert model.dtype == torch.float32
    assert model.config.rope_parameters["rope_theta"] == 1e6
    tokens = np.arange(40).reshape(2, 20)
    expected = torch_logits(load_torch(qwen2_directory), tokens)
    np.testing.assert_array_equal(torch_logits(model, tokens), expected)


def test_config_keeps_what_the_published_one_says(qwen2_directory, tmp_path):
    config, params = load_huggingface(qwen2_directory)
    save_huggingface(tmp_path / "out", config, params)
    first, second = (
        transformers.AutoConfig.from_pretrained(d).to_dict()
        for d in (qwen2_directory, tmp_path / "out")
    )
    # Token ids belong to a tokenizer and none was given; a window that is not used has no size, and
    # Qwen2.5 has a field for other modalities, which is false.
    ours_to_choose = {
        "bos_token_id",
        "eos_token_id",
        "dtype",
        "max_window_layers",
        "sliding_window",
        "use_mrope",
        "transformers_version",
        "_name_or_path",
    }
    differing = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    assert differing <= ours_to_choose


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_directories(published, make_directory, tmp_path, load_torch, dtype):
    """A 16-bit checkpoint keeps its type and its bits, there and back."""
    source = make_directory(published["72B"])
    model = load_torch(source).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "half", max_shard_size="200KB")
    assert (tmp_path / "half/model.safetensors.index.json").exists()
    config, params = load_huggingface(tmp_path / "half")
    assert params["norm"]["scale"].dtype == dtype
    save_huggingface(tmp_path / "out", config, params)
    before, after = all_tensors(tmp_path / "half"), all_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name], err_msg=name)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").dtype == getattr(torch, dtype)


def test_bfloat16_export_rounds_as_torch_does(published, make_directory, tmp_path, load_torch):
    source = make_directory(published["0.5B"])
    config, params = load_huggingface(source)
    save_huggingface(tmp_path / "out", config, params, dtype=ml_dtypes.bfloat16)
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert exported.dtype == torch.bfloat16
    expected = load_torch(source).to(torch.bfloat16).state_dict()
    for name, tensor in exported.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_generation_stops_at_the_exported_separator(published, make_directory, tmp_path):
    class Tokenizer:
        vocab_size = 260
        eos_id = 5

        def save(self, directory):
            """No files: the ids are what is tested."""

    config, params = load_huggingface(make_directory(published["0.5B"]))
    save_huggingface(tmp_path / "out", config, params, Tokenizer())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    generation = model.generation_config
    ids = (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id)
    assert ids == (5, 5, 5)
    assert not generation.do_sample


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_through_transformers_and_back_is_bit_exact(qwen2_directory, tmp_path, dtype):
    """Export -> transformers -> save_pretrained -> import."""
    config, params = load_huggingface(qwen2_directory)
    save_huggingface(tmp_path / "out", config, params, dtype=np.dtype(dtype))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == getattr(torch, dtype)
    model.save_pretrained(tmp_path / "saved", max_shard_size="300KB")
    again, found = load_huggingface(tmp_path / "saved")
    assert again == config
    found = flatten(found)
    for path, array in flatten(load_huggingface(tmp_path / "out")[1]).items():
        assert found[path].dtype == dtype
        np.testing.assert_array_equal(np.asarray(found[path]), np.asarray(array), err_msg=path)


def test_buffers_of_older_versions_are_passed_over(qwen2_directory, tmp_path):
    shutil.copytree(qwen2_directory, tmp_path / "hf")
    path = tmp_path / "hf/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(tensors, path, {"format": "pt"})
    _, params = load_huggingface(tmp_path / "hf")
    assert flatten(params).keys() == flatten(load_huggingface(qwen2_directory)[1]).keys()


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_absent_fields_mean_what_they_mean_in_transformers(tmp_path, model_type):
    sizes = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 1}
    fields = {"model_type": model_type, "num_attention_heads": 32, **sizes}
    for changes in ({}, {"num_key_value_heads": None}, {"rope_scaling": None}, {"rope_theta": 5}):
        (tmp_path / "config.json").write_text(json.dumps(fields | changes))
        theirs, ours = transformers.AutoConfig.from_pretrained(tmp_path), read_config(tmp_path)
        for name in (
            *("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "initializer_range"),
            "max_position_embeddings",
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
        head_dim = getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
        assert ours.head_dim == head_dim


def test_a_preset_of_qwen3_has_the_published_fields(published):
    """Those besides the sizes, which are smaller here."""
    config = Qwen2Config.from_huggingface(published["3-0.6B"])
    preset = PRESETS["qwen3_0_6b"]
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")
    same = {name: getattr(preset, name) for name in sizes}
    assert dataclasses.replace(config, **same) == preset


def test_llama_directory_is_refused(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    assert json.loads((tmp_path / "llama/config.json").read_text())["model_type"] == "llama"
    with pytest.raises(ValueError, match="model_type is 'llama': only qwen2") as error:
        load_huggingface(tmp_path / "llama")
    assert "\n" not in str(error.value)
