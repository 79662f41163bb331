"""All numbers of a GPU in one command: attention, training, decoding, then the study.

    python -m benchmarks.gpu --kit=/tmp/kit/kit --out=OUT --workdir=/tmp/numbers --minutes=9

The parts run one after the other, each in a process of its own: cuDNN's attention beside plain
attention, MFU and memory of training, tokens a second of decoding, and with the time that is left
the study of experiments/real_base with three seeds. Where attention is wrong, nothing else is
measured; --parts goes on without it. What is measured stands in WORKDIR at once and is copied to
OUT after every part; the same command goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ATTENTION = "attention"
BENCHMARKS = {
    ATTENTION: ["benchmarks.gpu.attention"],
    "training": ["benchmarks.gpu_training"],
    "decoding": ["benchmarks.gpu.decode"],
}
STUDY = "study"
DONE, FAILED, STOPPED = 0, 1, 3
_WORDS = {DONE: "done", FAILED: "failed", STOPPED: "stopped"}
# Exit code of a run that SIGTERM has ended.
_TERMINATED = 143


def install(wheels: pathlib.Path, folder: pathlib.Path) -> None:
    """Installs the kit's wheels into a folder of their own, once; none from a network."""
    if (folder / "installed").exists():
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--upgrade", f"--target={folder}", *map(str, sorted(wheels.glob("*.whl")))]
    subprocess.run(command, check=True)
    (folder / "installed").touch()


def study(kit: pathlib.Path, workdir: pathlib.Path, minutes: float, seeds: int) -> list[str]:
    """The command of the study, with the kit's model, tokens, corpus and benchmarks."""
    data = workdir / STUDY / "data"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        data.symlink_to(kit / "data")
    return [
        "experiments.real_base",
        f"--init_from={kit / 'model'}",
        f"--data={kit / 'corpus'}",
        f"--benchmarks={kit / 'benchmarks'}",
        f"--workdir={workdir / STUDY}",
        "--device=gpu",
        f"--seeds={seeds}",
        "--parts=base,arms",
        f"--minutes={minutes:.2f}",
    ]


def copy_out(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """The numbers, logs and the study's results, as few small files."""
    out.mkdir(parents=True, exist_ok=True)
    for path in workdir.glob("*.*"):
        shutil.copyfile(path, out / path.name)
    results = workdir / STUDY / "results"
    if results.exists():
        shutil.make_archive(str(out / "results"), "gztar", results)
        tables = workdir / STUDY / "tables.md"
        if tables.exists():
            shutil.copyfile(tables, out / tables.name)


def main() -> int:
    """Runs the parts that are left; returns 0 when all are done, 1 for a failure, 3 for no time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kit", type=pathlib.Path, required=True, help="as pieces.py joins it")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="kept between calls")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", default=",".join([*BENCHMARKS, STUDY]))
    parser.add_argument("--flags", default="{}", help="JSON: a part's further flags, in a list")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    given.workdir.mkdir(parents=True, exist_ok=True)
    packages = given.workdir / "packages"
    install(given.kit / "wheels", packages)
    source, flags = given.kit / "source", json.loads(given.flags)
    path = os.pathsep.join([str(packages), str(source)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    codes = []
    for part in given.parts.split(","):
        left = until - time.monotonic()
        # The study tells itself when it is time; saving takes a minute at the most.
        module = BENCHMARKS.get(part) or study(
            given.kit, given.workdir, max(0.1, left / 60 - 1), given.seeds
        )
        command = [sys.executable, "-m", *module, *flags.get(part, [])]
        codes.append(run(part, command, given.workdir, environment, source, left))
        copy_out(given.workdir, given.out)
        print(f"{part}: {_WORDS[codes[-1]]}", flush=True)
        if codes[-1] == STOPPED or (codes[-1] == FAILED and part == ATTENTION):
            break
    return max(codes)


def run(
    part: str,
    command: list[str],
    workdir: pathlib.Path,
    environment: dict[str, str],
    source: pathlib.Path,
    seconds: float,
) -> int:
    """Runs a part unless its result is there; returns 0, 1 where it failed, 3 without time."""
    result = workdir / f"{part}.json"
    if result.exists():
        return DONE
    if seconds < 20:
        return STOPPED
    with open(workdir / f"{part}.log", "a") as log, open(workdir / f"{part}.part", "w") as out:
        try:
            code = subprocess.run(
                command, env=environment, cwd=source, stdout=out, stderr=log, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            return STOPPED
    if code == 0:
        (workdir / f"{part}.part").rename(result)
        return DONE
    return STOPPED if code == _TERMINATED else FAILED


if __name__ == "__main__":
    sys.exit(main())
