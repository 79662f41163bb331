"""What `marco plan`, `sweep` and `report` do."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

import jax
from ml_collections import ConfigDict

from marco_jax.files import as_path
from marco_jax.languages import add_config_languages, names_in


def plan_command(arguments: argparse.Namespace) -> int:
    """Compiles a training step for a TPU topology and reports memory, FLOPs and bytes sent."""
    # The TPUs are described by the topology: none is started.
    jax.config.update("jax_platforms", "cpu")
    from marco_jax.files import write_json
    from marco_jax.planning.plan import DoesNotFit, plan_step
    from marco_jax.planning.plan_decoding import KERNELS, plan_kernels, plan_round
    from marco_jax.planning.plan_text import format_comparison, format_plan
    from marco_jax.planning.search import format_search, search_meshes
    from marco_jax.training.checks import check_names
    from marco_jax.training.config import ConfigError, load_config

    def load(path: str) -> tuple[ConfigDict, str]:
        config = load_config(path, arguments.overrides)
        if arguments.num_slices is not None:
            config.mesh.num_slices = arguments.num_slices
        add_config_languages(config)
        check_names(config)
        if not (arguments.topology or config.topology):
            raise ConfigError(f"{path} has no config.topology: give --topology=v5p:4x4x4")
        return config, arguments.topology or config.topology

    hlo = as_path(arguments.hlo) if arguments.hlo else None
    try:
        if arguments.search:
            found = search_meshes(
                *load(arguments.config),
                compiles=arguments.search,
                sequences=arguments.search_sequences,
            )
            text = format_search(found)
        elif arguments.compare:
            found = [
                plan_step(*load(arguments.config), hlo_path=hlo),
                plan_step(*load(arguments.compare)),
            ]
            text = format_comparison(*found)
        else:
            programs = names_in(arguments.only)
            if unknown := set(programs) - {"train", *KERNELS}:
                known = ", ".join(("train", *KERNELS))
                raise ValueError(f"--only names {unknown.pop()!r}: choose from {known}")
            loaded = load(arguments.config)
            found = plan_step(*loaded, hlo_path=hlo) if "train" in programs else {}
            if chosen := [name for name in KERNELS if name in programs]:
                found["kernels"] = plan_kernels(*loaded, chosen)
            if whole := plan_round(loaded[0], found):
                found["round"] = whole
            text = format_plan(found)
    except DoesNotFit as error:
        print(f"marco plan: {error}", file=sys.stderr)
        return 1
    print(text)
    if arguments.out:
        write_json(as_path(arguments.out), found)
    return 0


def sweep_command(arguments: argparse.Namespace) -> int:
    """Ablates a mixture: proxy runs, a fit, a proposal and its confirmation."""
    from marco_jax.runtime.compilation_cache import enable_compilation_cache
    from marco_jax.runtime.processes import join, watch_others
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    host = join(config.distributed)
    # Runs that differ only in their mixture compile once.
    enable_compilation_cache()
    from marco_jax.ablation.sweep import sweep

    with watch_others(host):
        return sweep(config, arguments.workdir, arguments.config, dry_run=arguments.dry_run)


def report_command(arguments: argparse.Namespace) -> int:
    """Writes the page of a run and prints its metrics, or one page of several runs, or serves."""
    if arguments.serve:
        return _serve(arguments)
    from marco_jax.reports.run_page import write_report
    from marco_jax.reports.summary import format_summary, summary

    if arguments.compare:
        from marco_jax.reports.comparison_page import write_comparison

        page = write_comparison(arguments.compare, arguments.out or "comparison.html")
        print(f"report    {page}")
        return 0
    workdir = as_path(arguments.workdir)
    if not (workdir / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{workdir} holds no metrics.jsonl: give the workdir of a run")
    page = write_report(workdir)
    program = sys.argv[0] if sys.argv[0].endswith("marco") else "python -m marco_jax"
    evaluate_again = f"eval --model={workdir} --languages=kk,ne --out={workdir / 'kk_ne.json'}"
    print(
        f"{format_summary(summary(workdir))}\n\n"
        f"workdir   {workdir}\n"
        f"report    {page}\n"
        f"try next  {program} {evaluate_again}"
    )
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    """Serves pages of runs until the reader ends it."""
    from marco_jax.reports.serve import ReportServer

    if not 0 <= arguments.port < 1 << 16:
        raise ValueError(f"--port={arguments.port} is not a port: give 0 to 65535")
    if arguments.every <= 0:
        raise ValueError(f"--every={arguments.every:g}: give a number of seconds above 0")
    token = arguments.token or os.environ.get("MARCO_TOKEN", "")
    with (
        ReportServer(
            *(arguments.serve, arguments.host, arguments.port), token=token, every=arguments.every
        ) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"{len(server.runs.names())} runs at {server.address} (Ctrl+C ends)", flush=True)
        server.serve_forever()
    return 0
