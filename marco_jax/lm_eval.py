"""The command line of lm-evaluation-harness, with this project's models as `--model marco_jax`.

    python -m marco_jax.lm_eval --model marco_jax --model_args pretrained=PATH --tasks xcopa_zh

PATH is a workdir, a step in it, or a Hugging Face directory, as for `marco eval --model`. All
options except the values of --model_args are the harness's.
"""

from __future__ import annotations

import sys


def load_engine(path: str, max_length: int, tokens_per_batch: int, dtype: str) -> tuple:
    """Loads a model: an engine over all devices, and its parameters.

    Raises:
        FileNotFoundError: the path has no model.
    """
    import jax
    import jax.numpy as jnp

    from marco_jax.decoding.engine import Engine
    from marco_jax.model.mesh import Sharding, create_mesh
    from marco_jax.weights.models import load_model

    sharding = Sharding(create_mesh()) if len(jax.devices()) > 1 else None
    loaded = load_model(path, sharding)
    engine = Engine(
        loaded.config,
        loaded.tokenizer,
        sharding=sharding,
        dtype=jnp.dtype(dtype),
        max_length=min(max_length, loaded.config.max_position_embeddings),
        tokens_per_batch=tokens_per_batch,
    )
    return engine, loaded.params


def main() -> int:
    """Registers `marco_jax` and runs the harness; returns the exit code."""
    from marco_jax.extras import MissingExtra, optional

    try:
        with optional():
            from lm_eval.__main__ import cli_evaluate
    except MissingExtra as error:
        print(f"marco_jax.lm_eval: {error}", file=sys.stderr)
        return 2
    from marco_jax.evaluation.lm_eval_adapter import register
    from marco_jax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    register(load_engine)
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
