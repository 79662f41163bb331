"""What a launch refuses: one line, before any other program is called."""

import json

import pytest

from experiments.pods.job import read_job
from experiments.pods.slices import Slice

PAIR = "--topology=v5p:2x2x2"
CONFIG, WORKDIR = "--config=configs/qwen2_7b.py", "--workdir=gs://b/run"
BASE, DATA = "--config.init_from=gs://b/base", "--config.data=gs://b/sources.json"
WHOLE = (CONFIG, WORKDIR, BASE, DATA)
GKE = ("--via=xpk", "--cluster=c", "--image=i")


def train(*flags):
    """A command for the hosts."""
    return ["--", "train", *flags]


# Each fault: flags of the launcher, the command, and words of the line.
REFUSED = {
    "no command": ([PAIR], [], "needs what marco is to do"),
    "no topology": ([], train(*WHOLE), "launch needs --topology"),
    "unknown flag": ([PAIR, "--slices=2"], train(*WHOLE), "unrecognized arguments: --slices=2"),
    "unknown generation": (["--topology=v9:2x2"], train(*WHOLE), "the generation is none of"),
    "wrong dimensions": (["--topology=v5p:2x2"], train(*WHOLE), "3 dimensions"),
    "no such slice": (["--topology=v6e:3x5"], train(*WHOLE), "v6e has no such slice, it has"),
    "no such slice in space": (["--topology=v5p:2x2x3"], train(*WHOLE), "v5p has no such slice"),
    "field": ([PAIR], train(*WHOLE, "--config.stepz=3"), "did you mean 'steps'?"),
    "value": ([PAIR], train(*WHOLE, "--config.steps=x"), "the value is no int"),
    "flag of marco": ([PAIR], train(*WHOLE, "--workdri=x"), "did you mean --workdir?"),
    "no workdir": ([PAIR], train(CONFIG, BASE, DATA), "required: --workdir"),
    "command of marco": ([PAIR], ["--", "trian"], "invalid choice: 'trian'"),
    "help": ([PAIR], ["--", "train", "--help"], "give it to marco itself"),
    "config file": (
        [PAIR],
        train("--config=configs/mine.py", *WHOLE[1:]),
        "--config=configs/mine.py: there is no such file",
    ),
    "config outside": (
        [PAIR],
        train("--config=/tmp/mine.py", *WHOLE[1:]),
        "give its path from there",
    ),
    "preset": ([PAIR], train(*WHOLE, "--config.model.preset=qwen9"), "model.preset is 'qwen9'"),
    "stage": (
        [PAIR],
        train(*WHOLE, "--config.stages=stage1,stage7"),
        "there is no config.stage.stage7",
    ),
    "mixture": ([PAIR], train(*WHOLE, "--config.mixture.name=stage7"), "'stage7' is unknown"),
    "mesh": ([PAIR], train(*WHOLE, "--config.mesh.fsdp=3"), "fsdp 3 and the run has 8 chips"),
    "slices": (
        [PAIR, "--num_slices=2"],
        train(*WHOLE, "--config.mesh.num_slices=4"),
        "--num_slices=2 and --config.mesh.num_slices=4 differ",
    ),
    "local workdir": ([PAIR], train(CONFIG, "--workdir=/x", BASE, DATA), "--workdir=/x: the hosts"),
    "space form": ([PAIR], train(CONFIG, "--workdir", "/x", BASE, DATA), "--workdir=/x: the hosts"),
    "one host": (
        ["--topology=v5e:2x4"],
        train(CONFIG, "--workdir=runs/x", BASE, DATA),
        "--workdir=runs/x: the hosts",
    ),
    "no mount": (
        [PAIR],
        train(CONFIG, "--workdir=/mnt/marco/x", BASE, DATA),
        "--workdir=/mnt/marco/x: the hosts",
    ),
    "beside the mount": (
        [PAIR, "--mount=bucket:b"],
        train(CONFIG, "--workdir=/mnt/marcos/x", BASE, DATA),
        "--workdir=/mnt/marcos/x: the hosts",
    ),
    "above the mount": (
        [PAIR, "--mount=bucket:b"],
        train(CONFIG, "--workdir=/mnt/marco/../x", BASE, DATA),
        "--workdir=/mnt/marco/../x: the hosts",
    ),
    "other scheme": (
        [PAIR],
        train(CONFIG, "--workdir=hdfs://x/y", BASE, DATA),
        "--workdir=hdfs://x/y: the hosts",
    ),
    "local cache": (
        [PAIR],
        train(*WHOLE, "--config.data_cache=/data/tokens"),
        "--config.data_cache=/data/tokens: the hosts",
    ),
    "local data": ([PAIR], train(*WHOLE[:3], "--config.data=/data/s.json"), "have no such path"),
    "local weights": (
        [PAIR],
        train(CONFIG, WORKDIR, "--config.init_from=base", DATA),
        "--config.init_from=base: the hosts have no such path",
    ),
    "output": (
        [PAIR],
        ["--", "eval", "--model=gs://b/run", "--tasks=bits_per_byte", "--out=scores.json"],
        "--out=scores.json: the hosts",
    ),
    "built-in data": ([PAIR], train(CONFIG, WORKDIR, BASE), "--allow_builtin_data"),
    "random weights": ([PAIR], train(CONFIG, WORKDIR, DATA), "--allow_random_weights"),
    "gke workdir": (
        [PAIR, *GKE],
        train(CONFIG, "--workdir=/mnt/marco/x", BASE, DATA),
        "--workdir=/mnt/marco/x: the hosts",
    ),
    "gke mount": (
        [PAIR, *GKE, "--mount=bucket:b"],
        train(*WHOLE),
        "xpk storage attach NAME --type=gcsfuse --bucket=b --mount-point=/mnt/marco",
    ),
    "gke reservation": ([PAIR, *GKE, "--capacity=reserved"], train(*WHOLE), "--reservation=NAME"),
    "gke account": ([PAIR, *GKE, "--service_account=a"], train(*WHOLE), "is for queued resources"),
    "gke keep": ([PAIR, *GKE, "--keep"], train(*WHOLE), "--keep is for queued resources"),
    "gke cluster": ([PAIR, "--via=xpk", "--image=i"], train(*WHOLE), "needs --cluster"),
    "gke image": ([PAIR, "--via=xpk", "--cluster=c"], train(*WHOLE), "needs --image"),
    "storage": ([PAIR, "--storage=s"], train(*WHOLE), "is for --via=xpk; give --mount"),
    "mount": ([PAIR, "--mount=b"], train(*WHOLE), "write bucket:NAME or nfs:SERVER:/PATH"),
    "variable": ([PAIR, "--env=A"], train(*WHOLE), "--env=A: write NAME=VALUE"),
    "plan": ([PAIR, "--plan=absent.json"], train(*WHOLE), "absent.json"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_one_line_before_any_call(cloud, capsys, fault):
    flags, command, words = REFUSED[fault]
    code, calls = cloud({}, "launch", *flags, *command)
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and not calls and len(error) == 1 and words in error[0], error


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "delete"])
def test_other_verbs_refuse_what_they_cannot_use(cloud, capsys, verb):
    assert cloud({}, verb, PAIR, *train(*WHOLE)) == (2, [])
    assert "takes nothing after --" in capsys.readouterr().err
    assert cloud({}, verb, location=False) == (2, [])
    assert f"{verb} needs --topology, since" in capsys.readouterr().err


def test_a_smoke_test_says_that_it_is_one(cloud):
    plays = {"describe": [[0, "ACTIVE\n", ""]], "host.sh status": [[0, "h0 exited 0\n", ""]]}
    flags = ("--topology=v5e:2x4", "--allow_builtin_data", "--allow_random_weights")
    code, calls = cloud(plays, "launch", *flags, *train("--config=configs/demo.py", WORKDIR))
    assert code == 0 and any("host.sh start" in call for call in calls)


def test_tasks_of_ones_own_are_not_the_built_in_corpus(root):
    own = ["--config.mixture.modules=mine.tasks", "--config.mixture.name=mine"]
    command = ["train", CONFIG, WORKDIR, BASE, *own]
    assert read_job(command, Slice.parse("v5p:2x2x2"), None, root).steps == 286_102


def test_files_of_the_clone_are_on_the_hosts(root):
    command = ["train", CONFIG, WORKDIR, BASE, "--config.data=README.md"]
    assert read_job(command, Slice.parse("v5p:2x2x2"), None, root).count == 1


def test_reading_a_job_starts_no_devices(root, tmp_path):
    """In a process of its own, since this one has devices."""
    import subprocess
    import sys

    code = (
        "import pathlib, sys\n"
        "from experiments.pods.job import read_job\n"
        "from experiments.pods.slices import Slice\n"
        "job = read_job(sys.argv[1:], Slice.parse('v5p:2x2x2'), 2, pathlib.Path.cwd(),\n"
        "               mounted=True)\n"
        "from jax._src import xla_bridge\n"
        "assert job.arguments[-1] == '--config.mesh.num_slices=2', job\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert not {'tensorflow', 'seqio', 'orbax'} & set(sys.modules)\n"
    )
    command = ["train", *(flag.replace("gs://b", "/mnt/marco") for flag in WHOLE)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_is_not_a_record_is_refused(cloud, tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run.json").write_text(json.dumps({"loss": 1}))
    assert cloud({}, "status", location=False) == (2, [])
    assert "is not a record of a run" in capsys.readouterr().err
