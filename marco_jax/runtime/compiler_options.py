"""Options for the compiler of the training step: defaults by TPU generation, and the user's.

By default the TPU compiler runs collectives between products. These options let it run them during
products. What they do is judged by schedules of compiled steps (libtpu 0.0.42), not on a TPU.
"""

from __future__ import annotations

import functools
import logging

import jax
from jax.sharding import SingleDeviceSharding

from marco_jax.runtime.chips import generation_of

Value = bool | int | float | str

_log = logging.getLogger(__name__)

# The item of `config.compiler_options` that leaves the defaults out.
NO_DEFAULTS = "no_defaults"

# Layouts in which the reduce-scatter of a weight's gradient stays one, on more shapes: otherwise
# many become an all-reduce and a slice, at twice the bytes. Those that do so all the same are not
# combined into one from 4 MiB on: a combined one waits for the last of its parts.
_SCATTERS: dict[str, Value] = {
    "xla_tpu_use_minor_sharding_for_major_trivial_input": True,
    "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": 1,
    "xla_tpu_assign_all_reduce_scatter_layout": True,
    "xla_jf_crs_combiner_threshold_in_bytes": 4 * 2**20,
}
# On v5e all-gathers run inside fusions with products, or with the attention kernel (the last). On
# other generations libtpu 0.0.52 refuses these fusions, since results may be wrong there, and
# 0.0.42 aborts on some batches ("BarrierMegacore in primary or secondary region").
_FUSED_GATHERS: dict[str, Value] = {
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_with_mosaic_custom_call": True,
}
# Reductions run on the SparseCores, which v5p, v6e and tpu7x have beside the cores for products.
_SPARSE_CORE_REDUCTIONS: dict[str, Value] = {
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce": True,
    "xla_tpu_use_tc_device_shape_on_sc": True,
    "xla_sc_disable_megacore_partitioning": True,
}
# So do all-gathers; on v5p only those along one dimension of the slice.
_SPARSE_CORE_GATHERS: dict[str, Value] = {
    "xla_tpu_enable_sparse_core_collective_offload_all_gather": True,
}

DEFAULTS: dict[str, dict[str, Value]] = {
    "v4": _SCATTERS,
    "v5e": _SCATTERS | _FUSED_GATHERS,
    **{
        generation: _SCATTERS | _SPARSE_CORE_REDUCTIONS | _SPARSE_CORE_GATHERS
        for generation in ("v5p", "v6e", "tpu7x")
    },
}


def compiler_options(text: str, device: jax.Device) -> dict[str, Value]:
    """The defaults for a device, changed by "NAME=VALUE,NAME=VALUE", for `jax.jit`.

    A default that the installed compiler does not know is left out, with a warning.

    Args:
        text: values are booleans, numbers or words; names may begin with "--". The item
            "no_defaults" leaves the defaults out.
        device: one of the mesh, also of a topology without a TPU.

    Raises:
        ValueError: an item that is not NAME=VALUE, or that the compiler refuses.
    """
    given: dict[str, Value] = {}
    items = [item for item in (part.strip() for part in text.split(",")) if item]
    for item in items:
        name, equals, value = item.partition("=")
        if item == NO_DEFAULTS:
            continue
        if not equals or not name or not value:
            raise ValueError(
                f"compiler_options has {item!r}: write NAME=VALUE, comma-separated, such as "
                f"xla_tpu_overlap_compute_collective_tc=false, or {NO_DEFAULTS}"
            )
        given[name.removeprefix("--")] = _value(value)
    for name, value in given.items():
        if reason := _refusal(((name, value),), device):
            raise ValueError(
                f"compiler_options has {name}={value}, which the compiler for "
                f"{device.device_kind} refuses: {reason}"
            )
    if NO_DEFAULTS in items:
        return given
    return _defaults(device) | given


@functools.cache
def _defaults(device: jax.Device) -> dict[str, Value]:
    defaults = DEFAULTS.get(generation_of(device), {})
    if not defaults or not _refusal(tuple(defaults.items()), device):
        return defaults
    known: dict[str, Value] = {}
    for name, value in defaults.items():
        if reason := _refusal(((name, value),), device):
            _log.warning(
                "The compiler for %s does not take %s=%s, one of our defaults, so it is left out: "
                "%s",
                device.device_kind,
                name,
                value,
                reason,
            )
        else:
            known[name] = value
    return known


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@functools.cache
def _refusal(options: tuple[tuple[str, Value], ...], device: jax.Device) -> str:
    """Why the compiler refuses options; "" if it takes them.

    Compiles an addition with them: the step, which takes minutes, would fail on them.
    """
    one = jax.ShapeDtypeStruct((), "int32", sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(one).compile()
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    return ""
