"""Runs that are killed again and again, beside one that is not.

    python -m benchmarks.kill_resume --seed 0 --runs 20
    python -m benchmarks.kill_resume --seed 0 --runs 20 --processes 2

A tiny model is trained once from start to end: the reference. Then each run does the same in a
workdir of its own, one after the other, and is killed with SIGKILL a few times: at a random moment,
or in the middle of a step, of a save or of an evaluation that begins after one. It is started again
until it is done. With several processes (four virtual devices each) one of them is killed, the
others must end by themselves, and all are started again. A run is equal if every parameter of its
last checkpoint, every metric of metrics.jsonl that is not a time, and every evaluation are those of
the reference, bit for bit.

Prints JSON: kills and what they hit (a `save` left an unfinished step behind), restarts, how many
runs are equal. The exit code is 1 unless all are.
"""

from __future__ import annotations

import argparse
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

STEP, SAVE, EVALUATION = "step", "save", "evaluation"
STEPS = 24
ROOT = pathlib.Path(__file__).resolve().parent.parent
# What the clock of a run calls its parts; the first call of the step compiles.
PARTS = {"step": STEP, "input": STEP, "compile": STEP, "checkpoint": SAVE, "evaluation": EVALUATION}
# Longer than anything takes: a process that has not ended by then hangs.
PATIENCE = 120.0

OVERRIDES = (
    f"steps={STEPS}",
    "tokenizer.vocab_size=320",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.num_key_value_heads=2",
    "model.head_dim=16",
    "batch.length=64",
    "batch.sequences_per_chip=1",
    "log_every=2",
    "checkpoint.every=3",
    "checkpoint.keep=3",
    "evaluation.tasks=bits_per_byte",
    "evaluation.every_tasks=bits_per_byte",
    "evaluation.every=5",
    "evaluation.languages=kk",
    "evaluation.max_length=128",
)


def write_corpus(path: pathlib.Path) -> None:
    """Seeded words in three languages, and pairs of two of them."""
    rng = random.Random(0)
    letters = "aeiou" + "bdgklmnprst" * 2
    words = {
        code: ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(200)]
        for code in ("en", "de", "kk")
    }
    rows: list[dict[str, str]] = []
    for number in map(str, range(200)):
        order = [rng.randrange(200) for _ in range(rng.randint(5, 25))]
        texts = {code: " ".join(words[code][i] for i in order) for code in words}
        rows += [{"id": number, "language": code, "text": text} for code, text in texts.items()]
        pair = {"source_language": "en", "target_language": "kk"}
        rows.append({"id": number, **pair, "source": texts["en"], "target": texts["kk"]})
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
        self.workdir = workdir
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
        self.parts = [workdir.with_suffix(f".part{n}") for n in range(processes)]
        self.log = workdir.with_suffix(".log")
        self.children = []
        for number, part in enumerate(self.parts):
            part.unlink(missing_ok=True)
            own = [f"distributed.process_id={number}"] if processes > 1 else []
            command = [sys.executable, "-m", "benchmarks.kill_resume", "--child", str(part)]
            command += ["train", "--config=configs/demo.py", f"--workdir={workdir}"]
            command += [f"--config.{field}" for field in [*fields, *own]]
            with self.log.open("a") as log:
                started = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            self.children.append(started)

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
        return any(child.poll() is not None for child in self.children)

    def wait_for_steps(self) -> None:
        """Returns when the first process is at its first step, or any has ended."""
        while not self.doing() and not self.ended():
            time.sleep(0.005)

    def wait(self) -> list[int]:
        """The exit codes; a process that does not end is an error."""
        try:
            return [child.wait(PATIENCE) for child in self.children]
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


def kill(job: Job, rng: random.Random, seconds: float) -> dict[str, Any] | None:
    """Kills one process at a random moment, or in a part that begins after it.

    Returns:
        what was hit, and how long the other processes lived on; None if the run was done before.
    """
    victim = rng.randrange(len(job.children))
    target = rng.choice(["any", STEP, SAVE, EVALUATION])
    delay = rng.random() * seconds
    job.wait_for_steps()
    until = time.monotonic() + delay
    while not (time.monotonic() >= until and target in ("any", job.doing(victim))):
        if job.ended():
            return None
        time.sleep(0.0005)
    # Some way into it, too.
    time.sleep(rng.random() * 0.02)
    if job.ended():
        return None
    doing = job.doing(victim)
    job.children[victim].kill()
    begin = time.monotonic()
    codes = job.wait()
    if all(code >= 0 and code != 1 for code in codes):
        return None
    return {"hit": SAVE if job.saving() else doing, "others_seconds": time.monotonic() - begin}


def run_killed(
    home: pathlib.Path, workdir: pathlib.Path, processes: int, rng: random.Random, seconds: float
) -> list[dict[str, Any]]:
    """Starts a run until it is done, and kills it some times; what the kills hit."""
    wanted, kills = rng.randint(1, 3), []
    while True:
        job = Job(home, workdir, processes)
        if len(kills) < wanted and (hit := kill(job, rng, seconds)):
            kills.append(hit)
            continue
        job.finish()
        return kills


def outcome(workdir: pathlib.Path) -> dict[str, Any]:
    """All that a run leaves, but for times."""
    import jax

    from marco_jax.weights.models import load_model

    clocked = ("tokens_per_second", "mfu", "_seconds", "evaluation_share")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    loaded = load_model(workdir)
    assert loaded.step == STEPS, f"{workdir} ends at step {loaded.step}"
    return {
        "metrics": [{k: v for k, v in row.items() if not k.endswith(clocked)} for row in rows],
        "evaluations": {
            path.name: json.loads(path.read_text()) for path in sorted(workdir.glob("eval/*.json"))
        },
        "parameters": [array.tobytes() for array in jax.device_get(jax.tree.leaves(loaded.params))],
    }


def measure(seed: int, runs: int, processes: int, home: pathlib.Path) -> dict[str, Any]:
    """All runs, and what came out."""
    write_corpus(home / "corpus.jsonl")
    reference = home / "reference"
    for _ in range(2):  # the first one compiles; the second has the pace of a restart
        shutil.rmtree(reference, ignore_errors=True)
        job = Job(home, reference, processes)
        job.wait_for_steps()
        begin = time.monotonic()
        job.finish()
        seconds = time.monotonic() - begin
    kills, wrong, expected = [], {}, outcome(reference)
    for number in range(runs):
        workdir = home / f"run{number}"
        rng = random.Random(f"{seed} {number} {processes}")
        kills += run_killed(home, workdir, processes, rng, 0.8 * seconds)
        found = outcome(workdir)
        if different := [name for name in expected if found[name] != expected[name]]:
            wrong[workdir.name] = different
        else:
            shutil.rmtree(workdir)
        equal = number + 1 - len(wrong)
        print(f"run {number + 1}/{runs}: {len(kills)} kills, {equal} equal", file=sys.stderr)
    hits = collections.Counter(kill["hit"] for kill in kills)
    result = {
        "seed": seed,
        "runs": runs,
        "processes": processes,
        "steps": STEPS,
        "kills": len(kills),
        "hits": {name: hits[name] for name in (STEP, SAVE, EVALUATION)},
        "restarts": len(kills),
        "equal": runs - len(wrong),
        "different": wrong,
    }
    if processes > 1 and kills:
        result["others_ended_within_seconds"] = round(max(k["others_seconds"] for k in kills), 2)
    return result


def main() -> int:
    """Measures and prints JSON."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1, help="of a run, four devices each")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as directory:
        result = measure(args.seed, args.runs, args.processes, pathlib.Path(directory))
    print(json.dumps(result, indent=2))
    return 0 if result["equal"] == args.runs else 1


if __name__ == "__main__":
    sys.exit(main())
