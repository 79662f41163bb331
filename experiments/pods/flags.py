"""The flags of every verb, and those that the record of a run fills in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from experiments.pods.request import CAPACITIES

QUEUED, XPK = "queued", "xpk"
VERBS = {
    "launch": "from nothing, or from wherever it is, to the end of the run; releases the slices",
    "status": "the state of the slices and of the run on every host; attempt and cost",
    "logs": "the end of the first host's log, or what every host has printed",
    "stop": "SIGTERM to the run: it saves and ends; releases the slices",
    "delete": "release the slices, whatever runs on them",
}
# Where a run is: `launch` records it, and the other verbs find it there.
RECORDED = ("topology", "num_slices", "project", "zone", "via", "cluster")
_NEEDED = ("topology", "project", "zone")


class _Parser(argparse.ArgumentParser):
    """Raises ValueError in place of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self.prog} --help lists the flags")


def create_launcher_parser(summary: str) -> argparse.ArgumentParser:
    """The parser of `python -m experiments.pods`."""
    parser = _Parser(
        prog="python -m experiments.pods",
        description=summary,
        epilog="No real pod has run this.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_location(verb)
        _ADD.get(name, lambda verb: None)(verb)
        verb.add_argument("--logs", default="logs", help="a folder for logs and the run's record")
        verb.add_argument("--pause", type=float, default=5.0, help="seconds before a second try")
        verb.add_argument("--dry_run", action="store_true", help="print commands, run none")
    cost = verbs.add_parser("estimate", help="hours, chip-hours and cost, from a plan")
    cost.add_argument("--config", required=True, help="whose steps are counted")
    cost.add_argument("--plan", required=True, help="what `marco plan --out` has written")
    cost.add_argument("--steps", type=_positive, help="default: the config's")
    _add_price(cost)
    return parser


def fill_in(arguments: argparse.Namespace, recorded: Mapping[str, Any]) -> None:
    """Sets what is not given from the record of the run.

    Raises:
        ValueError: a flag that is needed and neither given nor recorded.
    """
    defaults = {"via": QUEUED, "cluster": "", "num_slices": None}
    known = {} if arguments.verb == "launch" else recorded
    for name in RECORDED:
        if getattr(arguments, name) is None:
            setattr(arguments, name, known.get(name, defaults.get(name)))
    missing = [name for name in _NEEDED if not getattr(arguments, name)]
    if missing:
        why = "" if arguments.verb == "launch" else f", since --logs={arguments.logs} has no record"
        raise ValueError(f"{arguments.verb} needs --{missing[0]}{why}")
    if arguments.via == XPK and not arguments.cluster:
        raise ValueError("--via=xpk needs --cluster")


def _add_location(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--name", required=True, help="of the run and its slices")
    verb.add_argument("--topology", help="of one slice, such as v5p:4x4x4")
    verb.add_argument(
        "--num_slices", type=_positive, help="also config.mesh.num_slices; default: the config's"
    )
    verb.add_argument("--project")
    verb.add_argument("--zone", help="such as us-east5-a")
    verb.add_argument("--via", choices=(QUEUED, XPK), help="queued resources (default), or GKE")
    verb.add_argument("--cluster", help="with --via=xpk")


def _add_launch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--capacity", choices=CAPACITIES, help="default: on-demand; GKE's own")
    verb.add_argument("--reservation", default="", help="its name, with --capacity=reserved on GKE")
    verb.add_argument(
        "--mount", default="none", help="at /mnt/marco: bucket:NAME, nfs:SERVER:/PATH or none"
    )
    verb.add_argument(
        "--storage", default="", help="with --via=xpk: an `xpk storage` attached at /mnt/marco"
    )
    verb.add_argument("--image", default="", help="with --via=xpk: of experiments/pods/Dockerfile")
    verb.add_argument(
        "--service_account", default="", help="whose roles the hosts have; default: the project's"
    )
    verb.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for marco on every host"
    )
    verb.add_argument("--keep", action="store_true", help="keep the slices when the run has ended")
    verb.add_argument(
        "--restarts", type=int, default=100, help="after preemptions and failures, before giving up"
    )
    verb.add_argument(
        "--failures", type=_positive, default=5, help="in a row, before launch gives up"
    )
    verb.add_argument("--poll", type=float, default=60.0, help="seconds between two looks")
    verb.add_argument(
        "--allow_builtin_data", action="store_true", help="train the package's own corpus"
    )
    verb.add_argument(
        "--allow_random_weights", action="store_true", help="train without config.init_from"
    )
    verb.add_argument("--plan", default="", help="what `marco plan --out` has written, for status")
    _add_price(verb)


def _add_logs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--lines", type=_positive, default=50, help="of the first host; default: 50")
    verb.add_argument("--follow", action="store_true", help="go on with what the host prints")
    verb.add_argument(
        "--every_host", action="store_true", help="copy what every host has printed to --logs"
    )


def _add_stop(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--keep", action="store_true", help="keep the slices")


def _add_price(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--price", type=float, help="of a chip and hour, in any currency")


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


_ADD = {"launch": _add_launch, "status": _add_price, "logs": _add_logs, "stop": _add_stop}
