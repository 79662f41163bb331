"""What each command does. Flags are read here and nowhere below."""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import sys
from typing import Any

from ml_collections import ConfigDict

from marco_jax.comparison_commands import compare
from marco_jax.engines import CountTokens, Perplexity
from marco_jax.generation_commands import generate as generate
from marco_jax.generation_commands import translate as translate
from marco_jax.training.checkpoint import write_json
from marco_jax.training.engines import create_engine as _engine
from marco_jax.training.engines import read_mesh
from marco_jax.training.engines import run_config as _run_config
from marco_jax.training.faults import RunFailed as RunFailed
from marco_jax.training.models import load_model
from marco_jax.training.progress import ByteProgress


def train(arguments: argparse.Namespace) -> int:
    """Trains as a config file says, in a workdir."""
    from marco_jax.training.config import load_config
    from marco_jax.training.processes import join, watch_others

    config = load_config(arguments.config, arguments.overrides)
    host = join(config.distributed)
    from marco_jax.training.loop import train as run

    with watch_others(host):
        return run(config, arguments.workdir)


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores a model: the figures that the training loop reports for the same parameters."""
    from marco_jax.data.load import load_corpus
    from marco_jax.evaluation.benchmark_tasks import is_benchmark
    from marco_jax.evaluation.chat_prompts import Chat
    from marco_jax.evaluation.evaluator import Evaluator
    from marco_jax.evaluation.results import write_results
    from marco_jax.evaluation.summary import format_results

    if arguments.contamination:
        return _contamination(arguments)
    if arguments.against:
        return compare(arguments)
    if arguments.judge or arguments.input:
        raise ValueError("--judge and --input compare answers: give --against")
    if not arguments.model:
        raise ValueError("--model is missing: a workdir, a checkpoint step or a directory")
    sharding = read_mesh(arguments.mesh)
    loaded = load_model(arguments.model, sharding)
    run = _run_config(loaded)
    fields = run.get("evaluation", {})

    def chosen(name: str, default: Any) -> Any:
        given = getattr(arguments, name)
        return fields.get(name, default) if given is None else given

    tasks = _names(chosen("tasks", "bits_per_byte,pick_translation,translation"))
    benchmarks = any(map(is_benchmark, tasks))
    corpus = None
    if not all(map(is_benchmark, tasks)):
        # Where there are benchmarks --data_dir is theirs, and the corpus that of the run.
        given = None if benchmarks else arguments.data_dir
        corpus = load_corpus(given or run.get("data", "default"), seed=run.get("seed", 0))
    chat = Chat.of(loaded.tokenizer) if arguments.chat else None
    engine = _engine(loaded, run, chat.end_ids if chat else (), sharding)
    evaluator = Evaluator(
        engine,
        corpus,
        tasks,
        data_dir=chosen("data_dir", "") if benchmarks else "",
        languages=_names(chosen("languages", "")) or None,
        shots=chosen("shots", None),
        # A run's shots are those of its own tasks; benchmarks have the paper's unless asked.
        benchmark_shots=arguments.shots,
        examples=chosen("examples", None),
        chat=chat,
        max_new_tokens=arguments.max_new_tokens,
    )
    evaluation = evaluator.run(loaded.params)
    write_results(arguments.out, evaluation.results)
    print(format_results(evaluation.results))
    programs = f"{len(engine.programs)} programs, {engine.truncated} inputs cut on the left"
    print(f"{programs}; written to {arguments.out}", file=sys.stderr)
    return 0


def import_model(arguments: argparse.Namespace) -> int:
    """Turns a Hugging Face directory into a checkpoint."""
    from marco_jax.training.interop import import_huggingface

    extension, files = None, {}
    if arguments.extend_vocabulary:
        from marco_jax.extension import format_fertility
        from marco_jax.training.extend import learn_extension

        languages = _names(arguments.languages)
        extension, files["vocabulary.json"] = learn_extension(
            arguments.hf, arguments.extend_vocabulary, languages, arguments.data
        )
        print(format_fertility(files["vocabulary.json"]["fertility"]))
    config, progress = import_huggingface(
        *(arguments.hf, arguments.out),
        dtype=_weights_dtype(arguments.dtype),
        extension=extension,
        files=files,
    )
    millions = config.num_parameters / 1e6
    print(
        f"{arguments.out}: {millions:,.1f} million parameters from {arguments.hf}, "
        f"{_describe_copy(progress)}"
    )
    return 0


def export_model(arguments: argparse.Namespace) -> int:
    """Writes a model as a Hugging Face directory."""
    from marco_jax.evaluation.model_card import Terms
    from marco_jax.training.interop import export_model as export
    from marco_jax.training.models import find_model
    from marco_jax.training.stored_weights import export_peft

    if arguments.adapter:
        found = find_model(arguments.model)
        size = export_peft(found, arguments.out, overwrite=arguments.overwrite)
        print(
            f"{arguments.out}: PEFT adapters of rank {found.lora.rank} from {arguments.model}, "
            f"step {found.step}, {size / 1e6:,.1f} MB; their base is {found.base.directory}"
        )
        return 0
    found, progress = export(
        arguments.model,
        arguments.out,
        dtype=_weights_dtype(arguments.dtype),
        terms=Terms.from_fields(vars(arguments)),
        overwrite=arguments.overwrite,
    )
    step = "" if found.step is None else f", step {found.step}"
    print(
        f"{arguments.out}: Qwen2ForCausalLM from {arguments.model}{step}, "
        f"{_describe_copy(progress)}"
    )
    return 0


def _weights_dtype(name: str) -> Any:
    """The numpy dtype of a flag; None for "stored"."""
    import ml_dtypes
    import numpy as np

    kinds = {"stored": None, "float32": np.float32, "float16": np.float16}
    return (kinds | {"bfloat16": ml_dtypes.bfloat16})[name]


def _describe_copy(progress: ByteProgress) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (
        f"{progress.done / 1e9:,.2f} GB in {progress.seconds:,.0f} s "
        f"({progress.rate / 1e6:,.0f} MB/s), peak memory {peak / 2**30:.2f} GiB"
    )


def plan(arguments: argparse.Namespace) -> int:
    """Compiles a training step for a TPU topology and reports what it takes."""
    # The machine that plans need not be the one that runs: no TPU is started.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from marco_jax.training.config import ConfigError, load_config
    from marco_jax.training.plan import DoesNotFit, plan_step
    from marco_jax.training.plan_decoding import KERNELS, plan_kernels
    from marco_jax.training.plan_text import format_comparison, format_plan
    from marco_jax.training.search import format_search, search

    def load(path: str) -> tuple[ConfigDict, str]:
        config = load_config(path, arguments.overrides)
        if arguments.num_slices is not None:
            config.mesh.num_slices = arguments.num_slices
        if not (arguments.topology or config.topology):
            raise ConfigError(f"{path} has no config.topology: give --topology=v5p:4x4x4")
        return config, arguments.topology or config.topology

    hlo = pathlib.Path(arguments.hlo) if arguments.hlo else None
    try:
        if arguments.search:
            found = search(
                *load(arguments.config),
                compiles=arguments.search,
                sequences=arguments.search_sequences,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
            text = format_search(found)
        elif arguments.compare:
            found = [
                plan_step(*load(arguments.config), hlo_path=hlo),
                plan_step(*load(arguments.compare)),
            ]
            text = format_comparison(*found)
        else:
            names = _names(arguments.only)
            if unknown := set(names) - {"train", *KERNELS}:
                known = ", ".join(("train", *KERNELS))
                raise ValueError(f"--only names {unknown.pop()!r}: choose from {known}")
            loaded = load(arguments.config)
            found = plan_step(*loaded, hlo_path=hlo) if "train" in names else {}
            if chosen := [name for name in KERNELS if name in names]:
                found["kernels"] = plan_kernels(*loaded, chosen)
            text = format_plan(found)
    except DoesNotFit as error:
        print(f"marco plan: {error}", file=sys.stderr)
        return 1
    print(text)
    if arguments.out:
        write_json(pathlib.Path(arguments.out), found)
    return 0


def sweep(arguments: argparse.Namespace) -> int:
    """Ablates a mixture: proxy runs, a fit, a proposal and its confirmation."""
    from marco_jax.decoding.compilation import enable_compilation_cache
    from marco_jax.training.config import load_config
    from marco_jax.training.processes import join, watch_others

    config = load_config(arguments.config, arguments.overrides)
    host = join(config.distributed)
    # Runs that differ in their mixture alone compile once.
    enable_compilation_cache()
    from experiments.mixture_ablation.sweep import sweep as run

    with watch_others(host):
        return run(config, arguments.workdir, arguments.config, dry_run=arguments.dry_run)


def report(arguments: argparse.Namespace) -> int:
    """Writes the page of a run and prints its figures."""
    from marco_jax.evaluation.report import format_summary, summary, write_report

    workdir = pathlib.Path(arguments.workdir)
    if not (workdir / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{workdir} holds no metrics.jsonl: give the workdir of a run")
    page = write_report(workdir)
    program = sys.argv[0] if sys.argv[0].endswith("marco") else "python -m marco_jax"
    evaluate_again = f"eval --model={workdir} --languages=kk,ne --out={workdir / 'kk_ne.json'}"
    print(
        f"{format_summary(summary(workdir))}\n\n"
        f"workdir   {workdir}\n"
        f"report    {page}\n"
        f"try next  {program} {evaluate_again}"
    )
    return 0


def _contamination(arguments: argparse.Namespace) -> int:
    from marco_jax.data.load import load_corpus
    from marco_jax.evaluation.contamination import contamination, format_contamination

    if not (arguments.tasks and arguments.data_dir):
        raise ValueError("--contamination needs --tasks and --data_dir, the benchmarks' files")
    run = _run_config(load_model(arguments.model)) if arguments.model else {}
    found = contamination(
        load_corpus(arguments.data or run.get("data", "default"), seed=run.get("seed", 0)),
        _names(arguments.tasks),
        arguments.data_dir,
        _names(arguments.languages or "") or None,
        arguments.examples,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    write_json(pathlib.Path(arguments.out), found)
    print(format_contamination(found))
    return 0


def curate(arguments: argparse.Namespace) -> int:
    """Curates raw text into a corpus."""
    import logging
    import shlex

    # Beam tells at its import of a library of Google's that nothing here needs, and logs a trace
    # of what it raises besides.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    from marco_jax.curation.run import curate as run
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    report = run(
        _names(arguments.input),
        pathlib.Path(arguments.out),
        config,
        runner=arguments.runner,
        options=shlex.split(arguments.runner_options),
        workers=arguments.workers,
        rejects=pathlib.Path(arguments.rejects) if arguments.rejects else None,
        sample=arguments.sample,
        explain=arguments.explain or "",
        perplexity=Perplexity(config.perplexity_model) if config.perplexity_model else None,
        count_tokens=CountTokens(config.tokenizer) if config.tokenizer else None,
    )
    for line in report.get("explained", []):
        print(line)
    total = report["total"]
    print(f"kept {total['kept']:,} of {total['read']:,} documents: {arguments.out}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
