"""`config.compiler_options`: options for the compiler of the training step."""

from __future__ import annotations

import functools

import jax
from jax.sharding import SingleDeviceSharding

Value = bool | int | float | str


def compiler_options(text: str, device: jax.Device) -> dict[str, Value]:
    """Reads and checks "NAME=VALUE,NAME=VALUE", for `jax.jit(compiler_options=...)`.

    Args:
        text: values are booleans, numbers or words; names may begin with "--".
        device: one of the mesh, also of a topology without a TPU: its compiler must know the names.

    Raises:
        ValueError: an item that is not NAME=VALUE, or that the compiler refuses.
    """
    found: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise ValueError(
                f"compiler_options has {item!r}: write NAME=VALUE, comma-separated, such as "
                "xla_tpu_overlap_compute_collective_tc=false"
            )
        found[name.removeprefix("--")] = _value(value)
    for name, value in found.items():
        _check(name, value, device)
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


@functools.cache
def _check(name: str, value: Value, device: jax.Device) -> None:
    """Compiles an addition with one option: the step, which takes minutes, would fail on it."""
    one = jax.ShapeDtypeStruct((), "int32", sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(one).compile()
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"compiler_options has {name}={value}, which the compiler for {device.device_kind} "
            f"refuses: {reason}"
        ) from None
