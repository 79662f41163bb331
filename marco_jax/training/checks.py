"""Checks of a config that need no data: they run first.

A corpus takes minutes to hours to tokenise. A misspelt task, an unknown language or a missing
library must not be found after that.
"""

from __future__ import annotations

import difflib
import math
import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from marco_jax.data.mixtures import (
    check_mixture_name,
    get_mixture,
    is_mixture_name,
    mixture_sources,
    table_groups,
)
from marco_jax.data.overrides import apply_override, parse_override
from marco_jax.data.record_errors import ERROR_POLICIES
from marco_jax.data.run_stores import task_languages
from marco_jax.data.sources import read_sources
from marco_jax.data.texts import CHAT, KINDS, PREFERENCE, PROMPT, SourceInfo
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
from marco_jax.evaluation.builtin_tasks import EVERY_TASK, named_task
from marco_jax.evaluation.samples import sample_prompts
from marco_jax.extras import require
from marco_jax.files import as_path, check_path, check_space, check_writable, is_remote
from marco_jax.languages import LANGUAGES, add_config_languages, get_language, names_in
from marco_jax.model.attention import IMPLEMENTATIONS
from marco_jax.model.lora import adapter_table
from marco_jax.model.mesh import Sharding
from marco_jax.model.quantized import QUANTIZATIONS
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.model.remat import REMAT_POLICIES
from marco_jax.reinforcement.rewards import SCALES, Rewards
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.trackers.choose import check_trackers
from marco_jax.training.assemble import check_run, lora_options, policy_options
from marco_jax.training.config import (
    DPO,
    GRPO,
    OBJECTIVES,
    SFT,
    ConfigError,
    StagePlan,
    check_paths,
    profiled_steps,
    stage_mixtures,
)
from marco_jax.weights.huggingface import check_exportable

# What rates of registered mixtures are shares of.
RATES = ("tokens", "examples")
# Types that a step computes in.
DTYPES = ("float32", "bfloat16")
# Bytes of a trained parameter in a checkpoint: itself and two moments, float32.
_BYTES_A_PARAMETER = 12


def check_config(config: ConfigDict) -> None:
    """Refuses what cannot be trained, whatever the data and the machine.

    Languages of `languages.extra` are known from then on.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    check_paths(config)
    add_config_languages(config)
    check_objective(config)
    _check_numbers(config)
    check_names(config)
    if config.tokenizer.path and not as_path(config.tokenizer.path).is_dir():
        raise ConfigError(f"tokenizer.path is {config.tokenizer.path!r}, which is not a directory")
    mixtures = stage_mixtures(config)
    _check_mixtures(config, list(mixtures.values()))
    _check_override(config, list(mixtures))
    _check_evaluation(config)
    profiled_steps(config.profile)
    if config.quantize != QUANTIZATIONS[0]:
        require("quantize", f"quantize={config.quantize}")
    check_trackers(config)


def check_start(config: ConfigDict, workdir: str) -> pathlib.Path:
    """Refuses a config, or a workdir that cannot be written to; creates nothing.

    Returns:
        the path of the workdir.

    Raises:
        ValueError: names the field or flag, its value and the remedy.
        OSError: the workdir cannot be written to.
    """
    check_path("--workdir", workdir)
    directory = as_path(workdir)
    check_config(config)
    check_writable("--workdir", directory)
    return directory


def check_objective(config: ConfigDict) -> None:
    """Refuses an objective that is unknown, or that other fields do not allow (ConfigError)."""
    if config.objective not in OBJECTIVES:
        raise ConfigError(
            f"objective is {config.objective!r}: choose one of {', '.join(OBJECTIVES)}"
        )
    parse_variables(config.chat.template_kwargs, "chat.template_kwargs")
    if config.lora.rank and not config.init_from:
        raise ConfigError("lora.rank is set and init_from is empty: adapters need a model to adapt")
    if config.objective in (DPO, GRPO) and not config.init_from:
        purpose = "prefer answers with" if config.objective == DPO else "improve"
        raise ConfigError(
            f"objective is {config.objective!r} and init_from is empty: name the model to {purpose}"
        )
    if config.objective == GRPO:
        _check_grpo(config)
    if config.checkpoint.local_every and not config.checkpoint.local_dir:
        raise ConfigError(
            f"checkpoint.local_every is {config.checkpoint.local_every} and checkpoint.local_dir "
            "is empty: name a folder on the host's own disk"
        )
    if is_remote(config.checkpoint.local_dir):
        raise ConfigError(
            f"checkpoint.local_dir is {config.checkpoint.local_dir!r}: name a folder on the host's "
            "own disk"
        )
    if config.checkpoint.local_every:
        check_writable("--config.checkpoint.local_dir", config.checkpoint.local_dir)


def _check_grpo(config: ConfigDict) -> None:
    """Refuses fields of `grpo` that no round of answers could have."""
    fields = config.grpo
    least = {"prompts": 1, "group": 2, "updates": 1, "epochs": 1, "keep_rounds": 0}
    least |= {"max_prompt_tokens": 1, "max_new_tokens": 1}
    for name, bound in least.items():
        if fields[name] < bound:
            raise ConfigError(f"grpo.{name} is {fields[name]}: write {bound} or more")
    if fields.scale not in SCALES:
        raise ConfigError(f"grpo.scale is {fields.scale!r}: choose one of {', '.join(SCALES)}")
    answers = fields.prompts * fields.group
    if answers % fields.updates:
        raise ConfigError(
            f"grpo.updates is {fields.updates} and a round has {answers} answers (grpo.prompts x "
            "grpo.group): choose a number that divides them"
        )
    policy_options(config)
    Rewards.of(fields.rewards)


def _check_numbers(config: ConfigDict) -> None:
    least = {
        "steps": 1,
        "batch.length": 2,
        "batch.sequences": 0,
        "batch.accumulation_steps": 1,
        "optimizer.clip_norm": 0,
        "optimizer.weight_decay": 0,
        "log_every": 0,
        "price_per_device_hour": 0,
        "checkpoint.every": 0,
        "checkpoint.local_every": 0,
        "evaluation.every": 0,
        "evaluation.shots": 0,
        "evaluation.benchmark_shots": -1,
        "evaluation.max_seconds": 0,
        "evaluation.max_length": 2,
        "evaluation.drafts": 0,
        "evaluation.tokens_per_batch": 1,
        "evaluation.samples.prompts": 0,
        "evaluation.samples.tokens": 1,
        "lora.rank": 0,
    }
    for name, bound in least.items():
        value = config
        for part in name.split("."):
            value = value[part]
        # nan is refused too: every comparison with it is false.
        if not value >= bound:
            raise ConfigError(f"{name} is {value}: write {bound} or more")


def check_names(config: ConfigDict) -> None:
    """Refuses a remat, dtype, attention, quantize or policy that does not exist (ConfigError)."""
    for name, known in (
        ("remat", tuple(REMAT_POLICIES)),
        ("dtype", DTYPES),
        ("attention", IMPLEMENTATIONS),
        ("quantize", QUANTIZATIONS),
        ("data_errors", ERROR_POLICIES),
    ):
        if config[name] not in known:
            near = difflib.get_close_matches(str(config[name]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
            raise ConfigError(f"{name} is {config[name]!r}, which is not known: {hint}")


def _check_mixtures(config: ConfigDict, names: Sequence[str]) -> None:
    """Refuses names that neither we nor the modules of the user can know."""
    fields = config.mixture
    for name in names:
        if not fields.modules:
            check_mixture_name(name)
        elif not is_mixture_name(name) and config.objective in (DPO, GRPO):
            kind = PREFERENCE if config.objective == DPO else PROMPT
            raise ConfigError(
                f"objective is {config.objective!r} and mixture.name {name!r} is one of SeqIO's: "
                f"sources of kind {kind} are read from config.data, as mixture {kind}"
            )
    for module in names_in(fields.modules):
        if module.endswith(".py") and not pathlib.Path(module).is_file():
            raise ConfigError(f"mixture.modules names {module!r}, and there is no such file")
    if fields.rates not in RATES:
        raise ConfigError(f"mixture.rates is {fields.rates!r}: choose one of {', '.join(RATES)}")
    if not 0 <= fields.tasks.held_out < 1:
        raise ConfigError(
            f"mixture.tasks.held_out is {fields.tasks.held_out}: write a share, such as 0.01"
        )
    task_languages(fields.tasks.languages)


def _check_override(config: ConfigDict, stages: Sequence[str]) -> None:
    """Refuses overrides of sources or stages that no data could have."""
    known = {*LANGUAGES, *table_groups(), *KINDS}
    if config.mixture.modules:
        # Names of tasks are known once SeqIO has been imported.
        known |= {item.target for item in parse_override(config.mixture.override)}
    if config.data.endswith(".json"):
        known |= {source.name for source in read_sources(config.data)}
    for item in parse_override(config.mixture.override):
        for value, among, what in (
            (item.target, known, "source, language or group"),
            (item.stage, ["", *stages], "stage"),
        ):
            if value not in among:
                near = difflib.get_close_matches(value, sorted(among), n=1)
                listed = ", ".join(filter(None, sorted(among)))
                hint = f"did you mean {near[0]!r}?" if near else f"known are {listed}"
                raise ConfigError(
                    f"mixture.override: {item.text!r}: there is no {what} {value!r}; {hint}"
                )


def _check_evaluation(config: ConfigDict) -> None:
    fields = config.evaluation
    tasks = [named_task(name) for name in names_in(f"{fields.tasks},{fields.every_tasks}")]
    benchmarks = [BenchmarkTask.parse(name) for name, _ in tasks if is_benchmark(name)]
    elsewhere = {code for task in benchmarks for code in task.benchmark.languages}
    languages = names_in(fields.languages)
    for code in languages:
        if code not in elsewhere and not (benchmarks and "-" in code):
            get_language(code)
    for task in benchmarks:
        if not fields.data_dir:
            raise ConfigError(
                f"evaluation.tasks names {task.name!r}, which reads files: set evaluation.data_dir "
                f"to the folder that holds {task.benchmark.folder}/"
            )
        if not task.languages(fields.data_dir, languages or None):
            raise ConfigError(
                f"evaluation.tasks names {task.name!r}, and evaluation.data_dir={fields.data_dir} "
                f"has no files of it in {', '.join(languages) or 'any language'}"
            )
    for name, count in fields.examples.items():
        if name != EVERY_TASK:
            named_task(name)
        if not isinstance(count, int) or count < 1:
            raise ConfigError(f"evaluation.examples.{name} is {count!r}: write 1 or more")
    _check_samples(fields)


def _check_samples(fields: ConfigDict) -> None:
    """Refuses prompts that cannot be read, and texts that leave no room for a prompt."""
    samples, most = fields.samples, fields.max_length
    if samples.file and not as_path(samples.file).is_file():
        raise ConfigError(f"evaluation.samples.file is {samples.file!r}, which is not a file")
    try:
        sample_prompts(samples.file, samples.prompts)
    except ValueError as error:
        raise ConfigError(f"evaluation.samples.file: {error}") from None
    if fields.tasks and samples.prompts and samples.tokens >= most:
        raise ConfigError(
            f"evaluation.samples.tokens is {samples.tokens}: it must leave room for a prompt in "
            f"evaluation.max_length={most}; set one of them, or evaluation.samples.prompts=0"
        )


def check_sources(
    config: ConfigDict, stages: Sequence[StagePlan], sources: Sequence[SourceInfo]
) -> None:
    """Refuses mixtures and overrides that the corpus or the objective does not allow.

    Raises:
        ValueError: a mixture without a source, an override of a source that it does not read, or
            sources of a kind that the objective cannot train on.
    """
    # Those in SeqIO's registry are looked up by the processes that prepare data.
    stages = [stage for stage in stages if is_mixture_name(stage.mixture)]
    everywhere = {name for stage in stages for name in mixture_sources(stage.mixture, sources)}
    kinds = {source.name: source.kind for source in sources}
    for stage in stages:
        shares = get_mixture(stage.mixture, sources).shares
        apply_override(shares, config.mixture.override, sources, stage.name, everywhere)
        _check_kinds(config.objective, stage.mixture, {name: kinds[name] for name in shares})


def _check_kinds(objective: str, mixture: str, kinds: Mapping[str, str]) -> None:
    """Refuses a mixture whose sources, by name, are of kinds that an objective cannot train on."""
    for name, kind in kinds.items():
        only = {DPO: PREFERENCE, GRPO: PROMPT}.get(objective)
        if kind != only if only else kind in (PREFERENCE, PROMPT):
            wanted = f"sources of kind {only} alone" if only else f"no sources of kind {kind}"
            raise ConfigError(
                f"objective is {objective!r}, which trains on {wanted}, and the mixture {mixture} "
                f"reads {name}, of kind {kind}: set mixture.name to {only or CHAT}"
            )
    if objective == SFT and CHAT not in kinds.values():
        raise ConfigError(
            f"objective is 'sft', and the mixture {mixture} reads no conversations: set "
            f"mixture.name to {CHAT}, and declare sources of kind {CHAT} in config.data"
        )


def check_model(
    config: ConfigDict,
    model: Qwen2Config,
    tokenizer: Tokenizer,
    sharding: Sharding,
    workdir: pathlib.Path,
) -> None:
    """Refuses a model that does not fit the mesh, could not be exported, or overfills the disk.

    Raises:
        ValueError: sizes, mesh and batch do not fit, or the export would be refused at the end.
        OSError: the disk has no room for a checkpoint.
    """
    check_run(config, model, sharding)
    check_exportable(model, abstract_params(model), tokenizer)
    check_space(workdir, checkpoint_bytes(config, model))


def checkpoint_bytes(config: ConfigDict, model: Qwen2Config) -> int:
    """Bytes of one checkpoint: trained parameters with their moments."""
    return _BYTES_A_PARAMETER * trained_parameters(config, model)


def trained_parameters(config: ConfigDict, model: Qwen2Config) -> int:
    """How many parameters train: all, or those of the adapters."""
    lora = lora_options(config)
    if lora is None:
        return model.num_parameters
    return sum(math.prod(row.shape(model)) for row in adapter_table(model, lora))
