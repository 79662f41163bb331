"""JAX's persistent compilation cache: a second evaluation of a model compiles nothing."""

from __future__ import annotations

import os
import pathlib

import jax


def enable_compilation_cache(directory: str | os.PathLike | None = None) -> pathlib.Path:
    """Keeps compiled programs on disk for later processes; call it before anything compiles.

    Args:
        directory: where; by default what JAX_COMPILATION_CACHE_DIR says, else
            marco_jax in the user's cache directory (XDG_CACHE_HOME or ~/.cache).

    Returns:
        the directory.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    default = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(home) / "marco_jax"
    chosen = pathlib.Path(directory or default).absolute()
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    # The least worth keeping; JAX's default of a second leaves most of a small model's out.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return chosen
