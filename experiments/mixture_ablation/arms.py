"""Trains the arms of a study from one base with several seeds, and compares bits per byte."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import parse_overrides
from marco_jax.ablation.proxies import STOPPED, Proxy, Runs
from marco_jax.ablation.run_metrics import target_values
from marco_jax.files import write_json
from marco_jax.planning.dry_run import describe_run
from marco_jax.runtime.compilation_cache import enable_compilation_cache
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.lock import locked
from marco_jax.runtime.logs import configure_logging
from marco_jax.training.config import load_config
from marco_jax.training.loop import train

_BITS = "bits_per_byte/bits_per_byte/"


class Arms:
    """Runs from one base: the same fields but for those of the arm and the seed.

    Attributes:
        config: fields that all runs share.
        seeds: number of seeds; they count from `config.seed`.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        arms: Mapping[str, Mapping[str, Any]],
        seeds: int,
    ) -> None:
        """Checks nothing yet.

        Args:
            config: of a run.
            workdir: has a folder for each run.
            arms: fields by name of the arm.
            seeds: at least 1.
        """
        self.config, self.seeds = config, seeds
        self._workdir = workdir
        self._proxies = {}
        for number, (arm, changes) in itertools.product(range(seeds), arms.items()):
            # All arms share the base: its metrics are read once.
            own = {
                **changes,
                "seed": config.seed + number,
                "evaluation.at_start": not self._proxies,
            }
            self._proxies[arm, number] = Proxy(f"{arm}-seed{number}", own)
        self._runs: Runs | None = None

    def train(self) -> int:
        """Trains all runs, or goes on with them; 0, or STOPPED after a SIGTERM.

        Raises:
            ValueError: `config.init_from` is not set.
            RunFailed: a run has no metrics at its end.
        """
        if not self.config.init_from:
            raise ValueError("init_from is not set: the arms start from a base, a run or directory")
        self._workdir.mkdir(parents=True, exist_ok=True)
        if not self.config.data_cache:
            self.config.data_cache = str(self._workdir / "data")
        runs = Runs(self._workdir / "runs", self.config, list(self._proxies.values()), train)
        with locked(self._workdir):
            if runs.run() == STOPPED:
                return STOPPED
        self._runs = runs
        if not self.before() or not all(all(self.bits(arm)) for arm, _ in self._proxies):
            failed = "; ".join(runs.table())
            raise RunFailed(f"not every run has metrics ({failed}): the same command tries again")
        return 0

    def describe(self) -> Iterator[str]:
        """Checks all arms and yields a description of each: steps, tokens and mixtures by stage.

        Raises:
            ValueError, OSError: as `train`, of the config and the data.
        """
        yield f"{len(self._proxies) // self.seeds} arms with {self.seeds} seeds each: " + (
            f"{len(self._proxies)} runs"
        )
        for (arm, number), proxy in self._proxies.items():
            if not number:
                run = describe_run(proxy.config(self.config), str(self.workdir(arm, 0)))
                yield f"\n## {arm}\n\n{run}"

    def workdir(self, arm: str, number: int) -> pathlib.Path:
        """The folder of a run."""
        return self._workdir / "runs" / self._proxies[arm, number].name

    def arm_config(self, arm: str) -> ConfigDict:
        """The config of an arm with the first seed."""
        return self._proxies[arm, 0].config(self.config)

    def before(self) -> dict[str, float]:
        """Bits per byte of the base, by language."""
        return self._bits(next(iter(self._proxies.values())), 0)

    def bits(self, arm: str, step: int | None = None) -> list[dict[str, float]]:
        """Bits per byte after a step of an arm (None: its last), by language; a seed each."""
        return [self._bits(self._proxies[arm, number], step) for number in range(self.seeds)]

    def _bits(self, proxy: Proxy, step: int | None) -> dict[str, float]:
        found = target_values(self._runs.results(proxy, step)).items()
        bits = {name.removeprefix(_BITS): value for name, value in found if name.startswith(_BITS)}
        return {code: value for code, value in bits.items() if code not in ("all", "high", "low")}


def ratios(
    values: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> dict[str, list[float]]:
    """Relative change from `others` to `values` (ratio less one), by language; a seed each."""
    pairs = list(zip(values, others, strict=True))
    return {code: [mine[code] / base[code] - 1 for mine, base in pairs] for code in others[0]}


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    around = f" ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):+.1%}{around}"


def command(
    name: str,
    purpose: str,
    arms: Mapping[str, Mapping[str, Any]],
    compare: Callable[[Arms], dict[str, Any]],
    write: Callable[[dict[str, Any], pathlib.Path], list[str]],
    argv: Sequence[str] | None,
) -> int:
    """The command line of a study: trains its arms and writes NAME.json into the workdir.

    Args:
        name: of the study.
        purpose: one line of help.
        arms: fields by name of the arm.
        compare: plain data from the arms that were trained.
        write: writes further files into the workdir, and returns lines to print.
        argv: flags; None: those of the process.

    Returns:
        0; 1 for a run that failed, 2 for bad fields, STOPPED after a SIGTERM.
    """
    configure_logging()
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry_run", action="store_true", help="print the arms, train nothing")
    arguments, overrides = parse_overrides(parser, argv)
    if arguments.seeds < 1:
        parser.error(f"--seeds={arguments.seeds}: at least 1")
    enable_compilation_cache()
    workdir = pathlib.Path(arguments.workdir)
    try:
        study = Arms(load_config(arguments.config, overrides), workdir, arms, arguments.seeds)
        if arguments.dry_run:
            print("\n".join(study.describe()))
            return 0
        if study.train() == STOPPED:
            return STOPPED
        found = compare(study)
    except (ValueError, OSError, RunFailed) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    write_json(workdir / f"{name}.json", found)
    print("\n".join(write(found, workdir)))
    return 0
