"""How long a user waits: the import, the help text, and a run's first step.

    python -m benchmarks.startup [--rounds=3] [--config=configs/demo.py]

Prints JSON, medians of seconds, of nothing but the package; each command runs once a round. The
first step is that of `marco train` in a new workdir, from the start of the process to the first
line of metrics.jsonl; once with empty caches of programs and of prepared text, and then with the
caches that this left.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.common import print_json, read_flags, take_turns


def first_step(config: str, workdir: pathlib.Path, caches: pathlib.Path) -> None:
    """Returns when a new run has logged a step, and kills it then."""
    command = [sys.executable, "-m", "marco_jax", "train", f"--config={config}"]
    command += [f"--workdir={workdir}", f"--config.data_cache={caches / 'data'}"]
    command += ["--config.log_every=1", "--config.evaluation.tasks="]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(caches / "programs")}
    metrics = workdir / "metrics.jsonl"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as run:
        while not (metrics.is_file() and metrics.stat().st_size):
            if run.poll() is not None:
                raise SystemExit("marco train ended before a step: see above")
            time.sleep(0.05)
        run.kill()


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        rounds=(3, "of each command"),
        config=("configs/demo.py", "whose first step to wait for"),
    )

    def python(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def train() -> None:
            first_step(args.config, pathlib.Path(tempfile.mkdtemp(dir=root)) / "run", root)

        empty = take_turns({"first_step_with_empty_caches": train}, 1)
        sides = {
            "import": lambda: python("-c", "import marco_jax"),
            "help": lambda: python("-m", "marco_jax", "--help"),
            "first_step_with_warm_caches": train,
        }
        times = empty | take_turns(sides, args.rounds)
    print_json({f"{name}_seconds": round(found.median, 2) for name, found in times.items()})


if __name__ == "__main__":
    main()
