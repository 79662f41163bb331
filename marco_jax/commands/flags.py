"""Flags that several commands have, and groups of flags that belong together."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any

from marco_jax.files import check_local, check_writable

# Flags that hold paths; --compare holds several of `report` and a config of `plan`.
_PATHS = (
    *("workdir", "model", "against", "hf", "config", "compare", "template"),
    *("input", "data", "data_dir", "out", "rejects", "verdicts", "hlo"),
)
# Commands whose --out is a file; that of the others is a folder.
_OUT_IS_A_FILE = ("eval", "generate", "translate", "plan", "report")


def check_path_flags(arguments: argparse.Namespace) -> None:
    """Refuses paths that cannot be used, before anything is created.

    Raises:
        ValueError: a path of an object store or a hub.
        OSError: an output that cannot be written.
    """
    for name in _PATHS:
        value = getattr(arguments, name, None)
        for path in value if isinstance(value, list) else [value]:
            if path:
                check_local(f"--{name}", path)
    for name in ("workdir", "out", "rejects", "verdicts", "hlo"):
        if path := getattr(arguments, name, None):
            is_out_file = name == "out" and arguments.command in _OUT_IS_A_FILE
            check_writable(f"--{name}", path, file=is_out_file or name in ("verdicts", "hlo"))


def add_flags(parser: Any, required: Collection[str] = (), **helps: str | None) -> None:
    """Adds flags by name, each with its help text; what they take is in a table of all commands.

    `parser` may be a group of flags.
    """
    for name, text in helps.items():
        options = _OPTIONS.get(name, {}) | ({"required": True} if name in required else {})
        parser.add_argument(*_OTHER_NAMES.get(name, ()), f"--{name}", help=text, **options)


def counts(text: str) -> tuple[int, ...]:
    """Reads "1,2,4"."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of counts such as 1,2,4")
    return counts


_SWITCHES = ("adapter", "chat", "contamination", "dry_run", "keep_cut", "overwrite", "pairs")
# What flags take that do not take a text alone.
_OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_SWITCHES, {"action": "store_true"}),
    "against": {"metavar": "MODEL|ANSWERS.jsonl"},
    "beams": {"type": int, "default": 1},
    "dtype": {"choices": ("stored", "bfloat16", "float16", "float32"), "default": "stored"},
    "examples": {"type": int, "dest": "examples"},
    "explain": {"metavar": "ID"},
    "extend_vocabulary": {"type": int, "default": 0, "metavar": "N"},
    "length_penalty": {"type": float, "default": 1.0},
    "margin": {"type": float, "default": 0.0},
    "max_new_tokens": {"type": int},
    "mesh": {"metavar": "AXIS=N,.."},
    "num_slices": {"type": int},
    "reference": {"default": "reference", "metavar": "FIELD"},
    "runner_options": {"default": "", "metavar": "'--NAME=VALUE ...'"},
    "sample": {"type": int, "default": 0, "metavar": "N"},
    "samples": {"type": int, "default": 8, "metavar": "N"},
    "search": {"type": int, "metavar": "N"},
    "search_sequences": {"type": counts, "metavar": "N,N", "default": (1, 2, 4, 8, 16)},
    "seed": {"type": int, "default": 0},
    "shots": {"type": int},
    "stop": {"action": "append", "default": []},
    "temperature": {"type": float},
    "template": {"metavar": "NAME|FILE"},
    "tie_margin": {"type": float, "default": 0.0},
    "top_k": {"type": int, "default": 0},
    "top_p": {"type": float, "default": 1.0},
    "verdicts": {"metavar": "FILE"},
    "workers": {"type": int, "default": 1},
}
_OTHER_NAMES = {"examples": ("--limit",)}

# Help texts of flags that several commands have.
MODEL = "a workdir (newest step), a step inside its checkpoints/, or a Hugging Face directory"
MESH = "split the model over all devices, such as fsdp=2,tensor=4; default: one device"
DTYPE = "of the weights that are written; default: their own"


def generation_flags(
    parser: argparse.ArgumentParser, field: str, max_new_tokens: str, temperature: str
) -> None:
    """Flags of generation."""
    add_flags(
        parser,
        out=f"JSONL with the field `{field}` added (with --input); an interrupted job continues",
        mesh=MESH,
        max_new_tokens=f"default: {max_new_tokens}",
        temperature=f"default: {temperature}",
        top_k=None,
        top_p=None,
        seed=None,
        beams="2 or more: beam search",
        length_penalty="of beam search: scores are divided by length to this power; more favours "
        "length",
    )


def comparison_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of a comparison of two models."""
    against = parser.add_argument_group(
        "wins, losses and ties",
        "Instead of scoring: answer the same prompts (--input, or --tasks with --data_dir) with "
        "--model and --against, and let a judge compare each pair of answers in both orders; where "
        "the two orders disagree it is a tie. The results have shares by language, their means "
        "over all, high-resource and low-resource languages, and standard errors.",
    )
    add_flags(
        against,
        against="another model, or a file of answers (of `marco generate`); with it, --model may "
        "be such a file, too",
        input='JSONL of {"prompt": ...} or {"messages": [...]}, each with its "language"',
        judge="a scorer as of `marco generate --pairs`, or module:function or file.py:function, "
        "called with rows, first and second answers; it returns a number each, above 0 where the "
        "first is better, below 0 where the second is",
        reference="field with the right answer",
        tie_margin="judgements up to this are ties; default: 0",
        verdicts="answers and verdicts as JSONL",
    )


def pairs_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of preference pairs from the model's own answers."""
    pairs = parser.add_argument_group(
        "preference pairs",
        "Draw several answers to each row of --input in the model's chat template, rank them, and "
        "write the best beside the worst: {prompt, chosen, rejected, chosen_score, rejected_score, "
        'margin} and the row\'s other fields, as sources of kind "preference" read them. Answers '
        "that are empty or reached --max_new_tokens are left out.",
    )
    add_flags(
        pairs,
        pairs="write pairs instead of texts",
        samples="answers drawn a prompt",
        scorer="chrf or chrf++ (against --reference), language (1 in the row's language), "
        "instructions (share of Marco-Bench-MIF's that are followed), or module:function or "
        "file.py:function, called with rows and answers, which returns a number each",
        reference="field with the right answer; messages that end with the assistant's bring "
        "their own; default: reference",
        margin="least difference of scores that makes a pair; default: any",
    )


def synthetic_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of synthetic documents."""
    synthetic = parser.add_argument_group(
        "synthetic documents",
        "Fill a template with the fields of each row of --input, and write documents as the field "
        '"text": files that a source of kind "synthetic" reads. With --chat the prompt is a '
        "user's message.",
    )
    add_flags(
        synthetic,
        template="keyword_explanation (role_1, role_2, subject, keywords), keyword_story (those "
        "and type_passage, scene, style, ending, min_length, max_length, language), "
        "sample_generator (samples, a list), the paper's families; or a text file with {fields}",
        keep_cut="keep documents that --max_new_tokens cut",
    )
