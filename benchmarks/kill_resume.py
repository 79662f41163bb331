"""Runs that are killed again and again, beside one that is not.

    python -m benchmarks.kill_resume --runs 20
    python -m benchmarks.kill_resume --runs 20 --processes 2

A tiny model is trained once from start to end: the reference. Then each run does the same in a
workdir of its own, one after the other, and is killed with SIGKILL one to three times, each time in
a step, a save or an evaluation that it is at after a random while. It is started again until it is
done. With several processes (four virtual devices each) one of them is killed, the others must end
by themselves, and all are started again. A run is equal if every parameter of its last checkpoint,
every metric of metrics.jsonl that is not a time, and every evaluation are those of the reference,
bit for bit.

Prints JSON: what the kills hit (a `save` left an unfinished step behind), and how many runs are
equal. The exit code is 1 unless all are.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.common import print_json, read_flags
from marco_jax.training.clock import CLOCKED

STEP, SAVE, EVALUATION = "step", "save", "evaluation"
STEPS = 24
ROOT = pathlib.Path(__file__).resolve().parent.parent
# What the clock of a run calls its parts; the first call of the step compiles.
PARTS = {"step": STEP, "input": STEP, "compile": STEP, "checkpoint": SAVE, "evaluation": EVALUATION}
# Longer than anything takes: a process that has not ended by then hangs.
PATIENCE = 120.0

OVERRIDES = f"""
    steps={STEPS} log_every=2 tokenizer.vocab_size=320 batch.length=64 batch.sequences_per_chip=1
    model.hidden_size=32 model.intermediate_size=64 model.num_hidden_layers=2
    model.num_attention_heads=2 model.num_key_value_heads=2 model.head_dim=16
    checkpoint.every=3 checkpoint.keep=3
    evaluation.tasks=bits_per_byte evaluation.every_tasks=bits_per_byte evaluation.every=5
    evaluation.languages=kk evaluation.max_length=128
""".split()


def write_corpus(path: pathlib.Path) -> None:
    """Seeded words in three languages."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubdgklmnprst", k=draw.randint(2, 9))) for _ in range(200)]
    rows = [
        {"language": language, "text": " ".join(draw.choices(words, k=draw.randint(5, 25)))}
        for language in ("en", "de", "kk")
        for _ in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def child(part_file: str, arguments: list[str]) -> int:
    """`marco` with these arguments; the part that its clock is in is kept in a file."""
    from marco_jax.__main__ import main as marco
    from marco_jax.training.clock import Clock

    descriptor = os.open(part_file, os.O_WRONLY | os.O_CREAT)

    def show(clock: Clock, value: tuple[str, float]) -> None:
        clock.__dict__["shown"] = value
        os.pwrite(descriptor, value[0].ljust(16).encode(), 0)

    Clock.doing = property(lambda clock: clock.__dict__["shown"], show)
    return marco(arguments)


class Job:
    """All processes of one start of a run."""

    def __init__(self, home: pathlib.Path, workdir: pathlib.Path, processes: int) -> None:
        self.workdir, self.children = workdir, []
        self.log = workdir.with_suffix(".log")
        self.parts = [workdir.with_suffix(f".part{number}") for number in range(processes)]
        devices = 4 if processes > 1 else 1
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        fields = [*OVERRIDES, f"data={home / 'corpus.jsonl'}", f"data_cache={home / 'data'}"]
        if processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                fields.append(f"distributed.coordinator=127.0.0.1:{probe.getsockname()[1]}")
            fields.append(f"distributed.num_processes={processes}")
        for number, part in enumerate(self.parts):
            part.unlink(missing_ok=True)
            own = [f"distributed.process_id={number}"] if processes > 1 else []
            command = [sys.executable, "-m", "benchmarks.kill_resume", "--child", str(part)]
            command += ["train", "--config=configs/demo.py", f"--workdir={workdir}"]
            command += [f"--config.{field}" for field in [*fields, *own]]
            with self.log.open("a") as log:
                options = {"cwd": ROOT, "env": environment, "stdout": log, "stderr": log}
                self.children.append(subprocess.Popen(command, **options))

    def doing(self, number: int = 0) -> str:
        """What a process is at: step, save or evaluation; empty before its first step."""
        if number == 0 and self.saving():
            return SAVE
        with contextlib.suppress(OSError):
            return PARTS.get(self.parts[number].read_text().strip(), "")
        return ""

    def saving(self) -> bool:
        """Whether there is a step under its temporary name."""
        return any(self.workdir.glob("checkpoints/*.orbax-checkpoint-tmp"))

    def ended(self) -> bool:
        """Whether any process has."""
        return any(process.poll() is not None for process in self.children)

    def wait_for_steps(self) -> float:
        """The time when the first process is at its first step, or any has ended."""
        while not self.doing() and not self.ended():
            time.sleep(0.005)
        return time.monotonic()

    def wait(self) -> list[int]:
        """The exit codes; a process that does not end is an error."""
        try:
            return [process.wait(PATIENCE) for process in self.children]
        finally:
            for process in self.children:
                process.kill()

    def finish(self) -> None:
        """Waits for a good end.

        Raises:
            SystemExit: with the end of the log.
        """
        if any(codes := self.wait()):
            log = self.log.read_text()[-3000:]
            raise SystemExit(f"{self.workdir.name} ended with {codes}:\n{log}")


def kill(job: Job, draw: random.Random, seconds: float) -> str | None:
    """Kills one process in a step, a save or an evaluation, up to `seconds` after its first step.

    Returns:
        what was hit; None if the run was done before.
    """
    victim, target = draw.randrange(len(job.children)), draw.choice([STEP, SAVE, EVALUATION])
    until = job.wait_for_steps() + draw.random() * seconds
    while time.monotonic() < until or job.doing(victim) != target:
        if job.ended():
            return None
        time.sleep(0.0005)
    # Some way into it, too.
    time.sleep(draw.random() * 0.02)
    hit = job.doing(victim)
    job.children[victim].kill()
    if all(code >= 0 and code != 1 for code in job.wait()):
        return None
    return SAVE if job.saving() else hit


def run_killed(
    home: pathlib.Path, workdir: pathlib.Path, processes: int, draw: random.Random, seconds: float
) -> list[str]:
    """Starts a run, kills it some times and lets it end; what the kills hit."""
    wanted, hits = draw.randint(1, 3), []
    while True:
        job = Job(home, workdir, processes)
        if len(hits) < wanted and (hit := kill(job, draw, seconds)):
            hits.append(hit)
        else:
            job.finish()
            return hits


def outcome(workdir: pathlib.Path) -> dict[str, Any]:
    """All that a run leaves, but for times."""
    import jax

    from marco_jax.weights.models import load_model

    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    loaded = load_model(workdir)
    assert loaded.step == STEPS, f"{workdir} ends at step {loaded.step}"
    return {
        "metrics": [{k: v for k, v in row.items() if not k.endswith(CLOCKED)} for row in rows],
        "evaluations": {
            path.name: json.loads(path.read_text()) for path in sorted(workdir.glob("eval/*.json"))
        },
        "parameters": [array.tobytes() for array in jax.device_get(jax.tree.leaves(loaded.params))],
    }


def measure(runs: int, processes: int, home: pathlib.Path) -> dict[str, Any]:
    """All runs, and what came out."""
    write_corpus(home / "corpus.jsonl")
    reference = home / "reference"
    for _ in range(2):  # the first one compiles; the second has the pace of a restart
        shutil.rmtree(reference, ignore_errors=True)
        job = Job(home, reference, processes)
        begin = job.wait_for_steps()
        job.finish()
        seconds = time.monotonic() - begin
    hits, different, expected = collections.Counter(), {}, outcome(reference)
    for number in range(runs):
        workdir, draw = home / f"run{number}", random.Random(f"{number} {processes}")
        hits.update(run_killed(home, workdir, processes, draw, 0.8 * seconds))
        found = outcome(workdir)
        if wrong := [name for name in expected if found[name] != expected[name]]:
            different[workdir.name] = wrong
        shutil.rmtree(workdir)
        print(f"run {number + 1}/{runs}: {hits}, {len(different)} different", file=sys.stderr)
    return {"kills": hits, "equal": runs - len(different), "different": different}


def main() -> int:
    """Measures and prints JSON."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3:])
    args = read_flags(
        __doc__, runs=(20, "that are killed"), processes=(1, "of a run, four devices each")
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        result = measure(args.runs, args.processes, pathlib.Path(directory))
    print_json(result)
    return 0 if result["equal"] == args.runs else 1


if __name__ == "__main__":
    sys.exit(main())
