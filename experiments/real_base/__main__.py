"""Does the paper's claim hold for a published Qwen2.5-0.5B, at a size that a CPU can train?

    python -m experiments.real_base --init_from=QWEN2_5_0_5B --data=CORPUS --benchmarks=BENCHMARKS \
        --workdir=runs/real_base --device=cpu

Asks the base for bits per byte, XCOPA, translations and Belebele; continues it in two arms of the
same tokens, Marco-LLM's two stages and low-resource text alone; asks each again, and compares item
by item. Every part is a `marco` command that is logged, is not run again where its result is there,
and goes on after a kill where it was. With --minutes the study stops itself, and the same command
goes on. Tables: WORKDIR/tables.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from experiments import parse_overrides
from experiments.real_base import commands, tables
from experiments.real_base.commands import ALONE, BASE, PAIRED, Paths, Question
from marco_jax.files import write_text
from marco_jax.runtime.logs import configure_logging

_log = logging.getLogger(__name__)

DONE, BAD_INPUT, STOPPED = 0, 2, 143
PARTS = (BASE, "arms", "knowledge")
_NAMES = tuple(question.name for question in PAIRED)
# A run that is stopped saves its state first.
_GRACE = 600


def plan(
    paths: Paths,
    parts: Sequence[str],
    device: str,
    seeds: int,
    fields: list[str],
    questions: Sequence[Question] = PAIRED,
) -> Iterator[tuple[list[str], pathlib.Path]]:
    """The commands in order, each with the file or folder that shows that it is done.

    `questions` are asked of the base and of each arm.
    """
    if BASE in parts:
        for question in questions:
            yield commands.ask(paths, BASE, question), paths.results(BASE, question)
    if "arms" in parts:
        for arm in commands.arm_names(seeds):
            yield commands.train(paths, arm, device, fields)
            for question in questions:
                yield commands.ask(paths, arm, question), paths.results(arm, question)
                found = paths.difference(arm, question)
                yield commands.compare(paths, arm, question), found
    if "knowledge" in parts:
        for question in ALONE:
            yield commands.ask(paths, BASE, question), paths.results(BASE, question)


def run(command: Sequence[str], until: float) -> int:
    """Runs a `marco` command until it ends, or tells it to save and stop at the time `until`."""
    _log.info(f"marco {shlex.join(command)}")
    process = subprocess.Popen([sys.executable, "-m", "marco_jax", *command])
    try:
        return process.wait(max(0.0, until - time.monotonic()) if until else None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait(_GRACE)
        return STOPPED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is left of the study and writes its tables; returns the exit code."""
    configure_logging()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_base",
        description=__doc__.partition("\n")[0],
        epilog="Any field of the arms: --config.steps=10",
    )
    parser.add_argument("--init_from", required=True, help="a Hugging Face directory")
    parser.add_argument("--data", required=True, help="the corpus, as config.data")
    parser.add_argument("--benchmarks", required=True, help="a folder with XCOPA, Belebele, ...")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--device", default="cpu", choices=commands.DEVICES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--questions", default=",".join(_NAMES), help=f"of {', '.join(_NAMES)}")
    parser.add_argument(
        "--items", type=int, default=0, help="most of a language; 0: each question's"
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="0: without limit")
    given, fields = parse_overrides(parser, argv)
    parts = given.parts.split(",")
    asked = given.questions.split(",")
    for flag, names, known in (("parts", parts, PARTS), ("questions", asked, _NAMES)):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"--{flag} names {unknown[0]!r}: choose of {', '.join(known)}")
    for flag in ("init_from", "benchmarks"):
        if not pathlib.Path(getattr(given, flag)).is_dir():
            parser.error(f"--{flag} is {getattr(given, flag)!r}, which is not a directory")
    until = time.monotonic() + 60 * given.minutes if given.minutes else 0.0
    paths = Paths(given.init_from, given.data, given.benchmarks, given.workdir)
    questions = [
        dataclasses.replace(question, items=min(given.items or question.items, question.items))
        for question in PAIRED
        if question.name in asked
    ]
    steps = plan(paths, parts, given.device, given.seeds, fields, questions)
    code = _run_all(steps, until)
    text = tables.markdown(paths, commands.arm_names(given.seeds))
    write_text(given.workdir / "tables.md", text)
    print(text)
    return code


def _run_all(steps: Iterator[tuple[list[str], pathlib.Path]], until: float) -> int:
    for command, done in steps:
        if done.exists():
            continue
        done.parent.mkdir(parents=True, exist_ok=True)
        if until and time.monotonic() > until:
            return STOPPED
        code = run(command, until)
        if code != DONE:
            killed = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            _log.error(f"{killed}: marco {command[0]} for {done}; the same command goes on with it")
            return code
    return DONE


if __name__ == "__main__":
    sys.exit(main())
