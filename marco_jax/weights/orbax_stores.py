"""Lets Orbax save to and restore from object stores.

Orbax reads and writes gs:// itself: small files by etils.epath, arrays by TensorStore's own driver.
Of s3:// it knows the small files alone, and would give the array's URL to the driver of local
files. Three functions of Orbax decide about that; here they are replaced by ones that know both
schemes. Steps in a store are not renamed when they are finished, since that would copy every byte:
they have their final name from the start, and Orbax writes a mark last.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from etils import epath
from orbax.checkpoint._src.path import atomicity, gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from marco_jax.files import is_remote
from marco_jax.stores.connect import is_url, kvstore_spec
from marco_jax.stores.object_path import object_path


def orbax_path(path: Any) -> epath.Path:
    """A path as Orbax takes it."""
    if is_remote(path):
        object_path(str(path))  # sets the defaults of its libraries
        _prepare()
    return epath.Path(str(path))


def temporary_path_class(path: Any) -> Any:
    """How Orbax marks unfinished steps below a path; None: its default."""
    return atomicity.CommitFileTemporaryPath if is_remote(path) else None


@functools.cache
def _prepare() -> None:
    """Replaces the functions by which Orbax chooses TensorStore's driver.

    Raises:
        ValueError: Orbax has changed, and does not have them.
    """
    wanted = {
        (tensorstore_utils, "_use_gcs_driver"): is_url,
        (tensorstore_utils, "_normalize_path"): _normalized,
        (gcs_utils, "get_kvstore_for_gcs"): kvstore_spec,
    }
    for (module, name), function in wanted.items():
        if not hasattr(module, name):
            raise ValueError(
                f"this orbax-checkpoint has no {module.__name__}.{name}, which checkpoints in "
                "object stores need: install orbax-checkpoint 0.12.8"
            )
        setattr(module, name, function)


def _normalized(path: str) -> str:
    scheme, separator, rest = path.partition("://")
    return f"{scheme}://{os.path.normpath(rest)}" if separator else os.path.normpath(path)
