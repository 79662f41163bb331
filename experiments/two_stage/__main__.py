"""Marco-LLM as one chain: base, Stage-I, Stage-II, SFT, DPO, export.

    python -m experiments.two_stage --config=configs/two_stage.py --workdir=runs/two_stage
    python -m experiments.two_stage --config=configs/two_stage_7b.py --plan

The workdir has a run a part (pretrain, sft, dpo), the export (huggingface) and chain.json with the
metrics after each part. After a kill the same command continues the chain. With --plan nothing
runs: the TPU compiler says of every part whether its step fits its machine.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from experiments import parse_overrides

BAD_INPUT, FAILED = 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs or plans a chain; returns the exit code (143: stopped after saving)."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.two_stage",
        description=__doc__.partition("\n")[0],
        epilog="Any field: --config.pretrain.steps=100 --config.sft.data=chat.json",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a file such as configs/two_stage.py")
    parser.add_argument("--workdir", help="of the chain; goes on with what is there")
    parser.add_argument("--plan", action="store_true", help="compile for TPUs instead of running")
    parser.add_argument("--topology", default="", help="with --plan; default: each part's own")
    parser.add_argument("--out", help="with --plan: the numbers as JSON")
    arguments, overrides = parse_overrides(parser, argv)
    if not arguments.plan and not arguments.workdir:
        parser.error("give --workdir, or --plan")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.plan:
        # The machine that plans need not be the one that runs: no TPU is started.
        os.environ["JAX_PLATFORMS"] = "cpu"
    from marco_jax.planning.plan import DoesNotFit
    from marco_jax.runtime.errors import RunFailed
    from marco_jax.runtime.logs import configure_logging

    configure_logging()
    try:
        return _run(arguments, overrides)
    except (ValueError, OSError, RunFailed, DoesNotFit) as error:
        print(f"two_stage: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED if isinstance(error, (RunFailed, DoesNotFit)) else BAD_INPUT


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from experiments.two_stage import chain
    from marco_jax.files import write_json
    from marco_jax.planning.plan_text import format_plan
    from marco_jax.runtime.compilation_cache import enable_compilation_cache
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, overrides)
    if not arguments.plan:
        enable_compilation_cache()
        workdir = pathlib.Path(arguments.workdir)
        code = chain.run(config, workdir)
        if code == chain.DONE:
            print("\n".join(chain.lines(json.loads((workdir / chain.SUMMARY).read_text("utf-8")))))
        return code
    found = chain.plan(config, arguments.topology)
    if arguments.out:
        write_json(pathlib.Path(arguments.out), found)
    for part, plan in found.items():
        print(f"{part}\n{format_plan(plan)}\n")
    return chain.DONE if all(plan["memory"]["fits"] for plan in found.values()) else FAILED


if __name__ == "__main__":
    sys.exit(main())
