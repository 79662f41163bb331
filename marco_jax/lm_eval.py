"""lm-evaluation-harness's own command line, with our models registered under `marco_jax`.

    python -m marco_jax.lm_eval --model marco_jax --model_args pretrained=PATH --tasks xcopa_zh

PATH is whatever `--model` of `marco eval` takes: a workdir, a step in it, or a Hugging Face
directory. All options but --model_args are the harness's.
"""

from __future__ import annotations

import sys


def load_engine(path: str, max_length: int, tokens_per_batch: int, dtype: str) -> tuple:
    """An engine over all devices, the parameters at a path, and the chat template there, if any.

    Raises:
        FileNotFoundError: there is no model at the path.
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
    return engine, loaded.params, loaded.tokenizer.companions.chat_template


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
