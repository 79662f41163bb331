"""TensorBoard, Weights & Biases and MLflow: what they are given, and restarts."""

import json
import pathlib
import sys
import time
import types

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from marco_jax.extras import is_installed
from marco_jax.files import as_path
from marco_jax.trackers import mlflow_tracker
from marco_jax.trackers.mlflow_tracker import MlflowTracker, metric_name
from marco_jax.trackers.tensorboard_tracker import TensorBoardTracker
from marco_jax.trackers.wandb_tracker import WandbTracker
from tests.store_server import find_server, store_server

CONFIG = {
    "optimizer": {"b1": 0.9, "on": True},
    "data": "x" * 7000,
    "wandb": {"project": "marco", "name": ""},
    "mlflow": {"tracking_uri": "http://host", "experiment": "mine"},
    "many": {str(n): n for n in range(230)},
}


def events_in(folder):
    """The events of a run's files, in the order in which TensorBoard reads them."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            # TFRecord: length, checksum of the length, the event, its checksum.
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def shown_by_tensorboard(folder, tag):
    """(step, value) of a metric; a session that starts hides earlier events from its step on."""
    shown = []
    for event in events_in(folder):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            shown = [(step, value) for step, value in shown if step < event.step]
        shown += [(event.step, v.simple_value) for v in event.summary.value if v.tag == tag]
    return shown


def test_tensorboard_shows_repeated_steps_once(tmp_path):
    first = TensorBoardTracker(tmp_path, CONFIG, 0)
    for step in range(31):
        first.log(step, {"train/loss": float(step), "loss/kk": 1.0})
    # Safe after a checkpoint, if the process is killed then.
    first.sync()
    assert len(shown_by_tensorboard(tmp_path / "tensorboard", "train/loss")) == 31
    first.log(31, {"train/loss": 0.0})
    first.close()
    # Names of files have seconds.
    time.sleep(1.1)
    second = TensorBoardTracker(tmp_path, CONFIG, 20)
    for step in range(21, 26):
        second.log(step, {"train/loss": 100.0 + step})
    second.close()
    shown = shown_by_tensorboard(tmp_path / "tensorboard", "train/loss")
    assert shown == [(s, float(s)) for s in range(21)] + [(s, 100.0 + s) for s in range(21, 26)]
    assert [s for s, _ in shown_by_tensorboard(tmp_path / "tensorboard", "loss/kk")] == [*range(21)]


def test_a_run_that_starts_again_from_its_first_step_is_shown_once(tmp_path):
    for loss in (1.0, 2.0):
        tracker = TensorBoardTracker(tmp_path, CONFIG, 0)
        tracker.log(0, {"eval/x": loss})
        tracker.close()
        time.sleep(1.1)
    assert shown_by_tensorboard(tmp_path / "tensorboard", "eval/x") == [(0, 2.0)]


def test_hyperparameters_are_in_the_files_of_the_run(tmp_path):
    TensorBoardTracker(tmp_path, CONFIG, 0).close()
    # No folder below, which would be a run of its own.
    assert all(path.is_file() for path in (tmp_path / "tensorboard").iterdir())
    found = {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events_in(tmp_path / "tensorboard")
        for value in event.summary.value
    }
    values = found["_hparams_/session_start_info"].session_start_info.hparams
    assert values["optimizer.b1"].number_value == 0.9 and values["optimizer.on"].bool_value
    (metric,) = found["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == "train/loss"


def test_tensorboard_in_an_object_store(tmp_path):
    if not is_installed("s3fs"):
        pytest.skip("the libraries of the store are not installed")
    with store_server("s3", tmp_path) as found, find_server(found):
        workdir = as_path(f"{found.root}/run")
        tracker = TensorBoardTracker(workdir, CONFIG, 0)
        tracker.log(1, {"train/loss": 1.0})
        tracker.sync()
        tracker.log(2, {"train/loss": 2.0})
        assert shown_by_tensorboard(workdir / "tensorboard", "train/loss") == [(1, 1.0)]
        tracker.close()
        assert len(shown_by_tensorboard(workdir / "tensorboard", "train/loss")) == 2


class StubWandb(types.ModuleType):
    """Records the runs that are started, and what they are given."""

    def __init__(self):
        super().__init__("wandb")
        self.started = []

    def init(self, **fields):
        run = types.SimpleNamespace(fields=fields, logged=[], finished=False)
        run.log = lambda metrics, step: run.logged.append((step, metrics))
        run.finish = lambda: setattr(run, "finished", True)
        self.started.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    stub = StubWandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return stub


def test_weights_and_biases(wandb, tmp_path):
    (tmp_path / "my_run").mkdir()
    tracker = WandbTracker(tmp_path / "my_run", CONFIG, 0)
    tracker.log(1, {"train/loss": 2.0})
    tracker.log(1, {"eval/x": 3.0})
    tracker.close()
    (run,) = wandb.started
    given = run.fields
    assert (given["project"], given["name"], given["resume"]) == ("marco", "my_run", "allow")
    assert given["config"] == CONFIG
    assert run.logged == [(1, {"train/loss": 2.0}), (1, {"eval/x": 3.0})] and run.finished


def test_workdirs_of_one_name_are_different_runs_and_a_restart_is_the_same(wandb, tmp_path):
    for folder in ("A/prior", "B/prior", "A/prior"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        WandbTracker(tmp_path / folder, CONFIG, 0).close()
    a, b, again = (run.fields for run in wandb.started)
    assert a["id"] == again["id"] != b["id"]
    assert a["name"] == b["name"] == "prior"
    named = CONFIG | {"wandb": {"project": "marco", "name": "shown"}}
    WandbTracker(tmp_path / "A/prior", named, 0).close()
    assert (wandb.started[-1].fields["name"], wandb.started[-1].fields["id"]) == ("shown", a["id"])


def test_the_id_is_kept_before_it_is_used(monkeypatch, tmp_path):
    def killed(**fields):
        raise KeyboardInterrupt(fields["id"])

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=killed))
    with pytest.raises(KeyboardInterrupt) as error:
        WandbTracker(tmp_path, CONFIG, 0)
    kept = json.loads((tmp_path / "wandb_run.json").read_text())["id"]
    assert str(error.value) == kept


def test_a_file_without_an_id_is_refused(wandb, tmp_path):
    (tmp_path / "wandb_run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"wandb_run.json has no id: remove it"):
        WandbTracker(tmp_path, CONFIG, 0)


class StubMlflow(types.ModuleType):
    """A server of MLflow with its limits: what is too large, or set twice, is an error."""

    def __init__(self):
        super().__init__("mlflow")
        self.experiments, self.runs, self.fails = {}, {}, False
        self.entities = types.ModuleType("mlflow.entities")
        self.entities.Param = lambda key, value: types.SimpleNamespace(key=key, value=value)
        self.entities.Metric = lambda key, value, timestamp, step: types.SimpleNamespace(
            key=key, value=value, timestamp=timestamp, step=step
        )

    def MlflowClient(self, tracking_uri):  # noqa: N802
        assert tracking_uri == "http://host"
        return self

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return number and types.SimpleNamespace(experiment_id=number)

    def create_experiment(self, name):
        assert name not in self.experiments
        self.experiments[name] = str(len(self.experiments) + 1)
        return self.experiments[name]

    def create_run(self, experiment_id, run_name):
        data = types.SimpleNamespace(params={}, metrics=[])
        info = types.SimpleNamespace(run_id=f"id{len(self.runs)}", status="", run_name=run_name)
        info.experiment_id = experiment_id
        self.runs[info.run_id] = types.SimpleNamespace(info=info, data=data)
        return self.runs[info.run_id]

    def get_run(self, run_id):
        return self.runs[run_id]

    def update_run(self, run_id, status):
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id):
        self.runs[run_id].info.status = "FINISHED"

    def log_batch(self, run_id, metrics=(), params=()):
        if self.fails:
            raise ConnectionError("gone")
        assert len(metrics) <= 1000 and len(params) <= 100
        data = self.runs[run_id].data
        for param in params:
            assert param.key not in data.params and len(param.value) <= 6000
            data.params[param.key] = param.value
        data.metrics += [(metric.step, metric.key, metric.value) for metric in metrics]


@pytest.fixture
def mlflow(monkeypatch):
    stub = StubMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    monkeypatch.setitem(sys.modules, "mlflow.entities", stub.entities)
    return stub


def test_mlflow_and_a_restart_that_goes_on_with_its_run(mlflow, tmp_path):
    workdir = tmp_path / "my_run"
    tracker = MlflowTracker(workdir, CONFIG, 0)
    (run,) = mlflow.runs.values()
    assert run.info.status == "RUNNING" and run.info.run_name == "my_run"
    assert mlflow.experiments == {"mine": run.info.experiment_id}
    tracker.log(1, {"train/loss": 2.0})
    tracker.sync()
    tracker.log(2, {"train/loss": 1.0})
    tracker.close()
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.b1"] == "0.9" and len(run.data.params["data"]) == 6000
    assert len(run.data.params) == 230 + 7

    changed = CONFIG | {"optimizer": {"b1": 0.5}, "new": 1}
    tracker = MlflowTracker(workdir, changed, 2)
    assert run.info.status == "RUNNING"
    tracker.log(3, {"train/loss": 0.5})
    tracker.close()
    assert [*mlflow.runs] == [run.info.run_id]
    assert run.data.metrics == [(n, "train/loss", v) for n, v in ((1, 2.0), (2, 1.0), (3, 0.5))]
    # Params cannot be changed.
    assert (run.data.params["optimizer.b1"], run.data.params["new"]) == ("0.9", "1")


def test_metrics_go_in_batches(mlflow, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "_SECONDS", 1000.0)
    tracker = MlflowTracker(tmp_path, CONFIG, 0)
    run = next(iter(mlflow.runs.values()))
    for step in range(25):
        tracker.log(step, {f"loss/{n}": 1.0 for n in range(41)})
    # 24 steps have 984 metrics, and 25 have 1025: more than one request may hold.
    assert len(run.data.metrics) == 1025
    tracker.log(25, {"train/loss": 1.0})
    assert len(run.data.metrics) == 1025
    monkeypatch.setattr(mlflow_tracker, "_SECONDS", 0.0)
    tracker.log(26, {"train/loss": 1.0})
    assert len(run.data.metrics) == 1027


def test_metrics_of_a_lost_connection_do_not_pile_up(mlflow, tmp_path):
    tracker = MlflowTracker(tmp_path, CONFIG, 0)
    run = next(iter(mlflow.runs.values()))
    tracker.log(1, {"train/loss": 1.0})
    mlflow.fails = True
    with pytest.raises(ConnectionError):
        tracker.sync()
    mlflow.fails = False
    tracker.log(2, {"train/loss": 2.0})
    tracker.close()
    assert run.data.metrics == [(2, "train/loss", 2.0)]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("train/loss", "train/loss"),
        ("loss/web/kk", "loss/web.kk"),
        ("eval/translation/chrf++/kk", "eval/translation.chrf__.kk"),
        ("share/a:b", "share/a_b"),
    ],
)
def test_names_that_mlflow_takes(name, there):
    assert metric_name(name) == there


def test_mlflow_itself(tmp_path, monkeypatch):
    """With the package where it is installed: its limits on names and values are its own."""
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    config = CONFIG | {"mlflow": {"tracking_uri": uri, "experiment": "mine"}}
    metrics = {"train/loss": 1.0, "loss/web": 1.0, "loss/web/kk": 2.0, "eval/a/chrf++/kk": 3.0}
    for start in (0, 600):
        tracker = MlflowTracker(tmp_path / "run", config, start)
        for step in range(start + 1, start + 601):
            tracker.log(step, metrics)
        tracker.close()
    kept = json.loads(pathlib.Path(tmp_path / "run/mlflow_run.json").read_text())["id"]
    run = client(tracking_uri=uri).get_run(kept)
    assert run.info.status == "FINISHED" and run.data.params["optimizer.b1"] == "0.9"
    assert run.data.metrics["loss/web.kk"] == 2.0
    assert len(client(tracking_uri=uri).get_metric_history(kept, "train/loss")) == 1200
