"""Random Hugging Face directories of Qwen2 and Qwen3, and what transformers computes on them."""

import json

import numpy as np
import pytest

# The published config.json files (Qwen/Qwen2-0.5B, -1.5B, -7B, -72B at their first revisions, and
# Qwen/Qwen2.5-3B) with smaller numbers: head counts are as published and so is the ratio of the MLP
# (to a multiple of 8), every other key is as published.
_COMMON = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "model_type": "qwen2",
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.37.2",
    "use_cache": True,
    "use_sliding_window": False,
}
_SIZES = {
    "0.5B": {
        "hidden_size": 112,
        "intermediate_size": 608,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "vocab_size": 260,
    },
    "1.5B": {
        "hidden_size": 96,
        "intermediate_size": 560,
        "max_window_layers": 28,
        "num_attention_heads": 12,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "vocab_size": 260,
    },
    "7B": {
        "hidden_size": 112,
        "intermediate_size": 592,
        "max_window_layers": 28,
        "num_attention_heads": 28,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "vocab_size": 264,
    },
    "72B": {
        "hidden_size": 256,
        "intermediate_size": 928,
        "max_window_layers": 80,
        "num_attention_heads": 64,
        "num_hidden_layers": 2,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "vocab_size": 264,
    },
}
_SIZES["2.5-3B"] = {
    "hidden_size": 128,
    "intermediate_size": 688,
    "max_position_embeddings": 32768,
    "max_window_layers": 36,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "vocab_size": 260,
}
# Likewise of Qwen/Qwen3-0.6B and Qwen3-8B, whose head_dim does not follow from the other sizes.
_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 32,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "sliding_window": None,
    "transformers_version": "4.51.0",
    "vocab_size": 260,
}
_SIZES["3-0.6B"] = _QWEN3 | {
    "hidden_size": 64,
    "intermediate_size": 192,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
_SIZES["3-8B"] = _QWEN3 | {
    "hidden_size": 96,
    "intermediate_size": 288,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
PUBLISHED = {size: _COMMON | fields for size, fields in _SIZES.items()}


def _with_rope_parameters(fields):
    """The same config in the schema of transformers 5."""
    fields = dict(fields)
    theta = fields.pop("rope_theta")
    fields["dtype"] = fields.pop("torch_dtype")
    fields["layer_types"] = ["full_attention"] * fields["num_hidden_layers"]
    return fields | {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


@pytest.fixture(scope="session", autouse=True)
def two_torch_threads():
    """Leaves cores to whatever else runs."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_directory(tmp_path_factory):
    """A function (fields of config.json) -> directory with random float32 weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(fields):
        directory = tmp_path_factory.mktemp("model")
        (directory / "config.json").write_text(json.dumps(fields))
        config = transformers.AutoConfig.from_pretrained(directory)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # transformers starts biases at 0 and norms at 1: a swap of them would not show.
                parameter.normal_(std=0.1)
                if "norm" in name:
                    parameter.add_(1.0)
        model.save_pretrained(directory)
        # save_pretrained rewrites config.json in its own schema: put the published one back.
        (directory / "config.json").write_text(json.dumps(fields, indent=2))
        return directory

    return make


@pytest.fixture(
    scope="session",
    params=[(size, schema) for size in PUBLISHED for schema in (4, 5)],
    ids=lambda param: f"{param[0]}-schema{param[1]}",
)
def qwen2_directory(request, make_directory):
    """A directory for each published size and RoPE schema."""
    size, schema = request.param
    fields = PUBLISHED[size]
    return make_directory(fields if schema == 4 else _with_rope_parameters(fields))


@pytest.fixture(scope="session")
def published():
    """The published config.json files with smaller numbers, by size."""
    return PUBLISHED


@pytest.fixture(scope="session")
def load_torch():
    """A function (directory) -> its model of transformers in float32, in eval mode."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")

    def load(directory):
        return transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32
        ).eval()

    return load


@pytest.fixture(scope="session")
def torch_logits():
    """A function (model, tokens [batch, length], mask, positions) -> float32 logits, numpy."""
    torch = pytest.importorskip("torch")

    def logits(model, tokens, mask=None, positions=None):
        as_tensor = [None if x is None else torch.tensor(np.asarray(x)) for x in (mask, positions)]
        with torch.no_grad():
            out = model(
                torch.tensor(np.asarray(tokens, np.int64)),
                attention_mask=as_tensor[0],
                position_ids=as_tensor[1],
                use_cache=False,
            )
        return out.logits.float().numpy()

    return logits
