"""`marco train --dry_run`: checks a run and describes it; writes nothing."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import get_mixture, is_mixture_name, mixture_sources
from marco_jax.data.overrides import apply_override
from marco_jax.files import check_space, is_remote, nearest_existing
from marco_jax.languages import names_in
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.planning.memory import device_bytes, device_memory
from marco_jax.planning.planned_model import planned_model
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import TOKENIZER
from marco_jax.training.assemble import check_run, create_sharding, global_rows, keep_batch
from marco_jax.training.checks import (
    check_sources,
    check_start,
    checkpoint_bytes,
    trained_parameters,
)
from marco_jax.training.config import (
    GRPO,
    RunPlan,
    StagePlan,
    changed_fields,
    plan_run,
)
from marco_jax.training.defaults import training_config

_GIB = 2**30


def describe_run(config: ConfigDict, workdir: str) -> str:
    """Checks and describes a run, without loading weights or tokenising data.

    Raises:
        ValueError, OSError: as `marco_jax.training.loop.train`.
    """
    directory = check_start(config, workdir)
    sharding = create_sharding(config)
    keep_batch(config, sharding, directory)
    plan = plan_run(config, global_rows(config, sharding))
    model, _ = planned_model(config, [directory / TOKENIZER], needs_base=True)
    check_run(config, model, sharding)
    check_space(directory, checkpoint_bytes(config, model))
    with Progress(f"reading {config.data}"):
        corpus = load_corpus(config.data, config.seed, config.data_errors)
    check_sources(config, plan.stages, corpus.infos())
    parts = [
        _fields(config),
        _model_lines(config, model, sharding),
        _stage_lines(plan),
        _round_lines(config, plan),
        _mixture_lines(config, plan.stages, corpus),
        _memory_lines(config, model, sharding),
        _disk_lines(config, model, directory),
    ]
    return "\n\n".join(filter(None, ("\n".join(lines) for lines in parts)))


def _fields(config: ConfigDict) -> Iterator[str]:
    changes = changed_fields(training_config().to_dict(), config.to_dict())
    yield f"config: {len(changes)} fields differ from the defaults (default -> this run)"
    yield from (f"  {line}" for line in changes)


def _model_lines(config: ConfigDict, model: Qwen2Config, sharding: Sharding) -> Iterator[str]:
    trained = trained_parameters(config, model)
    start = config.init_from or "random weights"
    yield f"model: {model.num_parameters / 1e6:,.1f} million parameters from {start}"
    if trained != model.num_parameters:
        yield f"  {trained / 1e6:,.1f} million parameters of adapters are trained"
    axes = ", ".join(f"{name} {size}" for name, size in sharding.mesh.shape.items() if size > 1)
    kind = sharding.mesh.devices.flat[0].device_kind
    yield f"mesh: {sharding.mesh.size} x {kind}, {axes or 'one device'}"


def _stage_lines(plan: RunPlan) -> Iterator[str]:
    total = plan.steps * plan.tokens_per_step
    yield f"stages: {plan.steps:,} steps of {plan.tokens_per_step:,} tokens, {total:,} in all"
    for stage in plan.stages:
        yield (
            f"  {stage.name}: {stage.steps:,} steps of mixture {stage.mixture}, learning rate "
            f"{stage.schedule.peak:g} ({stage.schedule.shape}, {stage.schedule.warmup_steps:,} "
            "steps of warm-up)"
        )


def _round_lines(config: ConfigDict, plan: RunPlan) -> Iterator[str]:
    """Of objective "grpo": its rounds, what they sample, and what answers are rewarded with."""
    if config.objective != GRPO:
        return
    fields = config.grpo
    steps = fields.updates * fields.epochs
    rounds = -(-plan.steps // steps)
    yield (
        f"rounds: {rounds:,} of {fields.prompts:,} prompts x {fields.group} answers of at most "
        f"{fields.max_new_tokens:,} tokens, {rounds * fields.prompts * fields.group:,} in all; "
        f"steps a round: {steps}"
    )
    yield f"  rewards: {fields.rewards}; batches are full at most"


def _mixture_lines(
    config: ConfigDict, stages: Sequence[StagePlan], corpus: Corpus
) -> Iterator[str]:
    """The shares of tokens by source, with a column per stage."""
    infos = corpus.infos()
    registered = [s.mixture for s in stages if not is_mixture_name(s.mixture)]
    if registered:
        yield f"mixture: {', '.join(registered)} of SeqIO's registry, looked up before training"
    stages = [stage for stage in stages if is_mixture_name(stage.mixture)]
    if not stages:
        return
    everywhere = {name for stage in stages for name in mixture_sources(stage.mixture, infos)}
    columns, notes = [], []
    for stage in stages:
        mixture = get_mixture(stage.mixture, infos)
        notes += [f"  {stage.mixture}: {note}" for note in mixture.notes]
        override = config.mixture.override
        columns.append(apply_override(mixture.shares, override, infos, stage.name, everywhere))
    yield f"mixture: shares of {'prompts' if config.objective == GRPO else 'tokens'} by source"
    if config.mixture.within != "uniform":
        yield (
            f"  shown as uniform within groups; mixture.within={config.mixture.within} needs the "
            "sizes of sources, which are known after tokenising"
        )
    yield from dict.fromkeys(notes)
    yield f"  {'source':<24}" + "".join(f"{stage.name:>12}" for stage in stages)
    for info in infos:
        if info.name in everywhere:
            shares = (f"{column.get(info.name, 0.0):12.2%}" for column in columns)
            yield f"  {info.name:<24}" + "".join(shares)
    tasks = names_in(config.evaluation.tasks)
    yield f"evaluation: {', '.join(tasks) or 'none'}"


def _memory_lines(config: ConfigDict, model: Qwen2Config, sharding: Sharding) -> Iterator[str]:
    found, limit = device_memory(model, config, sharding), device_bytes()
    of = f" of {limit / _GIB:,.1f} GiB" if limit else ""
    yield f"memory per device, a rough estimate: {sum(found.values()) / _GIB:,.2f} GiB{of}"
    yield from (f"  {size / _GIB:8,.2f} GiB {name}" for name, size in found.items())
    if config.lora.rank:
        yield "  a run with lora.rank needs less: frozen parameters have no moments or gradients"
    yield "  `marco plan` shows the TPU compiler's numbers"


def _disk_lines(config: ConfigDict, model: Qwen2Config, workdir: pathlib.Path) -> Iterator[str]:
    size = checkpoint_bytes(config, model)
    every = config.checkpoint.every
    count = len(names_in(config.stages)) + (config.steps // every if every else 0)
    kept = min(count, config.checkpoint.keep) if config.checkpoint.keep else count
    if is_remote(workdir):
        return
    free = shutil.disk_usage(nearest_existing(workdir)).free
    yield (
        f"workdir: {workdir}, {free / 1e9:,.1f} GB free; "
        f"at most {kept} checkpoints of {size / 1e9:,.2f} GB are kept"
    )
