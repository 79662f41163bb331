"""The benchmarks of data run at small size."""

import json
import subprocess
import sys

import pytest


def run(root, name, *flags):
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("tokens", "sources"), [("1e5", "1"), ("3e7", "5"), ("1e9", "35")])
def test_data_order(root, tokens, sources):
    result = run(root, "data_order", f"--tokens={tokens}", f"--sources={sources}")
    assert 0 < result["resumed_at_step"] < result["steps"]
    # A source has its share of the rows to within about a block of them.
    assert 0 <= result["largest_error_of_a_share"] < max(1e-3, 5 / result["steps"])
    assert result["seconds_to_resume_and_read_a_batch"] < 10


@pytest.mark.slow
def test_feed(root, corpus_file):
    result = run(
        root, "feed", f"--data={corpus_file}", "--length=64", "--rounds=1", "--vocabulary=320"
    )
    assert result["tokens"] > 0 and 0 <= result["padding"] < 0.2
    assert all(rate > 0 for rate in result["tokens_per_second"].values())


def test_preparation(root):
    pytest.importorskip("datasets")
    result = run(
        root,
        "preparation",
        "--megabytes=0.3",
        "--workers=1",
        "--rounds=1",
        "--vocabulary=400",
    )
    assert result["tokens"] > 10_000 and result["ratio"] > 0
