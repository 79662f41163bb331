"""Rows of eval/<step>.json."""

import json
import math

import pytest

from marco_jax.evaluation.results import Result, read_results, write_results

ROW = Result("translation", "kk", 3, "chrf++", 12.5, 0.7, 40)


def test_written_rows_have_the_published_fields(tmp_path):
    write_results(tmp_path / "eval" / "10.json", [ROW])
    rows = json.loads((tmp_path / "eval" / "10.json").read_text())
    assert rows == [
        {"task": "translation", "language": "kk", "shots": 3, "metric": "chrf++",
         "value": 12.5, "stderr": 0.7, "examples": 40}
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["10.json"]


def test_round_trip(tmp_path):
    rows = [ROW, Result("bits_per_byte", "all", 0, "bits_per_byte", 1.5, 0.0, 1)]
    rows.append(Result("mmlu", "en", 5, "accuracy", 0.5, 0.1, 20, part="astronomy"))
    write_results(tmp_path / "r.json", rows)
    assert read_results(tmp_path / "r.json") == rows
    write_results(tmp_path / "empty.json", [])
    assert read_results(tmp_path / "empty.json") == []


def test_figures_that_are_not_finite_stay_valid_json(tmp_path):
    write_results(tmp_path / "r.json", [Result("t", "kk", 0, "m", math.nan, math.nan, 2)])
    assert json.loads((tmp_path / "r.json").read_text())[0]["value"] is None
    back = read_results(tmp_path / "r.json")[0]
    assert math.isnan(back.value) and math.isnan(back.stderr)


@pytest.mark.parametrize("text", ["{", "{}", '[{"task": "x"}]', "[1]"])
def test_bad_files_are_named(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match="r.json"):
        read_results(tmp_path / "r.json")
