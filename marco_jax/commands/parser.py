"""Flags of all commands. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from marco_jax.commands.command_examples import examples_of
from marco_jax.commands.flags import (
    comparison_flags,
    counts,
    drafts_flag,
    dtype_flag,
    generation_flags,
    mesh_flag,
    model_flag,
    pairs_flags,
    serving_flags,
    synthetic_flags,
    template_flag,
)
from marco_jax.languages import low_resource

_EXAMPLES = "examples:"
# Adds a command: name, summary, function, and a note if there is one.
Command = Callable[..., argparse.ArgumentParser]


class _Help(argparse.HelpFormatter):
    """Wraps prose and leaves examples as they are, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        prose, mark, examples = text.partition(_EXAMPLES)
        filled = super()._fill_text(prose, width, indent)
        return f"{filled}\n\n{mark}{examples}".strip() if mark else filled


class _Parser(argparse.ArgumentParser):
    """Prints an error in one line; a misspelt flag is reported before a missing one."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        error = self._misspelt() or message
        remedy = "" if error.endswith("?") else f"; {self.prog} --help lists the flags"
        self.exit(2, f"{self.prog}: {error}{remedy}\n")

    def _misspelt(self) -> str:
        flags = [one for one in self._option_string_actions if one.startswith("--")]
        for item in self._given:
            flag = item.partition("=")[0]
            if not item.startswith("--") or flag in ("--", *flags) or flag.startswith("--config."):
                continue
            near = difflib.get_close_matches(flag, flags, 1)
            return f"there is no flag {flag}" + (f"; did you mean {near[0]}?" if near else "")
        return ""


def create_parser() -> argparse.ArgumentParser:
    """The parser of `marco`; `function` of what it returns names the module and its function."""
    parser = _Parser(
        prog="marco",
        description="Multilingual continual pretraining of Qwen2 on TPUs.",
        epilog="MARCO_TRACEBACK=1 prints the traceback behind an error line.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, function: str, note: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_epilog(name, note),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        sub.set_defaults(function=function, parser=sub)
        return sub

    for add in (
        _add_train,
        _add_evaluate,
        _add_generate,
        _add_translate,
        _add_importing,
        _add_export,
        _add_plan,
        _add_curate,
        _add_sweep,
        _add_report,
    ):
        add(command)
    return parser


def _add_train(command: Command) -> None:
    train = command(
        "train",
        "Train with a config file; resumes in its workdir.",
        "train_command.train_command",
        "Any field: --config.steps=100 --config.mixture.override=kk=0.02,ne=0.03. On a CPU the "
        "process keeps freed memory for the next step; MARCO_KEEP_MEMORY=0 gives it back.",
    )
    train.add_argument("--config", required=True, help="a file such as configs/demo.py")
    train.add_argument("--workdir", required=True, help="checkpoints, metrics and reports")
    train.add_argument(
        "--dry_run",
        action="store_true",
        help="check everything, print config, model, mesh, mixture and memory, write nothing",
    )


def _add_evaluate(command: Command) -> None:
    evaluate = command("eval", "Score a model on few-shot tasks.", "eval_command.eval_command")
    model_flag(evaluate, required=False)
    evaluate.add_argument(
        "--tasks",
        help="comma-separated, benchmarks as NAME[:FORMAT][:SHOTS][@SPLIT]; default: those of the "
        "model's run",
    )
    evaluate.add_argument("--languages", help="codes such as kk,ne; default: those of the run")
    evaluate.add_argument("--shots", type=int, help="examples in the prompt; default: the run's")
    evaluate.add_argument(
        "--limit",
        "--examples",
        dest="examples",
        type=int,
        help="items per language and subject; default: the run's, of benchmarks all",
    )
    evaluate.add_argument(
        "--data_dir",
        help="the folder with the benchmarks' files, or without benchmarks the corpus; "
        "default: the run's",
    )
    evaluate.add_argument(
        "--out",
        help="results as JSON; each item's outcomes go beside it, as NAME.items.jsonl.gz. After a "
        "kill the same command continues",
    )
    evaluate.add_argument(
        "--max_seconds",
        type=float,
        default=0.0,
        help="evaluate as many items as there is time for, the same share of every task and "
        "language; default: all",
    )
    evaluate.add_argument(
        "--compare",
        nargs=2,
        metavar="RESULTS.json",
        help="instead of scoring: the differences between two results on the items of both, with "
        "paired standard errors and p-values",
    )
    evaluate.add_argument(
        "--chat",
        action="store_true",
        default=None,
        help="render the prompts of generated answers in the model's chat template; default: as in "
        "the model's run",
    )
    template_flag(evaluate)
    evaluate.add_argument(
        "--max_new_tokens",
        type=int,
        help="of generated answers; default: the run's, else the benchmark's; with --against 512",
    )
    evaluate.add_argument(
        "--contamination",
        action="store_true",
        help="instead of scoring: list benchmark items that occur in a corpus",
    )
    evaluate.add_argument(
        "--data", help="the corpus to search, as config.data; default: that of the model's run"
    )

    drafts_flag(evaluate, None)
    mesh_flag(evaluate)
    comparison_flags(evaluate)


def _add_generate(command: Command) -> None:
    generate = command("generate", "Continue prompts.", "generate_command.generate_command")
    model_flag(generate)
    prompts = generate.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="one prompt; the text goes to standard output")
    prompts.add_argument("--input", help='JSONL of {"prompt": ...} or {"messages": [...]}')
    generate.add_argument(
        "--stop", action="append", default=[], help="end the text before this string"
    )
    generate.add_argument(
        "--chat",
        action="store_true",
        help="render prompts as a user's message in the model's chat template; rows with messages "
        "always use it",
    )
    template_flag(generate)
    generation_flags(
        generate,
        "text",
        "64; with --pairs 512, --template 1024",
        "0 (greedy); with --pairs or --template 1",
    )
    pairs_flags(generate)
    synthetic_flags(generate)


def _add_translate(command: Command) -> None:
    translate = command(
        "translate", "Translate between any two languages.", "generate_command.translate_command"
    )
    model_flag(translate)
    translate.add_argument("--src", required=True, help="language of the texts, such as en")
    translate.add_argument("--tgt", required=True, help="language to translate to, such as kk")
    texts = translate.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", help="one text; its translation goes to standard output")
    texts.add_argument(
        "--input", help='JSONL of {"source": ...}, or a text file with one text per line'
    )
    generation_flags(translate, "translation", "256", "0 (greedy)")


def _add_importing(command: Command) -> None:
    importing = command(
        "import",
        "Hugging Face Qwen2 or Qwen3 -> Orbax checkpoint.",
        "weights_commands.import_command",
        "One tensor is in memory at a time. After a kill the same command continues; a failed "
        "import leaves nothing behind.",
    )
    importing.add_argument("--hf", required=True, help="a Hugging Face directory")
    importing.add_argument("--out", required=True, help="a new directory")
    dtype_flag(importing)
    importing.add_argument(
        "--weights_only",
        action="store_true",
        help="import a directory without its tokenizer; training then needs config.tokenizer.path",
    )
    importing.add_argument(
        "--extend_vocabulary",
        type=int,
        default=0,
        metavar="N",
        help="learn N more pieces for a byte-level BPE tokenizer; each new row starts as the mean "
        "of the rows of its old tokens; OUT/vocabulary.json has the tokens saved",
    )
    importing.add_argument(
        "--languages",
        default=",".join(low_resource()),
        help="with --extend_vocabulary: the languages to learn from; default: the paper's "
        "low-resource ones",
    )
    importing.add_argument(
        "--data", default="default", help="with --extend_vocabulary: the corpus, as config.data"
    )


def _add_export(command: Command) -> None:
    export = command(
        "export", "Any model -> Hugging Face directory.", "weights_commands.export_command"
    )
    model_flag(export)
    export.add_argument("--out", required=True, help="a new directory")
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    export.add_argument(
        "--adapter",
        action="store_true",
        help="of a run with lora.rank: write the adapters alone, for peft; default: merge them",
    )
    export.add_argument(
        "--weights_only", action="store_true", help="write no tokenizer files; the model needs none"
    )
    export.add_argument("--license", help="for the model card, such as apache-2.0")
    export.add_argument("--license_link", help="for the model card: where its text is")
    export.add_argument("--base_model", help="for the model card, such as Qwen/Qwen2-7B")
    dtype_flag(export)


def _add_plan(command: Command) -> None:
    plan = command(
        "plan",
        "Compile a training step for TPUs without TPUs, and report.",
        "study_commands.plan_command",
    )
    plan.add_argument("--config", required=True, help="a file such as configs/qwen2_7b.py")
    plan.add_argument("--topology", help="such as v5p:4x4x4; default: config.topology")
    plan.add_argument("--num_slices", type=int, help="default: config.mesh.num_slices")
    plan.add_argument("--out", help="the numbers as JSON")
    plan.add_argument("--hlo", help="the step's optimized HLO text")
    plan.add_argument(
        "--only",
        default="train,score,prefill,decode",
        help="which programs: some of train,score,prefill,decode; default: all",
    )
    plan.add_argument("--compare", metavar="CONFIG", help="a second config, side by side")
    plan.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="search mesh, batch and remat: compile the N most promising, report the best",
    )
    plan.add_argument(
        "--search_sequences",
        type=counts,
        metavar="N,N",
        default=(1, 2, 4, 8, 16),
        help="values of batch.sequences_per_chip to search; tokens per step change with it",
    )


def _add_curate(command: Command) -> None:
    curate = command(
        "curate",
        "Raw text -> a corpus for training, on Apache Beam.",
        "curate_command.curate_command",
    )
    curate.add_argument(
        "--input",
        required=True,
        help="JSONL (.gz, .zst), WARC, WET, Parquet, text, pairs as xx-yy.tsv; globs",
    )
    curate.add_argument("--out", required=True, help="a new directory, for config.data of `train`")
    curate.add_argument("--config", required=True, help="a file such as configs/curation.py")
    curate.add_argument("--runner", default="local", help="local, dask, or a Beam runner's name")
    curate.add_argument(
        "--runner_options",
        default="",
        metavar="'--NAME=VALUE ...'",
        help="options of that runner, e.g. '--dask_client_address=tcp://HOST:8786'",
    )
    curate.add_argument("--workers", type=int, default=1, help="processes of the local runner")
    curate.add_argument("--rejects", help="a new directory for rejected documents and the reasons")
    curate.add_argument(
        "--sample",
        type=int,
        default=0,
        metavar="N",
        help="sample texts per reason in the report",
    )
    curate.add_argument("--explain", metavar="ID", help="print what happened to one document")


def _add_sweep(command: Command) -> None:
    sweep = command(
        "sweep",
        "Ablate a mixture: proxy runs, a fit, and a proposal.",
        "study_commands.sweep_command",
    )
    sweep.add_argument("--config", required=True, help="a file such as configs/mixture_ablation.py")
    sweep.add_argument("--workdir", required=True, help="runs, metrics and the report; resumes")
    sweep.add_argument(
        "--dry_run", action="store_true", help="print what would run and what it costs"
    )


def _add_report(command: Command) -> None:
    report = command(
        "report", "One HTML page of a run, and its metrics.", "study_commands.report_command"
    )
    which = report.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", help="of the run; its page is report.html inside")
    which.add_argument(
        "--compare", nargs="+", metavar="WORKDIR", help="two to eight runs, side by side in --out"
    )
    which.add_argument(
        "--serve",
        nargs="+",
        metavar="FOLDER",
        help="serve live pages of workdirs, or of all runs below folders, until Ctrl+C",
    )
    report.add_argument("--out", help="with --compare: the page; default: comparison.html")
    serving_flags(report)


def _epilog(command: str, note: str) -> str:
    """A note, and the command's examples with their purposes."""
    lines = [note, _EXAMPLES]
    for example in examples_of(command):
        needs = f" (needs {example.needs})" if example.needs else ""
        lines += [f"  # {example.purpose}{needs}", f"  {example.line}"]
    return "\n".join(lines)
