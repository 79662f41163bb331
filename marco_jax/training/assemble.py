"""The compiled parts of a run from its config: mesh, optimizer, trainer. No data, no TensorFlow.

`marco train` and `marco plan` build the step here, so that what is planned is what runs.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from marco_jax.files import read_json_object, write_json
from marco_jax.languages import names_in
from marco_jax.model.attention import GPU_PLATFORMS
from marco_jax.model.lora import LoraOptions
from marco_jax.model.mesh import (
    CONFIG_AXES,
    DEFAULT_RULES,
    Sharding,
    check_mesh,
    create_mesh,
    replicate_kv_heads,
)
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.objectives.losses import LossOptions, default_logits_mib
from marco_jax.objectives.policy_gradient import PolicyOptions
from marco_jax.objectives.preferences import PreferenceOptions
from marco_jax.runtime.compiler_options import compiler_options
from marco_jax.training.config import DPO, GRPO, ConfigError, StagePlan, plan_run
from marco_jax.training.optimizer import create_optimizer, join_stages
from marco_jax.training.state import GuardOptions
from marco_jax.training.step import StepOptions, Trainer

_log = logging.getLogger(__name__)

# What `mesh.elastic` keeps, in the workdir.
_BATCH = "batch.json"


def create_sharding(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Sharding:
    """The mesh and rules of `config.mesh` over `devices` (all there are by default)."""
    axes = {name: config.mesh[name] for name in CONFIG_AXES}
    if config.mesh.elastic:
        found = {getattr(device, "slice_index", 0) for device in devices or jax.devices()}
        # Devices without slices (CPUs in a test) form as many as the other axes leave.
        free = len(found) == 1 and -1 not in [axes[name] for name in CONFIG_AXES[1:]]
        axes["num_slices"] = -1 if free else len(found)
    rules = DEFAULT_RULES
    if config.mesh.replicate_kv_heads:
        rules = replicate_kv_heads(rules)
    return Sharding(create_mesh(axes, devices), rules)


def global_rows(config: ConfigDict, sharding: Sharding) -> int:
    """Rows of a global batch, over all microbatches."""
    return config.batch.sequences or config.batch.sequences_per_chip * sharding.mesh.size


def keep_batch(config: ConfigDict, sharding: Sharding, workdir: pathlib.Path) -> None:
    """With `mesh.elastic`, gives a step the sequences it had before, whatever the mesh is now.

    `batch.accumulation_steps` becomes the least number with which a chip computes no more rows at
    once than it did when the run began. Both are read from the record of `record_batch`, and fields
    of `config` are set. The first start of a run changes nothing.

    Raises:
        ConfigError: the mesh does not divide the sequences of a step.
    """
    path = workdir / _BATCH
    if not config.mesh.elastic or not path.exists():
        return
    record = read_json_object(path)
    rows = config.batch.sequences or int(record["rows"])
    most = record["rows_at_once"] * sharding.mesh.size * (1 + 1e-9)
    ways = sharding.ways("batch")
    fitting = (n for n in range(1, rows + 1) if rows % (n * ways) == 0 and rows / n <= most)
    parts = next(fitting, 0)
    if not parts:
        raise ConfigError(
            f"mesh.elastic keeps {rows} sequences in a step, and num_slices x data x fsdp of the "
            f"mesh is {ways}: choose axes whose product divides them"
        )
    if parts != config.batch.accumulation_steps or rows != global_rows(config, sharding):
        _log.info(
            f"mesh.elastic: {rows} sequences in a step as before, on {sharding.mesh.size} devices "
            f"with batch.accumulation_steps={parts}"
        )
    config.batch.sequences, config.batch.accumulation_steps = rows, parts


def record_batch(config: ConfigDict, sharding: Sharding, workdir: pathlib.Path) -> None:
    """Records the sequences of a step, and the rows that a chip computes at once."""
    path, rows = workdir / _BATCH, global_rows(config, sharding)
    at_once = rows / config.batch.accumulation_steps / sharding.mesh.size
    if config.mesh.elastic and path.exists():
        at_once = read_json_object(path)["rows_at_once"]
    write_json(path, {"rows": rows, "rows_at_once": at_once})


def check_run(config: ConfigDict, model: Qwen2Config, sharding: Sharding) -> None:
    """Refuses what the devices, the mesh and the model do not allow together.

    That is a mesh that does not divide the model or a microbatch, compiler options that are not
    known, and values offloaded from a GPU.

    Raises:
        ValueError: names what does not fit, and the remedy.
    """
    compiler_options(config.compiler_options, sharding.mesh.devices.flat[0])
    if config.remat == "offload" and sharding.platform in GPU_PLATFORMS:
        # The fix is openxla/xla pull request 46231, "Fix reversed dynamic-slice offset for
        # offloaded scan residuals"; no released version is known to have it.
        raise ConfigError(
            "remat is 'offload' and the devices are GPUs, for which XLA may read offloaded values "
            "of the wrong layer, without an error: set remat=minimal, attention or full"
        )
    rows, parts = global_rows(config, sharding), config.batch.accumulation_steps
    if parts < 1 or rows % parts:
        raise ConfigError(
            f"batch.accumulation_steps is {parts} and the batch has {rows} rows: "
            "choose a number that divides them"
        )
    check_mesh(model, sharding, batch=rows // parts, length=config.batch.length)
    if config.objective == GRPO:
        _check_answers_fit(config, rows)


def _check_answers_fit(config: ConfigDict, rows: int) -> None:
    """Refuses a batch of `rows` rows that sampled answers of the greatest length overfill."""
    fields, length = config.grpo, config.batch.length
    answers = fields.prompts * fields.group // fields.updates
    longest = fields.max_prompt_tokens + fields.max_new_tokens
    room = rows * min(policy_options(config).answers_per_row, length // max(longest - 1, 1))
    if room < answers:
        raise ConfigError(
            f"a step has {answers} answers (grpo.prompts x grpo.group / grpo.updates) of up to "
            f"{longest} tokens with their prompts, and a batch of {rows} x {length} tokens has "
            f"room for {room}: raise batch.length, batch.sequences_per_chip or grpo.updates (parts "
            "of batch.accumulation_steps that stay empty are not computed)"
        )


def preference_options(config: ConfigDict) -> PreferenceOptions | None:
    """`config.dpo` of objective "dpo"; None of others."""
    if config.objective != DPO:
        return None
    fields = config.dpo.to_dict()
    # A pair has 64 tokens or more, if answers are not very short.
    fields["pairs_per_row"] = fields["pairs_per_row"] or max(1, config.batch.length // 64)
    return PreferenceOptions(**fields)


def policy_options(config: ConfigDict) -> PolicyOptions | None:
    """The fields of `config.grpo` that the step needs; None of other objectives than "grpo"."""
    if config.objective != GRPO:
        return None
    fields = config.grpo
    names = {field.name for field in dataclasses.fields(PolicyOptions)}
    return PolicyOptions(
        **{name: value for name, value in fields.items() if name in names},
        most_tokens=fields.max_new_tokens,
        off_policy=fields.updates * fields.epochs > 1,
        # An answer has 32 tokens or more with its prompt, if both are not very short.
        answers_per_row=max(1, config.batch.length // 32),
    )


def lora_options(config: ConfigDict) -> LoraOptions | None:
    """`config.lora`; None where all parameters train."""
    if not config.lora.rank:
        return None
    fields = config.lora.to_dict()
    fields["targets"] = names_in(fields["targets"])
    return LoraOptions(**fields)


def create_trainer(
    config: ConfigDict,
    model: Qwen2Config,
    sharding: Sharding,
    num_sources: int,
    vocab_size: int | None = None,
    stages: Sequence[StagePlan] | None = None,
    *,
    skip_empty: bool = True,
) -> Trainer:
    """The step of `config` for `model` on a mesh; nothing compiles yet.

    Args:
        config: of the run.
        model: its sizes.
        sharding: the mesh and its rules.
        num_sources: how many sources losses are summed by.
        vocab_size: of the tokenizer: rows that config.loss.mask_padded_vocab keeps.
        stages: with their learning rates; by default those of `config`.
        skip_empty: as StepOptions has it.

    Raises:
        ValueError: a mesh that does not divide the model or the batch.
    """
    check_run(config, model, sharding)
    if stages is None:
        stages = plan_run(config, global_rows(config, sharding)).stages
    schedule = join_stages([stage.schedule for stage in stages])
    lora = lora_options(config)
    optimizer = create_optimizer(model, schedule, lora=lora, **config.optimizer.to_dict())
    device = sharding.mesh.devices.flat[0]
    options = StepOptions(
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
        accumulation_steps=config.batch.accumulation_steps,
        attention=config.attention,
        loss=LossOptions(
            logits_mib=config.loss.logits_mib or default_logits_mib(sharding.platform),
            z_loss=config.loss.z_loss,
            vocab_size=vocab_size if config.loss.mask_padded_vocab else None,
        ),
        guard=GuardOptions(config.anomaly.spike_sigmas, config.anomaly.spike_window),
        preference=preference_options(config),
        policy=policy_options(config),
        skip_empty=skip_empty,
        lora=lora,
        keep_gathered=config.mesh.keep_gathered,
        quantize=config.quantize,
        compiler_options=tuple(compiler_options(config.compiler_options, device).items()),
    )
    return Trainer(model, optimizer, schedule, sharding, num_sources, options)
