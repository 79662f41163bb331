"""Programs that record how they are called and play back what the cloud says."""

import json
import os
import sys

import pytest

from experiments.pods.__main__ import main

STUB = """#!{python} -IS
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
LOCATION = ["--project=p", "--zone=us-east5-a"]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Plays a list of (code, output, error) for each part of a command; gives the calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gcloud", "xpk", "kubectl", "git"):
        (folder / name).write_text(STUB.format(python=sys.executable))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def run(plays, verb, *flags, location=True):
        (folder / "plays.json").write_text(json.dumps(plays))
        (folder / "calls.jsonl").unlink(missing_ok=True)
        own = ["--name=run", f"--logs={tmp_path / 'logs'}", "--pause=0"]
        own += LOCATION if location else []
        own += ["--poll=0"] if verb == "launch" else []
        code = main([verb, *own, *flags])
        calls = folder / "calls.jsonl"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return code, [" ".join(json.loads(line)) for line in lines]

    return run
