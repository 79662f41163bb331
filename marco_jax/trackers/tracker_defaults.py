"""Fields of a config that belong to trackers."""

from __future__ import annotations

from ml_collections import ConfigDict


def set_tracker_defaults(c: ConfigDict) -> None:
    """Adds the fields `trackers`, `wandb` and `mlflow`, with their defaults."""
    # Where metrics go besides metrics.jsonl, comma-separated: "tensorboard", "wandb", "mlflow", or
    # a class of your own as package.module:Class or file.py:Class (docs/trackers.md). Empty:
    # nowhere.
    c.trackers = "tensorboard"
    # Weights & Biases, with the extra `wandb`.
    c.wandb = ConfigDict(
        {
            # Set, it adds "wandb" to `trackers`.
            "project": "",
            # Name of the run there; empty: the workdir's.
            "name": "",
        }
    )
    # MLflow, with the extra `mlflow`.
    c.mlflow = ConfigDict(
        {
            # Address of a server; empty: the variable MLFLOW_TRACKING_URI. A database, such as
            # sqlite:///runs.db, takes the package `mlflow` instead of mlflow-skinny.
            "tracking_uri": "",
            # The experiment that has the run; it is created where it does not exist.
            "experiment": "marco_jax",
        }
    )
