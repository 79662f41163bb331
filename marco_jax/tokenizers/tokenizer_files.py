"""The files beside a tokenizer's vocabulary: settings, chat template and generation config.

They are read on import and written on export, so that a trained model keeps them. They also make
transformers load the tokenizer with the same ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from marco_jax.files import as_path, read_json_object, write_bytes

EOS_TOKEN = "<|endoftext|>"
# Qwen2's special tokens, which follow its 151,643 ordinary tokens.
QWEN2_SPECIALS = (EOS_TOKEN, "<|im_start|>", "<|im_end|>")
QWEN2_IDS = [151_643, 151_644, 151_645]

CONFIG = "tokenizer_config.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"

# For model_type qwen2, AutoTokenizer of transformers 5 builds Qwen2's tokenizer, whatever class
# tokenizer_config.json names. With an `auto_map` in the config it uses that class and the given
# tokenizer.json; if remote code is trusted, it loads this module instead, to the same effect.
MODULE = "tokenization_fast"
_SOURCE = '''"""Loads the tokenizer.json of this directory."""

import transformers


class PreTrainedTokenizerFast(transformers.PreTrainedTokenizerFast):
    """transformers' class under the name that tokenizer_config.json has for transformers 4."""
'''
_AUTO_MAP = {"AutoTokenizer": [None, f"{MODULE}.PreTrainedTokenizerFast"]}
# Fields that are written anew for each directory, or dropped.
_OWN_FIELDS = ("tokenizer_class", "auto_map", "chat_template", "backend", "is_local")
_OWN_FIELDS += ("local_files_only", "name_or_path", "tokenizer_file", "transformers_version")


@dataclasses.dataclass(frozen=True)
class Companions:
    """The content of the files beside a vocabulary.

    Attributes:
        settings: fields of tokenizer_config.json, such as eos_token.
        chat_template: Jinja; of several templates, the one named "default".
        generation: fields of generation_config.json; None without the file.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chat_template: str | None = None
    generation: Mapping[str, Any] | None = None

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer by generation_config.json, its one or several eos_token_id.

        An instructed Qwen2 has <|im_end|> and <|endoftext|>, a base model <|endoftext|> alone.

        Raises:
            ValueError: eos_token_id is neither an id nor a list of ids.
        """
        found = (self.generation or {}).get("eos_token_id")
        ids = [] if found is None else found if isinstance(found, list) else [found]
        if not all(type(one) is int for one in ids):
            raise ValueError(
                f"eos_token_id of {GENERATION} is {found!r}: give a token id or a list"
            )
        return tuple(ids)


def read_companions(directory: str | os.PathLike) -> Companions:
    """Reads the files beside a directory's vocabulary.

    Raises:
        ValueError: a file is not a JSON object.
    """
    directory = as_path(directory)
    settings = _read_object(directory / CONFIG) or {}
    settings = {name: value for name, value in settings.items() if name not in _OWN_FIELDS}
    generation = _read_object(directory / GENERATION)
    return Companions(settings, read_chat_template(directory), generation)


def read_chat_template(directory: str | os.PathLike) -> str | None:
    """Reads a chat template from chat_template.jinja or tokenizer_config.json; None without one.

    Of several named templates it is the one named "default".

    Raises:
        ValueError: tokenizer_config.json is not a JSON object.
    """
    directory = as_path(directory)
    if (directory / TEMPLATE).is_file():
        return (directory / TEMPLATE).read_text(encoding="utf-8")
    template = (_read_object(directory / CONFIG) or {}).get("chat_template")
    if isinstance(template, list):
        template = {named["name"]: named["template"] for named in template}.get("default")
    return template


def write_companions(
    directory: pathlib.Path, companions: Companions, eos_token: str, *, qwen2: bool
) -> None:
    """Writes the files beside tokenizer.json, so that AutoTokenizer gives the same ids.

    The companions' settings take precedence over the defaults. `qwen2` is whether the tokenizer
    equals Qwen2's except for its vocabulary and merges.
    """
    settings = {
        "eos_token": eos_token,
        "pad_token": eos_token,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **companions.settings,
        "tokenizer_class": "Qwen2Tokenizer" if qwen2 else "PreTrainedTokenizerFast",
    }
    if companions.chat_template is not None:
        # Not every release of transformers 4 reads chat_template.jinja.
        settings["chat_template"] = companions.chat_template
    if not qwen2:
        settings["auto_map"] = _AUTO_MAP
        write_bytes(directory / f"{MODULE}.py", _SOURCE.encode())
    write_bytes(directory / CONFIG, _to_json(settings))
    if companions.generation is not None:
        write_bytes(directory / GENERATION, _to_json(companions.generation))


def content_hash(data: bytes) -> str:
    """A hash that identifies a tokenizer."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _to_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _read_object(path: pathlib.Path) -> dict[str, Any] | None:
    return read_json_object(path) if path.is_file() else None
