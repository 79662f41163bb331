"""JAX's persistent compilation cache, so that later runs of the same programs do not compile."""

from __future__ import annotations

import os
import pathlib

import jax

from marco_jax.files import as_path


def enable_compilation_cache(directory: str | os.PathLike | None = None) -> pathlib.Path:
    """Keeps compiled programs on disk for later processes; call it before anything compiles.

    The directory, which is returned, is by default JAX_COMPILATION_CACHE_DIR, else marco_jax in the
    user's cache directory (XDG_CACHE_HOME or ~/.cache).
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    default = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(home) / "marco_jax"
    chosen = as_path(directory or default).absolute()
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    # JAX's default of 1 s would skip most programs of a small model.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return chosen
