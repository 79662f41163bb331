"""Creates the engine that scores and generates with a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.weights.models import FoundModel, LoadedModel

if TYPE_CHECKING:
    from marco_jax.decoding.engine import Engine


def run_config(model: FoundModel | LoadedModel) -> dict[str, Any]:
    """The config of the run that trained a model; empty for a Hugging Face directory."""
    if model.workdir is None or not (model.workdir / "config.json").exists():
        return {}
    return json.loads((model.workdir / "config.json").read_text(encoding="utf-8"))


def read_mesh(text: str | None) -> Sharding | None:
    """Creates the mesh of a --mesh flag such as "fsdp=2,tensor=4"; None (one device) without it.

    Raises:
        ValueError: an unknown axis, a size that is not a number, or a product that is not the
            number of devices.
    """
    if not text:
        return None
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not size.removeprefix("-").isdigit():
            raise ValueError(
                f"--mesh={text}: {part!r} is not an axis with a size, such as tensor=4"
            )
        axes[name.strip()] = int(size)
    return Sharding(create_mesh(axes))


def create_engine(
    model: FoundModel | LoadedModel,
    run: Mapping[str, Any],
    end_ids: Sequence[int] = (),
    sharding: Sharding | None = None,
    max_length: int | None = None,
) -> Engine:
    """Creates an engine with the maximum length, batch size and dtype of the model's run.

    Args:
        model: scores and generates.
        run: the config of its run, from `run_config`.
        end_ids: tokens besides EOS that end an answer.
        sharding: the mesh and rules of the parameters; None for one device.
        max_length: of a row in tokens, by default the run's; at most max_position_embeddings.
    """
    import jax.numpy as jnp

    from marco_jax.decoding.engine import Engine
    from marco_jax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    fields = run.get("evaluation", {})
    return Engine(
        model.config,
        model.tokenizer,
        dtype=jnp.dtype(run.get("dtype", "float32")),
        max_length=min(
            max_length or fields.get("max_length", 4096), model.config.max_position_embeddings
        ),
        tokens_per_batch=fields.get("tokens_per_batch", 8192),
        end_ids=end_ids,
        sharding=sharding,
    )
