"""Studies and launchers on top of the package, run from a clone: `python -m experiments.NAME`."""

import argparse
from collections.abc import Sequence


def parse_overrides(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses flags; also returns the fields of a config that `--config.NAME=VALUE` set."""
    arguments, rest = parser.parse_known_args(argv)
    for item in rest:
        if not item.startswith("--config."):
            parser.error(f"unrecognized argument {item}")
    return arguments, [item.removeprefix("--config.") for item in rest]
