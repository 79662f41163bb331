"""Runs of `marco` on TPU slices.

    python -m experiments.pods launch --name=stage1 --topology=v5p:4x4x4 --project=P --zone=Z \
        --mount=bucket:B -- train --config=configs/qwen2_7b.py --workdir=/mnt/marco/stage1
    python -m experiments.pods logs --name=stage1 --topology=v5p:4x4x4 --project=P --zone=Z
    python -m experiments.pods estimate --config=configs/qwen2_7b.py --plan=plan.json --price=4.2

`launch` asks for the slices, sets every host up, starts the run, watches it and starts it again
after a preemption; the same command goes on watching a run that is there. With --via=xpk the run is
a workload on GKE, which Kubernetes starts again. --dry_run prints each command and runs none.

No real pod has run this: its commands are tested against programs that record them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from experiments.pods.estimate import estimate_lines
from experiments.pods.gke import Workload
from experiments.pods.queued import QueuedRun, Request
from experiments.pods.shell import CommandFailed, Shell, say
from experiments.pods.slices import Slice

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DONE, FAILED, BAD_INPUT = 0, 1, 2
QUEUED, XPK = "queued", "xpk"
VERBS = {
    "launch": "from nothing, or from wherever it is, to the end of the run",
    "status": "the state of the slices and of the run on every host",
    "logs": "copy what every host has printed to --logs",
    "stop": "SIGTERM to the run: it saves and ends",
    "delete": "give the slices back",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 done, 1 failed, 2 bad input)."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    given, marco = given[:split], given[split + 1 :]
    arguments = create_parser().parse_args(given)
    try:
        if arguments.verb == "estimate":
            return _estimate(arguments)
        if arguments.verb == "launch" and not marco:
            raise ValueError(
                "launch needs what marco is to do after --, such as "
                "-- train --config=configs/qwen2_7b.py --workdir=/mnt/marco/run"
            )
        if arguments.verb != "launch" and marco:
            raise ValueError(f"{arguments.verb} takes nothing after --")
        _check_workdir(arguments, marco)
        shell = Shell(dry_run=arguments.dry_run, pause=arguments.pause)
        run = _via_xpk if arguments.via == XPK else _via_queue
        return run(arguments, marco, shell)
    except (ValueError, OSError) as error:
        say(f"pods: {' '.join(str(error).split())}")
        return BAD_INPUT
    except CommandFailed as error:
        say(f"pods: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("pods: no longer watched; the run goes on, and the same command watches it again")
        return 130


def _via_queue(arguments: argparse.Namespace, marco: list[str], shell: Shell) -> int:
    request = Request(**_place(arguments), capacity=arguments.capacity, mount=arguments.mount)
    run = QueuedRun(request, marco, shell)
    logs = pathlib.Path(arguments.logs)
    if arguments.verb == "launch":
        return run.launch(ROOT, logs, arguments.poll, arguments.restarts)
    if arguments.verb == "status":
        print("\n".join(run.status()))
    elif arguments.verb == "logs":
        run.gather(logs)
    elif arguments.verb == "stop":
        run.stop()
    else:
        run.delete()
    return DONE


def _via_xpk(arguments: argparse.Namespace, marco: list[str], shell: Shell) -> int:
    for name in ("cluster", "image"):
        if not getattr(arguments, name) and (name == "cluster" or arguments.verb == "launch"):
            raise ValueError(f"--via=xpk needs --{name}")
    own = {name: getattr(arguments, name) for name in ("cluster", "image", "storage", "restarts")}
    workload = Workload(**_place(arguments), **own)
    if arguments.verb in ("status", "stop"):
        raise ValueError(
            f"--via=xpk has no {arguments.verb}: see `xpk workload list`, or delete it"
        )
    if arguments.verb == "delete":
        workload.delete(shell)
        return DONE
    code = DONE
    if arguments.verb == "launch":
        workload.submit(marco, shell)
        code = DONE if workload.wait(shell) == 0 else FAILED
    text = workload.logs(shell)
    if not shell.dry_run:
        logs = pathlib.Path(arguments.logs)
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"{arguments.name}.log").write_text(text, encoding="utf-8")
        say(f"logs: {logs / arguments.name}.log")
    return code


def _place(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that both kinds of run have."""
    return {
        "slice": Slice.parse(arguments.topology),
        "count": arguments.num_slices,
        **{name: getattr(arguments, name) for name in ("name", "project", "zone")},
    }


def _check_workdir(arguments: argparse.Namespace, marco: list[str]) -> None:
    """Several hosts write one checkpoint: its place is shared."""
    workdir = next((flag for flag in marco if flag.startswith("--workdir=")), "")
    path = workdir.partition("=")[2]
    if arguments.via == XPK or not path or Slice.parse(arguments.topology).hosts == 1:
        return
    if arguments.mount == "none" or not path.startswith("/mnt/marco"):
        raise ValueError(
            f"{shlex.quote(workdir)}: the hosts of {arguments.topology} share no such place; "
            "give --mount=bucket:NAME and a workdir below /mnt/marco"
        )


def _estimate(arguments: argparse.Namespace) -> int:
    from marco_jax.training.config import load_config

    plan = json.loads(pathlib.Path(arguments.plan).read_text(encoding="utf-8"))
    config = load_config(arguments.config)
    steps = arguments.steps or config.steps
    topology = plan.get("planned", {}).get("topology") or config.topology
    chips = Slice.parse(topology).chips * plan.get("planned", {}).get("num_slices", 1)
    print("\n".join(estimate_lines(plan, steps, chips, arguments.price)))
    return DONE


def create_parser() -> argparse.ArgumentParser:
    """The flags of every verb."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pods",
        description=__doc__.partition("\n")[0],
        epilog="No real pod has run this.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        verb.add_argument("--name", required=True, help="of the run and its slices")
        verb.add_argument("--topology", required=True, help="of one slice, such as v5p:4x4x4")
        verb.add_argument("--num_slices", type=_positive, default=1)
        verb.add_argument("--project", required=True)
        verb.add_argument("--zone", required=True, help="such as us-east5-a")
        verb.add_argument("--via", choices=(QUEUED, XPK), default=QUEUED)
        verb.add_argument(
            "--capacity", choices=("on-demand", "spot", "reserved"), default="on-demand"
        )
        verb.add_argument(
            "--mount", default="none", help="at /mnt/marco: bucket:NAME, nfs:SERVER:/PATH or none"
        )
        verb.add_argument("--cluster", default="", help="with --via=xpk")
        verb.add_argument(
            "--image", default="", help="with --via=xpk: of experiments/pods/Dockerfile"
        )
        verb.add_argument("--storage", default="", help="with --via=xpk: name of an `xpk storage`")
        verb.add_argument("--logs", default="logs", help="a folder for what hosts print")
        verb.add_argument("--restarts", type=int, default=100, help="before launch gives up")
        verb.add_argument("--poll", type=float, default=60.0, help="seconds between two looks")
        verb.add_argument("--pause", type=float, default=5.0, help="seconds before a second try")
        verb.add_argument("--dry_run", action="store_true", help="print commands, run none")
    cost = verbs.add_parser("estimate", help="hours, chip-hours and cost, from a plan")
    cost.add_argument("--config", required=True, help="whose steps are counted")
    cost.add_argument("--plan", required=True, help="what `marco plan --out` has written")
    cost.add_argument("--steps", type=_positive, help="default: the config's")
    cost.add_argument("--price", type=float, help="of a chip and hour, in any currency")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
