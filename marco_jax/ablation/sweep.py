"""`marco sweep`: trains proxy runs, fits them, proposes and confirms a mixture, writes a page.

Each part skips what exists, so that the same command resumes a killed sweep.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable

import jax
from ml_collections import ConfigDict

from marco_jax.ablation.proxies import DONE, STOPPED, Runs
from marco_jax.ablation.swarm import Swarm, check_same, design_lines, frozen_plan, plan_swarm
from marco_jax.ablation.sweep_config import check_fields, confirm_steps
from marco_jax.ablation.trial import time_runs
from marco_jax.files import as_path, write_json
from marco_jax.planning.memory import device_bytes, sweep_lanes
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.lock import locked
from marco_jax.runtime.progress import duration
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.training.assemble import create_sharding
from marco_jax.training.checks import check_config
from marco_jax.training.config import ConfigError, model_config
from marco_jax.training.loop import train
from marco_jax.weights.models import find_model

_log = logging.getLogger(__name__)

PLAN, PROXIES, CONFIRMATION, TRIAL = "sweep.json", "proxies", "confirm", "trial"


def sweep(config: ConfigDict, workdir: str, source: str, *, dry_run: bool = False) -> int:
    """Runs a sweep in `workdir`, or resumes it.

    Args:
        config: a config with the fields of sweep_config.py.
        workdir: gets sweep.json, a workdir for each run, the metrics and the page.
        source: the config's file, for the command that is printed at the end.
        dry_run: only print the runs and the time that they will take, which a few steps of some
            of them show.

    Returns:
        0, or 143 after a SIGTERM, with checkpoints saved.

    Raises:
        ValueError: the config, the data or the workdir is invalid.
        RunFailed: too few runs have metrics to fit.
    """
    if "sweep" not in config:
        raise ConfigError(f"--config={source} has no config.sweep: see configs/mixture_ablation.py")
    directory = as_path(workdir)
    check_fields(config)
    check_config(config)
    directory.mkdir(parents=True, exist_ok=True)
    if not config.data_cache:
        # Shared, so that all runs tokenise the data once.
        config.data_cache = str(directory / "data")
    swarm = plan_swarm(config, directory)
    _print(design_lines(swarm, config))
    lanes = _lanes(config, swarm)
    if lanes > 1:
        _print([f"{lanes} runs at once (sweep.parallel={config.sweep.parallel})"])
    plan = frozen_plan(swarm, config)
    check_same(directory / PLAN, plan)
    if dry_run:
        return _time(config, directory, swarm, lanes)
    with locked(directory):
        if jax.process_index() == 0:
            write_json(directory / PLAN, plan)
        runs = Runs(directory / PROXIES, config, swarm.proxies, train, lanes)
        if runs.run() == STOPPED:
            return STOPPED
        return _conclude(config, directory, source, swarm, runs, lanes)


def _time(config: ConfigDict, directory: pathlib.Path, swarm: Swarm, lanes: int) -> int:
    """Trains some runs for a few steps and prints the time that the sweep will take."""
    # Without the run of two stages, which has another shape.
    proxies = swarm.proxies[: len(swarm.design.names)]
    with locked(directory):
        cost = time_runs(config, proxies, directory / TRIAL, train, lanes)
    if cost is None:
        return STOPPED
    seconds = cost.seconds(config, len(proxies), config.steps)
    if config.sweep.two_stages:
        # Its schedule makes another program.
        seconds += dataclasses.replace(cost, lanes=1).seconds(config, 1, config.steps)
    text, seeds = f"about {duration(seconds)}", config.sweep.confirm.seeds
    if seeds:
        confirming = cost.seconds(config, 2 * seeds, confirm_steps(config))
        text += f", and {duration(confirming)} to confirm"
    _print([f"{text} ({cost.line()})"])
    return DONE


def _conclude(
    config: ConfigDict,
    directory: pathlib.Path,
    source: str,
    swarm: Swarm,
    runs: Runs,
    lanes: int,
) -> int:
    """Fits finished runs, proposes and confirms a mixture, and writes the report."""
    from marco_jax.ablation.analysis import analyse
    from marco_jax.ablation.confirm import confirm
    from marco_jax.ablation.sweep_page import write_sweep_report

    missing = [p.name for p in swarm.proxies if not runs.results(p)]
    if len(swarm.design.names) - len(missing) < 4:
        raise RunFailed(f"{len(missing)} runs have no metrics: {', '.join(missing[:5])}")
    analysis = analyse(config, swarm, runs)
    _print(analysis.lines(config, source))
    if jax.process_index() == 0:
        analysis.write(directory)
    code = DONE
    if analysis.proposal.weights is not None and config.sweep.confirm.seeds:
        confirmed = Runs(directory / CONFIRMATION, config, (), train, lanes)
        code, confirmation = confirm(config, swarm, analysis, confirmed)
        _print(confirmation.lines())
        if jax.process_index() == 0:
            write_json(directory / "confirmation.json", confirmation.to_json())
    if jax.process_index() == 0:
        _log.info(f"report: {write_sweep_report(directory)}")
    return code


def _lanes(config: ConfigDict, swarm: Swarm) -> int:
    """The number of runs that train at once."""
    if config.init_from:
        model = find_model(config.init_from, weights_only=True).config
    else:
        model = model_config(config, load_tokenizer(config.tokenizer.path).vocab_size)
    runs = len(swarm.design.names)
    return sweep_lanes(config, model, create_sharding(config), runs, device_bytes())


def _print(lines: Iterable[str]) -> None:
    """Prints results to stdout from the first process; progress is logged instead."""
    for line in lines:
        if jax.process_index() == 0:
            print(line, flush=True)
