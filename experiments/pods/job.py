"""What the hosts are to run: marco's arguments, read and checked before anything is asked for.

They are parsed by marco's own parser and the config is resolved, on this machine and without a
JAX device: a misspelt field costs a second here, and a slice that was waited for there.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import math
import pathlib
import posixpath
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments.pods.slices import Slice
from marco_jax.commands.parser import create_parser
from marco_jax.data.mixtures import check_mixture_name, is_mixture_name
from marco_jax.files import is_remote
from marco_jax.languages import names_in
from marco_jax.model.mesh import CONFIG_AXES
from marco_jax.training.checks import check_names
from marco_jax.training.config import (
    OBJECTIVES,
    load_config,
    model_config,
    plan_run,
    profiled_steps,
    stage_mixtures,
)

# Where host.sh mounts storage on every host.
MOUNT_POINT = "/mnt/marco"
# Commands that train, and read a training config.
_TRAINING = ("train", "sweep")
_SLICES = "mesh.num_slices"
# Flags of what a command writes, and flags and config fields of what it reads.
_WRITES = ("workdir", "out", "rejects", "verdicts", "hlo")
_READS = ("model", "against", "hf", "input", "data", "data_dir")
_FIELDS_READ = ("data", "init_from", "tokenizer.path", "evaluation.data_dir")
_FIELDS_READ += ("evaluation.samples.file",)
_FIELDS_WRITTEN = ("data_cache",)
_BUILT_IN = ("", "default")


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that the hosts run.

    Attributes:
        arguments: of `marco`, with the number of slices in the config.
        slice: one of `count` equal ones.
        steps: of a training run; 0 for other commands.
        config: the config file, relative to the root of the clone; empty: without one.
    """

    arguments: tuple[str, ...]
    slice: Slice
    count: int
    steps: int = 0
    config: str = ""


def read_job(
    arguments: Sequence[str],
    slice: Slice,
    count: int | None,
    root: pathlib.Path,
    *,
    mounted: bool = False,
    builtin_data: bool = False,
    random_weights: bool = False,
) -> Job:
    """Reads and checks what the hosts are to run.

    Args:
        arguments: of `marco`, such as ["train", "--config=...", "--workdir=gs://BUCKET/run"].
        slice: that the run is for.
        count: of slices; by default what the config says.
        root: of the clone whose last commit the hosts run; paths of configs are relative to it.
        mounted: whether the hosts have storage at MOUNT_POINT.
        builtin_data: whether a run may train on the corpus that ships with the package.
        random_weights: whether a run may start from random parameters.

    Raises:
        ValueError: marco would refuse the arguments, the hosts do not share a path, the numbers of
            slices differ, or the run would train on other data or weights than anybody wants.
    """
    given = parse_marco(arguments)
    config, arguments, steps = None, tuple(arguments), 0
    if hasattr(given, "config"):
        config = _load(given, root)
        arguments, count = _with_slices(arguments, given.overrides, config, count)
    check_shared(given, config, root, mounted=mounted)
    if given.command in _TRAINING:
        steps = check_training(config, slice.chips * (count or 1))
        check_whole(config, builtin_data=builtin_data, random_weights=random_weights)
    file = posixpath.normpath(given.config) if config is not None else ""
    return Job(arguments, slice, count or 1, steps, file)


def parse_marco(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of `marco` as it does; `overrides` has those of the config.

    Raises:
        ValueError: marco would refuse them; its own line.
    """
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
            given, rest = create_parser().parse_known_args(list(arguments))
            unknown = [item for item in rest if not item.startswith("--config.")]
            if unknown or (rest and not hasattr(given, "config")):
                given.parser.error(f"unrecognized argument {(unknown or rest)[0]}")
    except SystemExit as end:
        line = " ".join(written.getvalue().split())
        if not end.code:
            line = "--help is for this machine, not for the hosts: give it to marco itself"
        raise ValueError(f"after --: {line}") from None
    given.overrides = [item.removeprefix("--config.") for item in rest]
    return given


def _load(given: argparse.Namespace, root: pathlib.Path) -> ConfigDict:
    """The config of a command, from the clone that the hosts get."""
    file = root / given.config
    outside = pathlib.PurePath(given.config).is_absolute() or ".." in file.parts
    if outside or not file.is_file():
        raise ValueError(
            f"--config={given.config}: there is no such file in {root}, whose last commit the "
            "hosts run: give its path from there, and commit it"
        )
    return load_config(str(file), given.overrides)


def _with_slices(
    arguments: Sequence[str], overrides: Sequence[str], config: ConfigDict, count: int | None
) -> tuple[tuple[str, ...], int | None]:
    """The arguments and the number of slices, once the launcher's and the config's are one."""
    if "mesh" not in config:
        return tuple(arguments), count
    stated = [item for item in overrides if item.partition("=")[0] == _SLICES]
    if stated and count not in (None, config.mesh.num_slices):
        raise ValueError(
            f"--num_slices={count} and --config.{stated[-1]} differ: give the same number, or "
            "--num_slices alone"
        )
    if count is None:
        if config.mesh.num_slices < 1:
            raise ValueError(f"config.{_SLICES} is {config.mesh.num_slices}: give --num_slices=N")
        return tuple(arguments), config.mesh.num_slices
    if config.mesh.num_slices == count:
        return tuple(arguments), count
    config.mesh.num_slices = count
    return (*arguments, f"--config.{_SLICES}={count}"), count


def check_shared(
    given: argparse.Namespace,
    config: ConfigDict | None,
    root: pathlib.Path,
    *,
    mounted: bool,
) -> None:
    """Refuses paths that the hosts do not share, or that end with them (ValueError)."""
    writes = {f"--{name}": getattr(given, name, None) for name in _WRITES}
    reads = {f"--{name}": getattr(given, name, None) for name in _READS}
    if config is not None:
        writes |= {f"--config.{name}": _field(config, name) for name in _FIELDS_WRITTEN}
        reads |= {f"--config.{name}": _field(config, name) for name in _FIELDS_READ}
    for flag, path in writes.items():
        if path and not is_shared(path, mounted=mounted):
            raise ValueError(
                f"{flag}={path}: the hosts do not share this path, and it ends with them: give "
                f"gs://BUCKET/..., or mount storage (--mount, on GKE --storage) and give a path "
                f"below {MOUNT_POINT}"
            )
    for flag, paths in reads.items():
        for path in names_in(paths or ""):
            in_clone = not path.startswith("/") and "://" not in path and (root / path).exists()
            if path not in _BUILT_IN and not in_clone and not is_shared(path, mounted=mounted):
                raise ValueError(
                    f"{flag}={path}: the hosts have no such path: copy it to a bucket and give "
                    f"gs://BUCKET/..., or mount storage and give a path below {MOUNT_POINT}"
                )


def is_shared(path: str, *, mounted: bool) -> bool:
    """Whether every host finds the same at a path: an object store's, or below the mount."""
    if is_remote(path):  # every host reaches it without a mount
        return True
    normal = posixpath.normpath(path)
    return mounted and pathlib.PurePosixPath(normal).is_relative_to(MOUNT_POINT)


def _field(config: ConfigDict, name: str) -> str:
    value = config
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, ConfigDict) else ""
    return value


def check_training(config: ConfigDict, chips: int) -> int:
    """Resolves a training config for so many chips, without data or devices.

    Returns:
        The steps of the run.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    config = copy.deepcopy(config)
    if config.objective not in OBJECTIVES:
        raise ValueError(
            f"objective is {config.objective!r}: choose one of {', '.join(OBJECTIVES)}"
        )
    check_names(config)
    profiled_steps(config.profile)
    model_config(config, 1)
    if not config.mixture.modules:
        for name in stage_mixtures(config).values():
            check_mixture_name(name)
    sizes = {name: config.mesh[name] for name in CONFIG_AXES}
    known = math.prod(size for size in sizes.values() if size != -1)
    free = list(sizes.values()).count(-1)
    if known < 1 or free > 1 or chips % known or (not free and known != chips):
        axes = " x ".join(f"{name} {size}" for name, size in sizes.items() if size != 1)
        raise ValueError(
            f"config.mesh is {axes} and the run has {chips} chips: make the product equal, or set "
            "one axis to -1"
        )
    rows = config.batch.sequences or config.batch.sequences_per_chip * chips
    return plan_run(config, rows).steps


def check_whole(
    config: ConfigDict, *, builtin_data: bool = False, random_weights: bool = False
) -> None:
    """Refuses a run on the corpus of the package or from random weights, unless that is allowed.

    Raises:
        ValueError: the field that is not set, and the remedy.
    """
    own = any(is_mixture_name(name) for name in stage_mixtures(config).values())
    if own and config.data in _BUILT_IN and not builtin_data:
        raise ValueError(
            f"config.data is {config.data!r}: the run would train on the corpus that ships with "
            "the package; give --config.data=gs://BUCKET/sources.json, or for a smoke test "
            "--allow_builtin_data"
        )
    if not config.init_from and not random_weights:
        raise ValueError(
            "config.init_from is empty: the run would train random weights; give "
            "--config.init_from=gs://BUCKET/base, or to train from scratch --allow_random_weights"
        )
