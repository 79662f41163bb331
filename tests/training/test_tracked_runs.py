"""A run and its trackers: what they are given over a restart, and that none can end the run."""

import json

from marco_jax.training.loop import train

OWN = """
class Lines:
    def __init__(self, workdir, config, step):
        self.file = open(workdir / "lines.txt", "a")
        print("start", step, config["optimizer"]["b1"], file=self.file)

    def log(self, step, metrics):
        print(step, *metrics, file=self.file)

    def sync(self):
        self.file.flush()

    def close(self):
        self.file.close()

class Broken(Lines):
    def log(self, step, metrics):
        raise ConnectionError("no route to the service")
"""


def test_a_run_goes_on_without_a_tracker_that_fails(small_config, tmp_path, caplog):
    own, run = tmp_path / "own_lines.py", tmp_path / "run"
    own.write_text(OWN)
    config = small_config("steps=4", f"trackers={own}:Broken,{own}:Lines,tensorboard")
    assert train(config, run) == 0
    failures = [message for message in caplog.messages if "Broken" in message]
    assert len(failures) == 1 and "fails (ConnectionError: no route" in failures[0]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    lines = [line.split() for line in (run / "lines.txt").read_text().splitlines()]
    starts = [line for line in lines if line[0] == "start"]
    # Both classes write to the one file; steps are those of the tracker that works.
    assert starts == [["start", "0", "0.9"]] * 2
    steps = [line for line in lines if line[0] != "start"]
    assert [line[0] for line in steps] == list("1234")
    assert {"train/loss", "train/learning_rate"} <= {*steps[0]}
    # Losses by source have their own names.
    assert any(name.startswith("loss/") for name in steps[0])
    assert list((run / "tensorboard").iterdir())


def test_a_restart_tells_trackers_the_step_it_goes_on_from(small_config, tmp_path):
    own, run = tmp_path / "own_lines.py", tmp_path / "run"
    own.write_text(OWN)
    for steps in (3, 5):
        config = small_config(f"steps={steps}", f"trackers={own}:Lines")
        config.mixture.accept_change = True
        assert train(config, run) == 0
    lines = [line.split()[:2] for line in (run / "lines.txt").read_text().splitlines()]
    starts = [line[1] for line in lines if line[0] == "start"]
    assert starts == ["0", "3"]
    assert [line[0] for line in lines if line[0] != "start"] == list("12345")


def test_the_address_of_a_server_is_no_path(small_config):
    config = small_config("mlflow.tracking_uri=http://host:5000", "trackers=mlflow")
    assert config.mlflow.tracking_uri == "http://host:5000"
