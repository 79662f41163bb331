"""What `marco eval` does."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from marco_jax.commands.pairwise_command import compare_answers
from marco_jax.files import as_path, write_json
from marco_jax.languages import names_in
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.weights.models import (
    FoundModel,
    create_engine,
    find_model,
    fingerprint,
    load_model,
    load_weights,
    read_mesh,
    run_config,
)

if TYPE_CHECKING:
    from marco_jax.decoding.engine import Engine
    from marco_jax.evaluation.evaluator import Evaluator
    from marco_jax.model.mesh import Sharding


def eval_command(arguments: argparse.Namespace) -> int:
    """Scores a model: the metrics that the training loop reports for the same parameters.

    With other flags it compares: two results, the answers of two models, or benchmarks and a
    corpus.
    """
    if arguments.compare:
        return _compare(arguments)
    if not arguments.out:
        raise ValueError("--out is missing: a file for the results, such as results.json")
    if arguments.contamination:
        return _contamination(arguments)
    if arguments.against:
        return compare_answers(arguments)
    if arguments.judge or arguments.input:
        raise ValueError("--judge and --input compare answers: give --against")
    if not arguments.model:
        raise ValueError("--model is missing: a workdir, a checkpoint step or a directory")
    if arguments.max_seconds < 0:
        raise ValueError(f"--max_seconds is {arguments.max_seconds:g}: write 0 (no limit) or more")
    return _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    """Evaluates a model and writes the results.

    Finished rounds are kept beside --out until the results are written: the same command goes on
    after a kill, and writes the same files.
    """
    from marco_jax.evaluation.builtin_tasks import named_task
    from marco_jax.evaluation.outcomes import outcomes_path, write_outcomes
    from marco_jax.evaluation.results import write_results
    from marco_jax.reports.summary import format_results

    for task in names_in(arguments.tasks or ""):
        # Raises for a misspelt name before the model is looked for.
        named_task(task)
    out = as_path(arguments.out)
    sharding, model = read_mesh(arguments.mesh), find_model(arguments.model)
    evaluator, engine = _prepare(arguments, model, sharding)
    saved = None
    if not arguments.max_seconds:
        settings = f"{fingerprint(model)} {engine.runtime.dtype} {engine.max_length}"
        saved = evaluator.saved_rounds(out, settings)
    with Progress(f"loading {arguments.model}"):
        params = load_weights(model, sharding)
    evaluation = evaluator.run(params, max_seconds=arguments.max_seconds, saved=saved)
    write_outcomes(outcomes_path(out), evaluation.outcomes, evaluator.shots)
    write_results(out, evaluation.results)
    if saved:
        saved.remove()
    print(format_results(evaluation.results))
    if evaluation.left_out:
        print(evaluation.left_out, file=sys.stderr)
    print(
        f"{len(engine.programs)} programs, {engine.truncated} inputs cut on the left"
        f"{engine.counts.summary()}; written to {arguments.out}",
        file=sys.stderr,
    )
    return 0


def _prepare(
    arguments: argparse.Namespace, model: FoundModel, sharding: Sharding | None
) -> tuple[Evaluator, Engine]:
    """An evaluator of the tasks that flags or the model's run name, and its engine."""
    from marco_jax.data.load import load_corpus
    from marco_jax.data.run_stores import read_held_out_record
    from marco_jax.evaluation.benchmark_tasks import PAPER_SHOTS, configured_shots, is_benchmark
    from marco_jax.evaluation.builtin_tasks import named_task
    from marco_jax.evaluation.chat_prompts import Chat
    from marco_jax.evaluation.evaluator import Evaluator

    run = run_config(model)
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
        if not given and model.workdir:
            read_held_out_record(corpus, model.workdir)
    variables = parse_variables(arguments.template_kwargs, "--template_kwargs")
    chat = Chat.of(model.tokenizer, variables) if chosen("chat", False) else None
    engine = create_engine(
        *(model, chat.end_ids if chat else (), sharding), drafts=chosen("drafts", 0)
    )
    with Progress("preparing the tasks"):
        evaluator = Evaluator(
            engine,
            corpus,
            tasks,
            data_dir=chosen("data_dir", "") if benchmarks else "",
            languages=names_in(chosen("languages", "")) or None,
            shots=chosen("shots", None),
            # --shots holds for both kinds of tasks; a run has a field for each.
            benchmark_shots=configured_shots(fields.get("benchmark_shots", PAPER_SHOTS))
            if arguments.shots is None
            else arguments.shots,
            examples=chosen("examples", None),
            chat=chat,
            max_new_tokens=chosen("max_new_tokens", 0) or None,
        )
    return evaluator, engine


def _compare(arguments: argparse.Namespace) -> int:
    """Compares two files of results item by item."""
    from marco_jax.evaluation.outcomes import find_outcomes
    from marco_jax.evaluation.paired_differences import paired_differences
    from marco_jax.reports.summary import format_differences

    first, second = arguments.compare
    for path in (first, second):
        if not as_path(path).is_file():
            raise ValueError(f"--compare names {path}, which does not exist: give results of eval")
    with Progress(f"comparing {first} and {second}"):
        outcomes = [find_outcomes(path) for path in (first, second)]
        differences = paired_differences(*outcomes)
    if not differences:
        tasks = (", ".join(dict.fromkeys(task for task, _ in one)) for one in outcomes)
        raise ValueError(
            f"--compare: {first} ({next(tasks)}) and {second} ({next(tasks)}) have no items in "
            "common: evaluate the same tasks, under the same names, in the same languages"
        )
    if arguments.out:
        write_json(as_path(arguments.out), [one.to_row() for one in differences])
    names = [pathlib.Path(path).stem for path in (first, second)]
    # Steps of two runs may have the same number.
    print(format_differences(differences, *(names if names[0] != names[1] else (first, second))))
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
    write_json(as_path(arguments.out), found)
    print(format_contamination(found))
    return 0
