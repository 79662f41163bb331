"""How long a user waits: the import, the help text, and a run's first step.

    python -m benchmarks.startup [--rounds=3] [--config=configs/demo.py]

Prints JSON, medians of seconds, of nothing but the package. The first step is that of `marco train`
in a new workdir, from the start of the process to the first line of metrics.jsonl; once with empty
caches of programs and of prepared text, and then with the caches that this left.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.common import take_turns


def first_step(config: str, workdir: pathlib.Path, caches: pathlib.Path) -> float:
    """Seconds until a new run has logged a step; the run is killed then."""
    command = [sys.executable, "-m", "marco_jax", "train", f"--config={config}"]
    command += [f"--workdir={workdir}", f"--config.data_cache={caches / 'data'}"]
    command += ["--config.log_every=1", "--config.evaluation.tasks="]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(caches / "programs")}
    metrics = workdir / "metrics.jsonl"
    begin = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run,
    ):
        while not (metrics.is_file() and metrics.stat().st_size):
            if run.poll() is not None:
                output.seek(0)
                raise RuntimeError(f"marco train ended before a step: {output.read()}")
            time.sleep(0.05)
        taken = time.perf_counter() - begin
        run.kill()
    return round(taken, 1)


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each command")
    parser.add_argument("--config", default="configs/demo.py", help="whose first step to wait for")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        steps = [
            first_step(args.config, root / f"run{n}", root / "caches")
            for n in range(args.rounds + 1)
        ]
    python = [sys.executable]
    commands = {"import": [*python, "-c", "import marco_jax"]}
    commands["help"] = [*python, "-m", "marco_jax", "--help"]
    sides = {
        f"{name}_seconds": lambda command=command: subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL
        )
        for name, command in commands.items()
    }
    times = take_turns(sides, args.rounds)
    results = {name: round(found.median, 3) for name, found in times.items()}
    warm = statistics.median(steps[1:])
    results["first_step_seconds"] = {"empty_caches": steps[0], "warm_caches": warm}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
