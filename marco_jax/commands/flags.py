"""Flags that several commands have, and groups of flags that belong together."""

from __future__ import annotations

import argparse

from marco_jax.files import check_path, check_writable

# Flags that hold paths; --compare holds several of `report` and a config of `plan`.
_PATHS = (
    *("workdir", "model", "against", "hf", "config", "compare", "serve", "template"),
    *("input", "data", "data_dir", "out", "rejects", "verdicts", "hlo"),
)
# Commands whose --out is a file; that of the others is a folder.
_OUT_IS_A_FILE = ("eval", "generate", "translate", "plan", "report")


def check_path_flags(arguments: argparse.Namespace) -> None:
    """Refuses paths that cannot be used, before anything is created.

    Raises:
        ValueError: a URL of a hub or a web server.
        OSError: an output that cannot be written.
    """
    # Beam reads and writes object stores, and checks the paths itself.
    beam = ("input", "out", "rejects") if arguments.command == "curate" else ()
    for name in _PATHS:
        value = getattr(arguments, name, None) if name not in beam else None
        for path in value if isinstance(value, list) else [value]:
            if path:
                check_path(f"--{name}", path)
    for name in ("workdir", "out", "rejects", "verdicts", "hlo"):
        path = getattr(arguments, name, None)
        if path and not (name in beam and "://" in path):
            is_out_file = name == "out" and arguments.command in _OUT_IS_A_FILE
            check_writable(f"--{name}", path, file=is_out_file or name in ("verdicts", "hlo"))


def generation_flags(
    parser: argparse.ArgumentParser, field: str, max_new_tokens: str, temperature: str
) -> None:
    """Flags of generation."""
    parser.add_argument(
        "--out",
        help=f"JSONL with the field `{field}` added (with --input); an interrupted job continues",
    )
    mesh_flag(parser)
    parser.add_argument("--max_new_tokens", type=int, help=f"default: {max_new_tokens}")
    parser.add_argument("--temperature", type=float, help=f"default: {temperature}")
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    drafts_flag(parser)
    parser.add_argument("--beams", type=int, default=1, help="2 or more: beam search")
    parser.add_argument(
        "--length_penalty",
        type=float,
        default=1.0,
        help="of beam search: scores are divided by length to this power; more favours length",
    )


def drafts_flag(parser: argparse.ArgumentParser, default: int | None = 0) -> None:
    """The flag of speculative decoding."""
    parser.add_argument(
        "--drafts",
        type=int,
        default=default,
        metavar="N",
        help="speculative decoding: each step also reads N tokens looked up in the text so far, "
        "and keeps the right ones; answers are the same; default: 0"
        + (" or the run's" if default is None else ""),
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
    against.add_argument(
        "--against",
        metavar="MODEL|ANSWERS.jsonl",
        help="another model, or a file of answers (of `marco generate`); with it, --model may be "
        "such a file, too",
    )
    against.add_argument(
        "--input", help='JSONL of {"prompt": ...} or {"messages": [...]}, each with its "language"'
    )
    against.add_argument(
        "--judge",
        help="a scorer as of `marco generate --pairs`, or module:function or file.py:function, "
        "called with rows, first and second answers; it returns a number each, above 0 where the "
        "first is better, below 0 where the second is",
    )
    against.add_argument(
        "--reference", default="reference", metavar="FIELD", help="field with the right answer"
    )
    against.add_argument(
        "--tie_margin", type=float, default=0.0, help="judgements up to this are ties; default: 0"
    )
    against.add_argument("--verdicts", metavar="FILE", help="answers and verdicts as JSONL")


def template_flag(parser: argparse.ArgumentParser) -> None:
    """The flag with further variables of the chat template."""
    parser.add_argument(
        "--template_kwargs",
        default="",
        metavar="JSON",
        help="variables of the chat template, such as '{\"enable_thinking\": false}'; default: "
        "those that the model was trained with",
    )


def mesh_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that splits a model over several devices."""
    parser.add_argument(
        "--mesh",
        metavar="AXIS=N,..",
        help="split the model over all devices, such as fsdp=2,tensor=4; default: one device",
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
    pairs.add_argument("--pairs", action="store_true", help="write pairs instead of texts")
    pairs.add_argument(
        "--samples", type=int, default=8, metavar="N", help="answers drawn per prompt"
    )
    pairs.add_argument(
        "--scorer",
        help="chrf or chrf++ (against --reference), language (1 in the row's language), "
        "instructions (share of Marco-Bench-MIF's that are followed), or "
        "module:function or file.py:function, called with rows and answers, which returns a "
        "number each",
    )
    pairs.add_argument(
        "--reference",
        default="reference",
        metavar="FIELD",
        help="field with the right answer; messages that end with the assistant's bring their own; "
        "default: reference",
    )
    pairs.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="least difference of scores that makes a pair; default: any",
    )


def synthetic_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of synthetic documents."""
    synthetic = parser.add_argument_group(
        "synthetic documents",
        "Fill a template with the fields of each row of --input, and write documents as the field "
        '"text": files that a source of kind "synthetic" reads. With --chat the prompt is a '
        "user's message.",
    )
    synthetic.add_argument(
        "--template",
        metavar="NAME|FILE",
        help="keyword_explanation (role_1, role_2, subject, keywords), keyword_story (those and "
        "type_passage, scene, style, ending, min_length, max_length, language), sample_generator "
        "(samples, a list), the paper's families; or a text file with {fields}",
    )
    synthetic.add_argument(
        "--keep_cut", action="store_true", help="keep documents that --max_new_tokens cut"
    )


def serving_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of a server of pages."""
    serving = parser.add_argument_group("with --serve")
    serving.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to bind; on others than this machine's own readers need the token that is "
        "printed; default: 127.0.0.1",
    )
    serving.add_argument("--port", type=int, default=8600, help="0: a free one; default: 8600")
    serving.add_argument(
        "--token",
        default="",
        help="that readers need; default: MARCO_TOKEN, else a new one where one is needed",
    )
    serving.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two looks; default: 5"
    )


def counts(text: str) -> tuple[int, ...]:
    """Reads "1,2,4"."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of counts such as 1,2,4")
    return counts


def dtype_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of the dtype of written weights."""
    parser.add_argument(
        "--dtype",
        choices=("stored", "bfloat16", "float16", "float32"),
        default="stored",
        help="of the weights that are written; default: their own",
    )


def model_flag(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flag of the model to use."""
    parser.add_argument(
        "--model",
        required=required,
        help="a workdir (newest step), a step inside its checkpoints/, or a Hugging Face directory",
    )
