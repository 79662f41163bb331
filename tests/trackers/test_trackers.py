"""Metrics reach every tracker of a run; one that fails or hangs neither ends it nor holds it up."""

import threading
import time

import pytest

from marco_jax.extras import MissingExtra
from marco_jax.trackers.choose import check_trackers, tracker_names
from marco_jax.trackers.tracked_run import TrackedRun, start_trackers
from marco_jax.trackers.tracker import Tracker, flat_config
from marco_jax.training.defaults import training_config
from tests.test_docs import blocks_of

OWN = """
from marco_jax.trackers.tracker import Tracker

class Lines(Tracker):
    def __init__(self, workdir, config, step):
        self.file = open(workdir / "lines.txt", "a")
        print("start", step, config["optimizer"]["b1"], file=self.file)

    def log(self, step, metrics):
        print(step, *sorted(metrics), file=self.file)

    def close(self):
        self.file.close()

class Bare:
    def log(self, step, metrics):
        pass

class Unwritten(Tracker):
    pass

class Broken(Lines):
    def __init__(self, workdir, config, step):
        raise ConnectionError("no route to the service")
"""


def config_of(trackers="tensorboard", project="", uri=""):
    config = training_config()
    config.trackers, config.wandb.project, config.mlflow.tracking_uri = trackers, project, uri
    return config


@pytest.fixture
def own(tmp_path):
    """A file of the user's."""
    path = tmp_path / "own_trackers.py"
    path.write_text(OWN)
    return path


class Recorder(Tracker):
    """Keeps what it is given; may fail, or wait for an event."""

    def __init__(self, fails=False, waits=None):
        self.calls, self.fails, self.waits = [], fails, waits

    def log(self, step, metrics):
        if self.waits:
            self.waits.wait(20)
        if self.fails:
            raise ConnectionError(f"lost at\nstep {step}")
        self.calls.append((step, metrics))

    def sync(self):
        self.calls.append("sync")

    def close(self):
        self.calls.append("close")


def test_metrics_reach_all_trackers_in_order_without_infinite_ones():
    one, other = Recorder(), Recorder()
    run = TrackedRun({"one": one, "other": other})
    for step in range(500):
        run.log(step, {"a": float(step), "b": float("nan")})
    run.log(500, {"b": float("inf")})
    run.sync()
    assert one.calls == [*((step, {"a": float(step)}) for step in range(500)), "sync"]
    run.close()
    assert one.calls[-1] == "close" and other.calls == one.calls


def test_a_tracker_that_fails_warns_once_and_the_others_go_on(caplog):
    good, bad = Recorder(), Recorder(fails=True)
    run = TrackedRun({"bad": bad, "good": good})
    for step in range(5):
        run.log(step, {"a": 1.0})
    run.sync()
    run.close()
    assert caplog.messages == [
        "the tracker bad fails (ConnectionError: lost at step 0); training goes on, and "
        "metrics.jsonl has all metrics"
    ]
    assert [call[0] for call in good.calls[:5]] == [*range(5)]
    # It is still asked: the service may be back.
    assert bad.calls == ["sync", "close"]


def test_a_tracker_that_hangs_holds_up_neither_steps_nor_more_than_one_checkpoint(caplog):
    freed = threading.Event()
    slow = Recorder(waits=freed)
    run = TrackedRun({"slow": slow}, seconds=0.2)
    start = time.monotonic()
    for step in range(20_000):
        run.log(step, {"a": 1.0})
    for _ in range(5):
        run.sync()
    assert time.monotonic() - start < 5
    assert len(caplog.messages) == 1 and "the tracker slow does not keep up" in caplog.text
    freed.set()
    deadline = time.monotonic() + 20
    while len(slow.calls) < 10_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    # What had room in its queue arrives.
    assert [call[0] for call in slow.calls[:10_000]] == [*range(10_000)]


def test_a_service_that_does_not_answer_is_waited_for_once(caplog):
    freed = threading.Event()
    run = TrackedRun({"slow": Recorder(waits=freed)}, seconds=0.3)
    run.log(1, {"a": 1.0})
    start = time.monotonic()
    for _ in range(4):
        run.sync()
    assert 0.25 < time.monotonic() - start < 1
    assert "the tracker slow does not answer, and is not waited for" in caplog.text
    freed.set()


def test_a_class_of_the_users_own(own, tmp_path):
    config = config_of(f"{own}:Lines")
    check_trackers(config)
    run = start_trackers(tmp_path, config, 40, first=True)
    run.log(41, {"train/loss": 2.0, "loss/kk": 3.0})
    run.close()
    assert (tmp_path / "lines.txt").read_text() == "start 40 0.9\n41 loss/kk train/loss\n"


def test_only_the_first_process_has_trackers(own, tmp_path):
    run = start_trackers(tmp_path, config_of(f"tensorboard,{own}:Lines"), 0, first=False)
    run.log(1, {"a": 1.0})
    run.sync()
    run.close()
    assert [path.name for path in tmp_path.iterdir()] == [own.name]


def test_a_tracker_that_cannot_be_started_is_left_out_with_a_warning(own, tmp_path, caplog):
    run = start_trackers(tmp_path, config_of(f"{own}:Broken,{own}:Lines"), 0, first=True)
    run.log(1, {"a": 1.0})
    run.close()
    assert (tmp_path / "lines.txt").read_text() == "start 0 0.9\n1 a\n"
    (message,) = caplog.messages
    assert "own_trackers.py:Broken cannot be started (ConnectionError: no route" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trackers": "tensorbord"}, "'tensorbord', which is not known: did you mean"),
        ({"trackers": "comet"}, "known are tensorboard, wandb, mlflow, and package.module:Class"),
        ({"trackers": "no.such:Thing"}, "'no.such:Thing', which cannot be imported: "),
        ({"trackers": "OWN:Nothing"}, "has no callable 'Nothing'"),
        ({"trackers": "gone.py:Lines"}, "gone.py does not exist"),
        ({"trackers": "OWN:Bare"}, "OWN:Bare', which has no sync, close: write the methods"),
        ({"trackers": "OWN:Unwritten"}, "which has no log: write the methods"),
        ({"trackers": "wandb"}, "wandb.project is empty: name a project"),
        ({"trackers": "mlflow"}, "mlflow.tracking_uri is empty: set it, or the variable"),
    ],
)
def test_what_cannot_be_tracked_is_one_line(own, changes, message, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("marco_jax.trackers.choose.require", lambda *_: None)
    changes = {name: value.replace("OWN", str(own)) for name, value in changes.items()}
    with pytest.raises(ValueError, match="^[^\n]+$") as error:
        check_trackers(config_of(**changes))
    assert message.replace("OWN", str(own)) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"project": "p"}, r"wandb.project='p' needs wandb, .*\[wandb\]"),
        ({"trackers": "mlflow", "uri": "http://host"}, r"trackers=mlflow needs mlflow, .*\[mlflow"),
    ],
)
def test_a_tracker_without_its_extra_is_one_line_with_the_command(changes, message, monkeypatch):
    monkeypatch.setattr("marco_jax.extras.is_installed", lambda module: module == "pip")
    with pytest.raises(MissingExtra, match=message):
        check_trackers(config_of(**changes))


def test_a_project_implies_weights_and_biases():
    assert tracker_names(config_of()) == ["tensorboard"]
    assert tracker_names(config_of(project="p")) == ["tensorboard", "wandb"]
    assert tracker_names(config_of("wandb, mlflow", project="p")) == ["wandb", "mlflow"]
    assert tracker_names(config_of("")) == []


def test_flat_config_has_whole_names_and_plain_values():
    config = {"a": 1, "b": {"c": True, "d": {"e": "x"}}, "f": None, "g": (1, 2), "h": {}}
    assert flat_config(config) == {"a": 1, "b.c": True, "b.d.e": "x", "g": "(1, 2)"}


def test_the_class_of_the_documentation(root, tmp_path, caplog):
    (block,) = [b for b in blocks_of(root / "docs" / "trackers.md") if b.kind == "file"]
    (tmp_path / block.value).write_text(block.text)
    config = config_of(f"{tmp_path / block.value}:TableTracker")
    check_trackers(config)
    for goes_on_from, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        run = start_trackers(tmp_path, config, goes_on_from, first=True)
        for step in steps:
            run.log(step, {"train/loss": step + goes_on_from / 10})
        run.sync()
        run.close()
    assert not caplog.messages
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "0,learning rate,1e-05",
        "1,train/loss,1.0",
        "2,train/loss,2.0",
        "3,train/loss,3.2",
        "4,train/loss,4.2",
    ]
