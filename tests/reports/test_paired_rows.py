"""Paired differences on the pages of runs."""

import pytest

from marco_jax.evaluation.builtin_tasks import BITS_PER_BYTE
from marco_jax.evaluation.outcomes import Measured, Outcomes, outcomes_path, write_outcomes
from marco_jax.evaluation.result_rows import result_rows
from marco_jax.evaluation.results import write_results
from marco_jax.reports.comparison_page import write_comparison
from marco_jax.reports.paired_rows import paired_table, run_differences
from marco_jax.reports.run_data import load_run
from marco_jax.reports.run_page import write_report

SIZES = [10] * 12


def write_step(workdir, step, bits):
    """Bits per byte of twelve Kazakh texts, with or without the items' outcomes."""
    items = [f"text {n}" for n in range(len(SIZES))]
    found = Outcomes(items, {"bits_per_byte": Measured.ratio(bits, SIZES)})
    outcomes = {("bits_per_byte", "kk"): found}
    path = workdir / "eval" / f"{step}.json"
    write_results(path, result_rows([BITS_PER_BYTE], outcomes, {"bits_per_byte": 0}))
    write_outcomes(outcomes_path(path), outcomes, {"bits_per_byte": 0})


@pytest.fixture
def workdir(tmp_path):
    directory = tmp_path / "run"
    write_step(directory, 0, [40 + n for n in range(12)])
    write_step(directory, 4, [38 + n + n % 2 for n in range(12)])
    return directory


def test_a_run_is_compared_with_its_start_text_by_text(workdir):
    run = load_run(workdir)
    (row,) = [d for d in run_differences(run, 0, run, 4) if d.language == "kk"]
    assert row.difference == pytest.approx(-0.15)
    # The texts differ far more than their changes do.
    assert row.stderr < 0.02 and row.p_value < 0.01
    table = paired_table(run_differences(run, 0, run, 4))
    assert table[0] == ["Bits per byte"]
    assert table[1][:3] == ["Mean", "4.550", "4.400"]
    assert table[1][3]["kind"] == "good" and table[1][5] == 12
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "On the same items: Start and step 4" in page


def test_runs_are_compared_at_their_ends(workdir, tmp_path):
    other = tmp_path / "other"
    write_step(other, 6, [45 + n for n in range(12)])
    page = write_comparison([workdir, other], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "On the same items" in page and "+0.650" in page
    outcomes_path(other / "eval/6.json").write_bytes(b"damaged")
    page = write_comparison([workdir, other], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "On the same items" not in page
