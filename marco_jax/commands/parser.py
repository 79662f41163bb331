"""Flags of all commands. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from marco_jax.commands.command_examples import examples_of
from marco_jax.commands.flags import (
    DTYPE,
    MESH,
    MODEL,
    add_flags,
    comparison_flags,
    generation_flags,
    pairs_flags,
    synthetic_flags,
)
from marco_jax.languages import LOW_RESOURCE

_EXAMPLES = "examples:"
# Adds a command: name, summary, function, a note if there is one, and what `add_flags` takes.
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

    def command(
        name: str, summary: str, function: str, note: str = "", **flags: Any
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_epilog(name, note),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        sub.set_defaults(function=function, parser=sub)
        add_flags(sub, **flags)
        return sub

    _add_train_and_eval(command)
    _add_generate_and_translate(command)
    _add_import_and_export(command)
    _add_studies(command)
    return parser


def _add_train_and_eval(command: Command) -> None:
    command(
        "train",
        "Train as a config file says; resumes in its workdir.",
        "study_commands.train_command",
        "Any field: --config.steps=100 --config.mixture.override=kk=0.02,ne=0.03. On a CPU the "
        "process keeps freed memory for the next step; MARCO_KEEP_MEMORY=0 gives it back.",
        required=("config", "workdir"),
        config="a file such as configs/demo.py",
        workdir="checkpoints, metrics and reports",
        dry_run="check everything, print config, model, mesh, mixture and memory, write nothing",
    )

    evaluate = command(
        "eval",
        "Score a model on few-shot tasks.",
        "eval_command.eval_command",
        required=("out",),
        model=MODEL,
        tasks="comma-separated, benchmarks as NAME[:FORMAT][@SPLIT]; default: those of the "
        "model's run",
        languages="codes such as kk,ne; default: those of the run",
        shots="examples in the prompt; default: the run's",
        examples="items a language and subject; default: the run's, of benchmarks all",
        data_dir="the folder with the benchmarks' files, or without benchmarks the corpus; "
        "default: the run's",
        out="results as JSON",
        chat="render the prompts of generated answers in the model's chat template; default: as in "
        "the model's run",
        max_new_tokens="of generated answers; default: the run's, else the benchmark's; with "
        "--against 512",
        contamination="instead of scoring: list benchmark items that occur in a corpus",
        data="the corpus to search, as config.data; default: that of the model's run",
        mesh=MESH,
    )
    evaluate.set_defaults(chat=None)
    comparison_flags(evaluate)


def _add_generate_and_translate(command: Command) -> None:
    generate = command(
        "generate",
        "Continue prompts.",
        "generate_command.generate_command",
        required=("model",),
        model=MODEL,
    )
    add_flags(
        generate.add_mutually_exclusive_group(required=True),
        prompt="one prompt; the text goes to standard output",
        input='JSONL of {"prompt": ...} or {"messages": [...]}',
    )
    add_flags(
        generate,
        stop="end the text before this string",
        chat="render prompts as a user's message in the model's chat template; rows with messages "
        "always use it",
    )
    generation_flags(
        generate,
        "text",
        "64; with --pairs 512, --template 1024",
        "0 (greedy); with --pairs or --template 1",
    )
    pairs_flags(generate)
    synthetic_flags(generate)

    translate = command(
        "translate",
        "Translate between any two languages.",
        "generate_command.translate_command",
        required=("model", "src", "tgt"),
        model=MODEL,
        src="language of the texts, such as en",
        tgt="language to translate to, such as kk",
    )
    add_flags(
        translate.add_mutually_exclusive_group(required=True),
        text="one text; its translation goes to standard output",
        input='JSONL of {"source": ...}, or a text file, a text a line',
    )
    generation_flags(translate, "translation", "256", "0 (greedy)")


def _add_import_and_export(command: Command) -> None:
    importing = command(
        "import",
        "Hugging Face Qwen2 -> Orbax checkpoint.",
        "weights_commands.import_command",
        "One tensor is in memory at a time. After a kill the same command continues; a failed "
        "import leaves nothing behind.",
        required=("hf", "out"),
        hf="a Hugging Face directory",
        out="a new directory",
        dtype=DTYPE,
        extend_vocabulary="learn N more pieces for a byte-level BPE tokenizer; each new row starts "
        "as the mean of the rows of its old tokens; OUT/vocabulary.json has the tokens saved",
        languages="with --extend_vocabulary: the languages to learn from; default: the paper's "
        "low-resource ones",
        data="with --extend_vocabulary: the corpus, as config.data",
    )
    importing.set_defaults(languages=",".join(LOW_RESOURCE), data="default")

    command(
        "export",
        "Any model -> Hugging Face directory.",
        "weights_commands.export_command",
        required=("model", "out"),
        model=MODEL,
        out="a new directory",
        overwrite="replace an earlier export",
        adapter="of a run with lora.rank: write the adapters alone, for peft; default: merge them",
        license="for the model card, such as apache-2.0",
        license_link="for the model card: where its text is",
        base_model="for the model card, such as Qwen/Qwen2-7B",
        dtype=DTYPE,
    )


def _add_studies(command: Command) -> None:
    plan = command(
        "plan",
        "Compile a training step for TPUs without TPUs, and report.",
        "study_commands.plan_command",
        required=("config",),
        config="a file such as configs/qwen2_7b.py",
        topology="such as v5p:4x4x4; default: config.topology",
        num_slices="default: config.mesh.num_slices",
        out="the numbers as JSON",
        hlo="the step's optimized HLO text",
        only="which programs: some of train,score,prefill,decode; default: all",
    )
    plan.set_defaults(only="train,score,prefill,decode")
    plan.add_argument("--compare", metavar="CONFIG", help="a second config, side by side")
    add_flags(
        plan,
        search="search mesh, batch and remat: compile the N most promising, report the best",
        search_sequences="values of batch.sequences_per_chip to search; tokens per step change "
        "with it",
    )

    curate = command(
        "curate",
        "Raw text -> a corpus for training, on Apache Beam.",
        "curate_command.curate_command",
        required=("input", "out", "config"),
        input="JSONL (.gz, .zst), WARC, WET, Parquet, text, pairs as xx-yy.tsv; globs",
        out="a new directory, for config.data of `train`",
        config="a file such as configs/curation.py",
        runner="local, or a Beam runner's name",
        runner_options="options of that runner, e.g. '--flink_master=HOST:8081'",
        workers="processes of the local runner",
        rejects="a new directory for rejected documents and the reasons",
        sample="sample texts per reason in the report",
        explain="print what happened to one document",
    )
    curate.set_defaults(runner="local")

    command(
        "sweep",
        "Ablate a mixture: proxy runs, a fit, and a proposal.",
        "study_commands.sweep_command",
        required=("config", "workdir"),
        config="a file such as configs/mixture_ablation.py",
        workdir="runs, metrics and the report; resumes",
        dry_run="print what would run and what it costs",
    )

    report = command(
        "report", "One HTML page of a run, and its metrics.", "study_commands.report_command"
    )
    which = report.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", help="of the run; its page is report.html inside")
    which.add_argument(
        "--compare", nargs="+", metavar="WORKDIR", help="two runs or more, side by side in --out"
    )
    report.add_argument("--out", default="comparison.html", help="with --compare: the page")


def _epilog(command: str, note: str) -> str:
    """A note, and the command's examples with their purposes."""
    lines = [note, _EXAMPLES]
    for example in examples_of(command):
        needs = f" (needs {example.needs})" if example.needs else ""
        lines += [f"  # {example.purpose}{needs}", f"  {example.line}"]
    return "\n".join(lines)
