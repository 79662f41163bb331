"""The files of a tokenizer's directory besides its vocabulary, and how transformers is told of it.

A model that is imported, trained and exported keeps its settings, chat template and generation
config on the way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from marco_jax.files import write_bytes

SEPARATOR = "<|endoftext|>"
# Qwen2's special tokens, which follow the 151,643 ordinary ones.
QWEN2_SPECIALS = (SEPARATOR, "<|im_start|>", "<|im_end|>")
QWEN2_IDS = [151_643, 151_644, 151_645]

CONFIG = "tokenizer_config.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"

# For a model of type qwen2, AutoTokenizer of transformers 5 rebuilds Qwen2's tokenizer, whichever
# class tokenizer_config.json names. It takes that class, and tokenizer.json as it is, where the
# config has an `auto_map` and remote code is not trusted; where it is, it loads this module.
MODULE = "tokenization_fast"
_SOURCE = '''"""This directory's tokenizer is what its tokenizer.json says."""

import transformers


class PreTrainedTokenizerFast(transformers.PreTrainedTokenizerFast):
    """Reads tokenizer.json as it is; transformers 4 asks for the name in tokenizer_config.json."""
'''
_AUTO_MAP = {"AutoTokenizer": [None, f"{MODULE}.PreTrainedTokenizerFast"]}
# Said anew by whoever writes a directory.
_OWN_FIELDS = ("tokenizer_class", "auto_map", "chat_template", "backend", "is_local")
_OWN_FIELDS += ("local_files_only", "name_or_path", "tokenizer_file", "transformers_version")


@dataclasses.dataclass(frozen=True)
class Companions:
    """What lies beside a vocabulary.

    Attributes:
        settings: fields of tokenizer_config.json, such as eos_token.
        chat_template: Jinja; where there are several, the one named "default".
        generation: fields of generation_config.json; None where there is none.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chat_template: str | None = None
    generation: Mapping[str, Any] | None = None


def read_companions(directory: str | os.PathLike) -> Companions:
    """What a directory says of its tokenizer.

    Raises:
        ValueError: a file is no JSON object.
    """
    directory = pathlib.Path(directory)
    settings = _read_object(directory / CONFIG) or {}
    settings = {name: value for name, value in settings.items() if name not in _OWN_FIELDS}
    generation = _read_object(directory / GENERATION)
    return Companions(settings, read_chat_template(directory), generation)


def read_chat_template(directory: str | os.PathLike) -> str | None:
    """The template beside a model: chat_template.jinja, or in tokenizer_config.json; else None.

    Of several named ones it is the one named "default".

    Raises:
        ValueError: tokenizer_config.json is no JSON object.
    """
    directory = pathlib.Path(directory)
    if (directory / TEMPLATE).is_file():
        return (directory / TEMPLATE).read_text(encoding="utf-8")
    template = (_read_object(directory / CONFIG) or {}).get("chat_template")
    if isinstance(template, list):
        template = {named["name"]: named["template"] for named in template}.get("default")
    return template


def write_companions(
    directory: pathlib.Path, companions: Companions, separator: str, *, qwen2: bool
) -> None:
    """Writes what stands beside tokenizer.json, so that AutoTokenizer gives the same ids.

    Args:
        directory: created if need be.
        companions: what is carried; `separator` is eos and pad where it does not say.
        separator: the token between documents.
        qwen2: whether the tokenizer is Qwen2's own but for its vocabulary and merges.
    """
    settings = {
        "eos_token": separator,
        "pad_token": separator,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **companions.settings,
        "tokenizer_class": "Qwen2Tokenizer" if qwen2 else "PreTrainedTokenizerFast",
    }
    if companions.chat_template is not None:
        # Here transformers 4 reads it too; not every release of it knows chat_template.jinja.
        settings["chat_template"] = companions.chat_template
    if not qwen2:
        settings["auto_map"] = _AUTO_MAP
        write_bytes(directory / f"{MODULE}.py", _SOURCE.encode())
    write_bytes(directory / CONFIG, _to_json(settings))
    if companions.generation is not None:
        write_bytes(directory / GENERATION, _to_json(companions.generation))


def content_hash(data: bytes) -> str:
    """What tells one tokenizer from another."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _to_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _read_object(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON object: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no JSON object: {type(value).__name__}")
    return value
