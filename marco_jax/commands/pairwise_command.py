"""What `marco eval --against` does: wins, losses and ties on the same prompts."""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Sequence
from typing import Any

from marco_jax.evaluation.chat_prompts import Prompts
from marco_jax.evaluation.input_rows import read_input_rows
from marco_jax.files import as_path, write_json_lines
from marco_jax.languages import names_in
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.weights.models import create_engine, find_model, load_weights, read_mesh

# New tokens of an answer by default.
_NEW_TOKENS = 512
# Fields of a file of answers that may hold them.
_ANSWERS = ("text", "answer", "response", "output", "translation")


def compare_answers(arguments: argparse.Namespace) -> int:
    """Judges a model's answers against another's, in both orders, and writes the outcomes."""
    from marco_jax.evaluation.pairwise import judge_pairs, load_judge, outcome_table
    from marco_jax.evaluation.results import write_results
    from marco_jax.reports.summary import format_results

    _check(arguments)
    judge = load_judge(arguments.judge, arguments.reference)
    sets = _prompt_sets(arguments)
    everything = [row for rows in sets.values() for row in rows]
    ours = _answers(arguments.model, everything, arguments)
    theirs = _answers(arguments.against, everything, arguments)
    verdicts = judge_pairs(judge, everything, ours, theirs, tie_margin=arguments.tie_margin)
    signature = f"against:{arguments.against}|judge:{arguments.judge}|orders:both"
    results, start = [], 0
    for task, rows in sets.items():
        stop = start + len(rows)
        results += outcome_table(rows, verdicts[start:stop], task=task, signature=signature)
        start = stop
    write_results(arguments.out, results)
    if arguments.verdicts:
        found = zip(everything, ours, theirs, verdicts, strict=True)
        lines = [
            {**row, "answer": our, "against": their, **verdict._asdict()}
            for row, our, their, verdict in found
        ]
        write_json_lines(as_path(arguments.verdicts), lines)
    print(format_results(results))
    print(f"{len(everything):,} prompts; written to {arguments.out}", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.model:
        raise ValueError("--model is missing: a model, or a JSONL file of its answers")
    if not arguments.judge:
        raise ValueError("--against needs --judge, a scorer's name or module:function")
    if bool(arguments.input) == bool(arguments.tasks):
        raise ValueError("--against needs prompts: --input or --tasks, one of both")
    if arguments.tie_margin < 0:
        raise ValueError(f"--tie_margin is {arguments.tie_margin}: write 0 or more")


def _prompt_sets(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rows to ask with, by the name of the task that they make."""
    from marco_jax.evaluation.pairwise import TASK

    languages = names_in(arguments.languages or "")
    if arguments.input:
        rows = read_input_rows(arguments.input)
        rows = [row for row in rows if not languages or row.get("language") in languages]
        if arguments.examples:
            rows = _first_of_each(rows, arguments.examples)
        sets = {TASK: rows}
    else:
        tasks = names_in(arguments.tasks)
        sets = {f"{TASK}:{name}": _benchmark_rows(name, languages, arguments) for name in tasks}
    for task, rows in sets.items():
        if not rows:
            raise ValueError(f"{task} has no prompts in {', '.join(languages) or 'any language'}")
    return sets


def _benchmark_rows(
    name: str, languages: Sequence[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """The prompts of a benchmark whose answers are written, with the fields of their records."""
    from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
    from marco_jax.evaluation.benchmarks import prompts

    if not is_benchmark(name):
        raise ValueError(
            f"--tasks: {name!r} is not a benchmark: name one whose answers are written"
        )
    if not arguments.data_dir:
        raise ValueError(f"--data_dir is missing: the folder with the files of {name}")
    task = BenchmarkTask.parse(name)
    if task.format.choices:
        raise ValueError(f"--tasks: {name} ranks options; compare answers that are written")
    form = next(key for key, value in task.benchmark.formats.items() if value is task.format)
    options = {
        "format": form,
        "shots": task.shots if arguments.shots is None else arguments.shots,
        "limit": arguments.examples,
        "split": task.split,
    }
    rows = []
    for language in task.languages(arguments.data_dir, languages or None):
        for prompt in prompts(task.benchmark.name, language, arguments.data_dir, **options):
            reference = {"reference": prompt.references[0]} if prompt.references else {}
            own = {"prompt": prompt.context, "language": language}
            rows.append({**reference, **prompt.fields, **own})
    return rows


def _first_of_each(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """At most `count` rows a language."""
    seen: collections.Counter[Any] = collections.Counter()
    kept = []
    for row in rows:
        seen[row.get("language")] += 1
        if seen[row.get("language")] <= count:
            kept.append(row)
    return kept


def _answers(path: str, rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> list[str]:
    """Greedy answers of a model to rows, or those of a file."""
    if as_path(path).is_file():
        return _read_answers(path, rows)
    from marco_jax.decoding.jobs import BLOCK

    found = find_model(path)
    place = arguments.input or arguments.tasks
    variables = parse_variables(arguments.template_kwargs, "--template_kwargs")
    chat = bool(arguments.chat)
    prompts = Prompts.of(rows, found.tokenizer, place, chat=chat, variables=variables)
    new_tokens = arguments.max_new_tokens or _NEW_TOKENS
    requests = prompts.requests(found.tokenizer, new_tokens)
    sharding, longest = read_mesh(arguments.mesh), found.config.max_position_embeddings
    engine = create_engine(found, prompts.end_ids, sharding, longest)
    params = load_weights(found, sharding)
    texts: list[str] = []
    with Progress(f"answers of {path}", len(rows), "rows") as progress:
        for start in range(0, len(rows), BLOCK):
            block = requests[start : start + BLOCK]
            texts += [answer.text for answer in engine.generate(params, block)]
            progress(len(block))
    return texts


def _read_answers(path: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The answers of a file, of `marco generate` for instance: found by prompt, else by line.

    Raises:
        ValueError: a row has no answer there.
    """
    found, texts = read_input_rows(path, lines=_ANSWERS[0]), []
    for number, row in enumerate(found, 1):
        text = next((row[name] for name in _ANSWERS if isinstance(row.get(name), str)), None)
        if text is None:
            raise ValueError(f"{path}:{number} has no text under {', '.join(_ANSWERS)}")
        texts.append(text)
    keys = [_key(row) for row in found]
    if all(keys):
        by_prompt = dict(zip(keys, texts, strict=True))
        missing = [number for number, row in enumerate(rows, 1) if _key(row) not in by_prompt]
        if missing:
            raise ValueError(f"{path} has no answer to prompt {missing[0]} of {len(rows)}")
        return [by_prompt[_key(row)] for row in rows]
    if len(texts) != len(rows):
        raise ValueError(f"{path} holds {len(texts)} answers to {len(rows)} prompts")
    return texts


def _key(row: dict[str, Any]) -> str:
    """Identifies the prompt of a row; empty for a row without one."""
    asked = row.get("messages", row.get("prompt"))
    return json.dumps(asked, sort_keys=True) if asked else ""
