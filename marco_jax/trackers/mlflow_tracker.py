"""MLflow."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from marco_jax.extras import optional
from marco_jax.trackers.kept_ids import kept_id
from marco_jax.trackers.tracker import Tracker, flat_config

# What a request may hold, by MLflow's limits.
_PARAMS, _METRICS, _VALUE = 100, 1000, 6000
# Metrics wait so many seconds for others to go with them.
_SECONDS = 5.0
# Characters that names may not have.
_UNKNOWN = re.compile(r"[^\w\-. /]")


class MlflowTracker(Tracker):
    """A run of the experiment `mlflow.experiment`, which a restart goes on with.

    Its id is in the workdir's mlflow_run.json. Params are the config of the first start, since
    MLflow lets none be changed.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], step: int) -> None:
        """Starts the run, or goes on with it; see Tracker for the arguments.

        Raises:
            MissingExtra: mlflow is not installed.
        """
        with optional("trackers=mlflow"):
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        self._metric, fields = Metric, config["mlflow"]
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        self._client = client = MlflowClient(tracking_uri=fields["tracking_uri"] or None)

        def create() -> str:
            found = client.get_experiment_by_name(fields["experiment"])
            number = (
                found.experiment_id if found else client.create_experiment(fields["experiment"])
            )
            return client.create_run(number, run_name=workdir.resolve().name).info.run_id

        self._id = kept_id(workdir / "mlflow_run.json", create)
        client.update_run(self._id, status="RUNNING")
        there = client.get_run(self._id).data.params
        params = [
            Param(name, str(value)[:_VALUE])
            for field, value in flat_config(config).items()
            if (name := _UNKNOWN.sub("_", field)) not in there
        ]
        for start in range(0, len(params), _PARAMS):
            client.log_batch(self._id, params=params[start : start + _PARAMS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics, and sends what is kept now and then."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            self._waiting.append(self._metric(metric_name(name), value, now, step))
        if len(self._waiting) >= _METRICS or time.monotonic() - self._sent >= _SECONDS:
            self.sync()

    def sync(self) -> None:
        """Sends what is kept. What cannot be sent is dropped, so that it does not pile up."""
        waiting, self._waiting = self._waiting, []
        try:
            for start in range(0, len(waiting), _METRICS):
                self._client.log_batch(self._id, metrics=waiting[start : start + _METRICS])
        finally:
            self._sent = time.monotonic()

    def close(self) -> None:
        """Sends what is kept, and ends the run."""
        try:
            self.sync()
        finally:
            self._client.set_terminated(self._id)


def metric_name(name: str) -> str:
    """The name of a metric at MLflow: "eval/translation/chrf++/kk" is eval/translation.chrf__.kk.

    MLflow refuses some characters, and in a folder "loss/web" and "loss/web/kk" would be a file and
    a folder of one name: of the slashes only the first remains.
    """
    group, slash, rest = _UNKNOWN.sub("_", name).partition("/")
    return group + slash + rest.replace("/", ".")
