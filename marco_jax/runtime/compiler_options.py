"""Options of the TPU compiler for the training step, by generation.

`marco plan` and `marco train` compile the step with the same options. `config.compiler_options`
adds to them and overrides them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
from jax.sharding import SingleDeviceSharding

from marco_jax.runtime.chips import CHIPS

Value = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class CompilerOption:
    """An option of the TPU compiler, what it is for, and the generations whose steps get it."""

    name: str
    value: Value
    purpose: str
    generations: tuple[str, ...]


# Names and combinations are those of MaxText's recipes; what they do to this step was read from
# compiled programs. None was run on a TPU by us.
STEP_OPTIONS: tuple[CompilerOption, ...] = ()


def step_options(device: jax.Device, overrides: str = "") -> dict[str, Value]:
    """Options for the compiler of a training step, for `jax.jit(compiler_options=...)`.

    Args:
        device: one of the mesh, also of a topology without a TPU.
        overrides: `config.compiler_options`, "NAME=VALUE,NAME=VALUE"; they hold for any platform,
            and a value of "default" leaves an option of the table to the compiler.

    Raises:
        ValueError: an override that is not NAME=VALUE, or that the compiler does not know.
    """
    generation = next(
        (name for name, chip in CHIPS.items() if device.device_kind in chip.kinds), ""
    )
    table = {item.name: item.value for item in STEP_OPTIONS if generation in item.generations}
    chosen = _parse_options(overrides)
    merged = {name: x for name, x in (table | chosen).items() if x != "default"}
    for name in chosen.keys() & merged.keys():
        _check_option(device, name, merged[name])
    return merged


def _check_option(device: jax.Device, name: str, value: Value) -> None:
    """Compiles a program of one addition with an option, so that a wrong one is one line."""
    one = jax.ShapeDtypeStruct((), "int32", sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(one).compile()
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"compiler_options has {name}={value}, which the compiler for {device.device_kind} "
            f"refuses: {reason}"
        ) from None


def _parse_options(text: str) -> Mapping[str, Value]:
    """Reads "NAME=VALUE,NAME=VALUE"; values are booleans, numbers or words."""
    found: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise ValueError(
                f"compiler_options has {item!r}: write NAME=VALUE, comma-separated, such as "
                "xla_tpu_overlap_compute_collective_tc=false"
            )
        found[name.removeprefix("--")] = _value(value)
    return found


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
