"""Functions and classes of the user's own modules, by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any


def load_callable(name: str) -> Callable[..., Any]:
    """Imports "module:function" or "file.py:function"; the working directory is searched, too.

    Raises:
        ValueError: the module, file or function does not exist.
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise ValueError(
            f"{name!r} does not name a callable: write module:function or file.py:function"
        )
    try:
        if module_name.endswith(".py"):
            module = _load_file(pathlib.Path(module_name))
        else:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from None
    found = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{module_name} has no callable {attribute!r}")
    return found


def _load_file(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name a module or a .py file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
