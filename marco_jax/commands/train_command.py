"""What `marco train` does."""

from __future__ import annotations

import argparse


def train_command(arguments: argparse.Namespace) -> int:
    """Trains as a config file says, in a workdir."""
    from marco_jax.runtime.attempts import process_start
    from marco_jax.runtime.processes import join, watch_others
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        from marco_jax.planning.dry_run import describe_run

        print(describe_run(config, arguments.workdir))
        return 0
    host = join(config.distributed)
    from marco_jax.training.loop import train

    with watch_others(host):
        return train(
            config, arguments.workdir, started=process_start(), config_path=arguments.config
        )
