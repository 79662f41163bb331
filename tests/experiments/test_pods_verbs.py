"""status, logs, stop and delete, and runs on GKE, against programs that record their calls."""

import json
import time

import pytest

ACTIVE, ABSENT = [0, "ACTIVE\n", ""], [1, "", "NOT_FOUND: no such resource"]
TRAIN = [
    *("--", "train", "--config=configs/qwen2_7b.py", "--workdir=gs://b/run"),
    *("--config.init_from=gs://b/base", "--config.data=gs://b/sources.json"),
]
# Two slices of v5p:2x2x2, two hosts each.
RUN = {"topology": "v5p:2x2x2", "num_slices": 2, "project": "p", "zone": "us-east5-a"}
GKE = ("--topology=v5e:16x16", "--num_slices=2", "--via=xpk", "--cluster=c", "--image=i")


@pytest.fixture
def recorded(tmp_path):
    """Writes the record that a launch leaves: two attempts, two hours with slices and one more."""

    def write(**fields):
        now = time.time()
        held = [[now - 5 * 3600, now - 3 * 3600], [now - 3600, None]]
        record = {"run": RUN, "chips": 16, "attempt": 2, "held": held, "price": None}
        (tmp_path / "logs").mkdir()
        path = tmp_path / "logs" / "run.json"
        path.write_text(json.dumps({**record, "hours": None, **fields}))
        return path

    return write


STATUS = {
    "queued-resources describe": [ACTIVE],
    "tpu-vm describe run-0": [[0, "READY\n", ""]],
    "tpu-vm describe run-1": [[0, "PREEMPTED\n", ""]],
    "host.sh status": [[0, "h0 running\nh1 running\n", ""]],
}


def test_status_has_states_attempt_and_cost(cloud, capsys, recorded):
    recorded(price=2.0, hours=[10.0, 20.0])
    # Where the run is stands in its record.
    code, calls = cloud(STATUS, "status", location=False)
    assert code == 0 and "--project=p --zone=us-east5-a" in calls[0]
    assert capsys.readouterr().out.splitlines() == [
        *("run ACTIVE", "slice run-0 READY", "slice run-1 PREEMPTED"),
        *["h0 running", "h1 running"] * 2,
        "attempt 2",
        "held for 3.0 hours so far, 48.0 chip-hours, cost 96 at 2 a chip and hour",
        "whole run, training steps alone: 10.0 to 20.0 hours, 160 to 320 chip-hours, cost 320 to "
        "640 at 2 a chip and hour",
    ]


def test_no_price_is_made_up(cloud, capsys, recorded):
    recorded()
    cloud(STATUS, "status", location=False)
    out = capsys.readouterr().out
    assert "48.0 chip-hours; cost not known: give --price" in out
    assert "whole run not estimated: give launch --plan" in out
    cloud(STATUS, "status", "--price=3", location=False)
    assert "48.0 chip-hours, cost 144 at 3 a chip and hour" in capsys.readouterr().out


def test_status_without_a_record(cloud, capsys):
    code, _ = cloud({"describe": [ABSENT]}, "status", "--topology=v5p:2x2x2")
    assert code == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "run absent" and second.startswith("attempt and cost are not known")


def test_a_launch_records_price_and_plan_for_status(cloud, tmp_path, capsys):
    plan = {
        "planned": {"topology": "v5p:2x2x2", "num_slices": 1},
        "predicted": {"step_seconds_if_all_overlaps": 1.0, "step_seconds_as_scheduled": 2.0},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    plays = {"describe": [ACTIVE], "host.sh status": [[0, "h0 exited 0\nh1 exited 0\n", ""]]}
    flags = ("--topology=v5p:2x2x2", "--price=2", f"--plan={tmp_path / 'plan.json'}")
    code, _ = cloud(plays, "launch", *flags, *TRAIN, "--config.steps=3600")
    assert code == 0
    cloud({"describe": [ABSENT]}, "status", location=False)
    out = capsys.readouterr().out
    assert "attempt 1" in out and "1.0 to 2.0 hours, 8 to 16 chip-hours, cost 16 to 32" in out


def test_logs_are_the_end_of_the_first_hosts(cloud, capfd):
    plays = {"host.sh tail": [[0, "step 1\nstep 2\n", ""]]}
    code, calls = cloud(plays, "logs", "--topology=v5p:2x2x2", "--lines=2", "--follow")
    assert code == 0 and capfd.readouterr().out == "step 1\nstep 2\n"
    (call,) = calls
    assert "ssh run " in call and "--worker=0" in call and "--quiet" in call
    assert call.endswith("--command=bash host.sh tail 2 follow")


def test_logs_of_every_host_are_copied(cloud, recorded, tmp_path):
    recorded()
    code, calls = cloud({}, "logs", "--every_host", location=False)
    assert code == 0 and ["ssh run-0 " in calls[0], "ssh run-1 " in calls[1]] == [True, True]
    assert f"--output-directory={tmp_path / 'logs' / 'run-1'}" in calls[1]
    assert all("--worker=all" in call for call in calls)


def test_logs_of_a_host_that_is_gone_are_one_line(cloud, capfd):
    plays = {"host.sh tail": [[255, "", ""]]}
    code, _ = cloud(plays, "logs", "--topology=v5p:2x2x2")
    error = capfd.readouterr().err.splitlines()
    assert code == 1 and len(error) == 1 and "no log from the first host of run" in error[0]


def test_stop_lets_the_run_save_and_releases_the_slices(cloud, recorded):
    path = recorded()
    code, calls = cloud({"describe": [ACTIVE]}, "stop", location=False)
    assert code == 0
    assert [call.split("--command=bash host.sh ")[-1] for call in calls[1:5]] == [
        *("stop", "stop", "log", "log"),
    ]
    assert "queued-resources delete run" in calls[5] and len(calls) == 6
    assert json.loads(path.read_text())["held"][-1][1] is not None


def test_stop_can_keep_the_slices(cloud, recorded):
    path = recorded()
    code, calls = cloud({"describe": [ACTIVE]}, "stop", "--keep", location=False)
    assert code == 0 and not any(" delete " in call for call in calls)
    assert json.loads(path.read_text())["held"][-1][1] is None


def test_stop_of_slices_that_are_not_there_yet_withdraws_the_request(cloud, recorded):
    recorded()
    waiting = {"describe": [[0, "WAITING_FOR_RESOURCES\n", ""]]}
    code, calls = cloud(waiting, "stop", location=False)
    assert code == 0 and [call.split()[4] for call in calls] == ["describe", "delete"]


def test_stop_without_slices(cloud, recorded, capsys):
    path = recorded()
    code, calls = cloud({"describe": [ABSENT]}, "stop", location=False)
    assert code == 0 and len(calls) == 1 and "run has no slices" in capsys.readouterr().err
    assert json.loads(path.read_text())["held"][-1][1] is not None


def test_stop_of_hosts_that_do_not_answer_is_one_line(cloud, recorded, capsys):
    recorded()
    plays = {"describe": [ACTIVE], "host.sh stop": [[255, "", "connection closed"]]}
    code, calls = cloud(plays, "stop", location=False)
    error = capsys.readouterr().err.splitlines()
    assert code == 1 and not any(" delete " in call for call in calls)
    assert error[-1].startswith("pods: ") and "connection closed" in error[-1]


def test_delete_releases_the_slices(cloud, recorded):
    path = recorded()
    code, calls = cloud({}, "delete", location=False)
    assert code == 0 and len(calls) == 1
    assert "queued-resources delete run" in calls[0] and "--force --quiet" in calls[0]
    assert json.loads(path.read_text())["held"][-1][1] is not None


def test_a_workload_on_gke(cloud, tmp_path):
    plays = {"kubectl": [[0, "[pod/run-0] step 1\n", ""]], "--wait": [[124, "", ""], [0, "", ""]]}
    flags = ("--capacity=spot", "--storage=s", "--env=A=b")
    train = [flag.replace("gs://b/run", "/mnt/marco/run") for flag in TRAIN]
    code, calls = cloud(plays, "launch", *GKE, *flags, *train)
    assert code == 0
    assert calls[0].startswith("xpk workload create --workload=run --cluster=c")
    assert "--tpu-type=v5litepod-16x16 --num-slices=2 --docker-image=i" in calls[0]
    # Capacity, storage and variables in xpk's own terms.
    assert "--storage=s --spot --env=A=b" in calls[0]
    assert "exec marco train" in calls[0] and "--restart-on-exit-codes=1" in calls[0]
    assert "--config.mesh.num_slices=2" in calls[0]
    # Still running after xpk's longest wait: it waits again.
    assert all(call.endswith("--wait-for-job-completion=run") for call in calls[1:3])
    assert (tmp_path / "logs" / "run.log").read_text() == "[pod/run-0] step 1\n"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), []),
        (("--capacity=on-demand",), ["--on-demand"]),
        (("--capacity=reserved", "--reservation=r"), ["--reservation=r"]),
    ],
)
def test_capacities_on_gke(cloud, flags, wanted):
    _, calls = cloud({}, "launch", *GKE, *flags, *TRAIN)
    kinds = ("--on-demand", "--reservation", "--spot")
    assert [word for word in calls[0].split() if word.startswith(kinds)] == wanted


def test_a_workload_that_fails(cloud):
    assert cloud({"--wait": [[125, "", ""]]}, "launch", *GKE, *TRAIN)[0] == 1


def test_a_workload_that_xpk_loses_sight_of_goes_on(cloud, capsys):
    code, calls = cloud({"--wait": [[1, "", "no network"]]}, "launch", *GKE, *TRAIN)
    assert code == 1 and len(calls) == 2
    assert "which may still run" in capsys.readouterr().err


def test_the_other_verbs_on_gke(cloud, recorded, capfd):
    path = recorded(run={**RUN, "via": "xpk", "cluster": "c"}, price=1.0)
    plays = {"jsonpath": [[0, "3", ""]], "list": [[0, "run RUNNING\n", ""]]}
    code, calls = cloud(plays, "status", location=False)
    assert code == 0 and "--filter-by-job=run" in calls[0]
    out = capfd.readouterr().out
    assert "run RUNNING\nrestarts by Kubernetes 3\nattempt 2\n" in out and "cost 48" in out
    code, calls = cloud({"kubectl logs": [[0, "step 1\n", ""]]}, "logs", location=False)
    assert code == 0 and capfd.readouterr().out == "step 1\n"
    assert "job-index=0" in calls[-1] and "--tail=50" in calls[-1]
    code, calls = cloud({}, "stop", location=False)
    assert code == 0 and len(calls) == 1
    assert calls[0].startswith("xpk workload delete --workload=run") and "--force" in calls[0]
    assert json.loads(path.read_text())["held"][-1][1] is not None
