"""What `marco eval` does."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from marco_jax.commands.pairwise_command import compare_answers
from marco_jax.files import write_json
from marco_jax.languages import names_in
from marco_jax.runtime.progress import Progress
from marco_jax.weights.models import create_engine, load_model, read_mesh, run_config


def eval_command(arguments: argparse.Namespace) -> int:
    """Scores a model: the metrics that the training loop reports for the same parameters."""
    from marco_jax.data.load import load_corpus
    from marco_jax.data.run_stores import read_held_out_record
    from marco_jax.evaluation.benchmark_tasks import is_benchmark
    from marco_jax.evaluation.builtin_tasks import named_task
    from marco_jax.evaluation.chat_prompts import Chat
    from marco_jax.evaluation.evaluator import Evaluator
    from marco_jax.evaluation.results import write_results
    from marco_jax.reports.summary import format_results

    if arguments.contamination:
        return _contamination(arguments)
    if arguments.against:
        return compare_answers(arguments)
    if arguments.judge or arguments.input:
        raise ValueError("--judge and --input compare answers: give --against")
    if not arguments.model:
        raise ValueError("--model is missing: a workdir, a checkpoint step or a directory")
    for task in names_in(arguments.tasks or ""):
        # Raises for a misspelt name before the model is loaded.
        named_task(task)
    sharding = read_mesh(arguments.mesh)
    with Progress(f"loading {arguments.model}"):
        loaded = load_model(arguments.model, sharding)
    run = run_config(loaded)
    fields = run.get("evaluation", {})

    def chosen(name: str, default: Any) -> Any:
        given = getattr(arguments, name)
        return fields.get(name, default) if given is None else given

    tasks = names_in(chosen("tasks", "bits_per_byte?,pick_translation?,translation?"))
    names = [named_task(task)[0] for task in tasks]
    benchmarks = any(map(is_benchmark, names))
    corpus = None
    if not all(map(is_benchmark, names)):
        # Where there are benchmarks --data_dir is theirs, and the corpus that of the run.
        given = None if benchmarks else arguments.data_dir
        corpus = load_corpus(
            given or run.get("data", "default"),
            run.get("seed", 0),
            run.get("data_errors", "stop"),
        )
        if not given and loaded.workdir:
            read_held_out_record(corpus, loaded.workdir)
    chat = Chat.of(loaded.tokenizer) if chosen("chat", False) else None
    engine = create_engine(loaded, chat.end_ids if chat else (), sharding)
    with Progress("preparing the tasks"):
        evaluator = Evaluator(
            engine,
            corpus,
            tasks,
            data_dir=chosen("data_dir", "") if benchmarks else "",
            languages=names_in(chosen("languages", "")) or None,
            shots=chosen("shots", None),
            # A run's shots are those of its own tasks; benchmarks have the paper's unless asked.
            benchmark_shots=arguments.shots,
            examples=chosen("examples", None),
            chat=chat,
            max_new_tokens=chosen("max_new_tokens", 0) or None,
        )
    evaluation = evaluator.run(loaded.params)
    write_results(arguments.out, evaluation.results)
    print(format_results(evaluation.results))
    programs = f"{len(engine.programs)} programs, {engine.truncated} inputs cut on the left"
    print(f"{programs}; written to {arguments.out}", file=sys.stderr)
    return 0


def _contamination(arguments: argparse.Namespace) -> int:
    from marco_jax.data.load import load_corpus
    from marco_jax.evaluation.contamination import contamination, format_contamination

    if not (arguments.tasks and arguments.data_dir):
        raise ValueError("--contamination needs --tasks and --data_dir, the benchmarks' files")
    run = run_config(load_model(arguments.model)) if arguments.model else {}
    found = contamination(
        load_corpus(arguments.data or run.get("data", "default"), seed=run.get("seed", 0)),
        names_in(arguments.tasks),
        arguments.data_dir,
        names_in(arguments.languages or "") or None,
        arguments.examples,
    )
    write_json(pathlib.Path(arguments.out), found)
    print(format_contamination(found))
    return 0
