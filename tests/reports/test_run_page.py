"""The report of complete, partial and empty workdirs."""

import html.parser
import json
import re
import unittest.mock

import pytest

from marco_jax.evaluation.results import Result, write_results
from marco_jax.reports import run_charts as figures
from marco_jax.reports.labels import distinct_names, metric_label, task_label
from marco_jax.reports.run_data import load_run, realised_shares
from marco_jax.reports.run_facts import answers, differences_from_defaults, run_facts, sample_rows
from marco_jax.reports.run_page import write_report
from marco_jax.reports.summary import format_summary, summary
from marco_jax.training.metrics_log import MetricsWriter
from tests.reports.made_runs import write_run

STAGES = [
    {"name": "base", "first_step": 0, "steps": 20, "shares": {"en": 1.0}},
    {"name": "stage1", "first_step": 20, "steps": 10, "shares": {"en": 0.75, "kk": 0.25}},
    {"name": "stage2", "first_step": 30, "steps": 10, "shares": {"en": 0.5, "kk": 0.5}},
]


class Page(html.parser.HTMLParser):
    """What a page asks for, its open elements, its text and its embedded JSON."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open, self.ids, self.scripts, self.text = [], [], set(), {}, ""
        self.script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        found = [attrs[name] for name in ("src", "href") if name in attrs]
        self.fetched += [one for one in found if not one.startswith(("#", "data:"))]
        self.ids.add(attrs.get("id"))
        if tag == "script":
            self.script = attrs.get("id")
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self.script] = data
        else:
            self.text += data

    @property
    def figures(self):
        return json.loads(self.scripts["figures"])


def _metrics(stop):
    lines = []
    for step in range(1, stop + 1):
        stage = 0 if step <= 20 else 1 if step <= 30 else 2
        row = {"step": step, "stage": STAGES[stage]["name"], "loss": 5 - step / 20,
               "learning_rate": 1e-3, "tokens": 100 * step, "tokens_per_second": 50.0,
               "mfu": None, "grad_norm": 1.0, "padding": 0.0,
               "loss/en": 5 - step / 20, "tokens/en": 100}  # fmt: skip
        if stage and step % 2:
            row |= {"loss/kk": 6.0, "tokens/kk": 50, "tokens/en": 50}
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def _evaluate(workdir, step, english, kazakh):
    rows = [
        Result("bits_per_byte", code, 0, "bits_per_byte", value, 0.1, 4)
        for code, value in (("en", english), ("kk", kazakh), ("high", english), ("low", kazakh))
    ]
    rows += [
        Result("pick_translation", code, 3, "accuracy_pmi", 0.25 + step / 100, 0.02, 16)
        for code in ("kk", "low")
    ]
    rows += [Result("translation", code, 3, "chrf++", step / 2, 0.5, 16) for code in ("kk", "low")]
    write_results(workdir / "eval" / f"{step}.json", rows)


@pytest.fixture
def workdir(tmp_path):
    """A finished run of three stages; its config tries to break out of the page."""
    directory = tmp_path / "run <1>"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"note": "</script><b>"}))
    (directory / "mixture.json").write_text(json.dumps({"stages": STAGES}))
    (directory / "metrics.jsonl").write_text(_metrics(40))
    for step, english, kazakh in ((0, 8, 8), (20, 2, 4), (30, 2.1, 3), (40, 2.2, 2)):
        _evaluate(directory, step, english, kazakh)
    return directory


def _read(workdir):
    return Page(write_report(workdir).read_text(encoding="utf-8"))


def test_complete_page(workdir):
    page = _read(workdir)
    assert page.open == []
    assert {"bits", "map", "task_0", "task_1", "loss", "rate", "speed", "mixture"} <= page.ids
    assert set(page.figures) <= page.ids
    assert "run <1>" in page.text and "</script><b>" in page.text
    assert "Kazakh" in page.text and "-50.0 %" in page.text
    assert [path.name for path in workdir.iterdir() if "tmp" in path.name] == []


def test_page_fetches_nothing(workdir):
    page = write_report(workdir).read_text(encoding="utf-8")
    assert Page(page).fetched == []
    assert not re.search(r"@import|url\(", page.split("</style>")[0])


def test_summary_compares_with_the_base(workdir):
    figures = summary(workdir)
    assert [mark["step"] for mark in figures["milestones"]] == [20, 30, 40]
    lines = {(line["task"], line["language"]): line["values"] for line in figures["headlines"]}
    english = lines["bits_per_byte", "en"]
    assert [figure["value"] for figure in english] == [2, 2.1, 2.2]
    assert english[0]["change"] is None
    assert english[2]["change"] == pytest.approx(10)
    assert lines["pick_translation", "low"][2]["change"] == pytest.approx(0.2)
    assert (figures["step"], figures["steps"], figures["tokens"]) == (40, 40, 4000)
    assert figures["seconds"] == pytest.approx(40 * 100 / 50)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_summary_in_print(workdir):
    text = format_summary(summary(workdir))
    assert "Stage-II" in text and "2.200 (+10.0 %)" in text
    assert "65.0 ± 2.0 % (+20.0)" in text and "(chance 25%)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_stages_follow_the_metrics_without_mixture_json(workdir):
    (workdir / "mixture.json").unlink()
    assert [(s.name, s.first_step, s.last_step) for s in load_run(workdir).stages] == [
        ("base", 0, 20), ("stage1", 20, 30), ("stage2", 30, 40),
    ]  # fmt: skip
    assert [mark["step"] for mark in summary(workdir)["milestones"]] == [20, 30, 40]
    assert _read(workdir).open == []


def test_a_run_without_a_base_stage_starts_at_its_first_evaluation(workdir):
    stages = [stage | {"name": stage["name"].replace("base", "warm")} for stage in STAGES]
    (workdir / "mixture.json").write_text(json.dumps({"stages": stages}))
    marks = summary(workdir)["milestones"]
    assert [(mark["label"], mark["step"]) for mark in marks][:2] == [("Start", 0), ("warm", 20)]


def test_realised_shares(workdir):
    shares = realised_shares(load_run(workdir))
    assert shares["base"] == {"en": 1.0}
    assert shares["stage1"] == {"en": 0.75, "kk": 0.25}


def test_a_line_is_cut_where_a_stage_begins(workdir):
    figure = figures.training_loss(load_run(workdir))
    kazakh = next(trace for trace in figure["data"] if trace["name"] == "Kazakh")
    assert set(kazakh["y"]) == {6.0} and min(kazakh["x"]) > 20
    assert kazakh["meta"] == {"group": "low", "weights": [50.0] * 10, "cuts": [0, 5]}
    assert figure["data"][-1]["meta"]["cuts"] == [0, 20, 30]


def test_long_runs_are_thinned_by_means(tmp_path):
    rows = [
        {"step": step, "loss": float(step), "learning_rate": 1.0, "tokens/kk": step % 2}
        for step in range(1, 5001)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = load_run(tmp_path)
    found = figures.binned(run, "loss")
    assert len(found["x"]) == len(found["y"]) == figures.POINTS
    assert found["x"][0] < 18 and found["x"][-1] > 4982
    assert found["y"][0] == pytest.approx(sum(range(1, 18)) / 17, abs=0.6)
    # Steps without the weight count for nothing: means are of odd steps.
    weighed = figures.binned(run, "loss", "tokens/kk")
    assert sum(weighed["meta"]["weights"]) == 2500
    assert all(value == round(value) for value in weighed["y"])


def test_tokens_and_hours_of_steps(workdir):
    rows = [json.loads(line) for line in _metrics(40).splitlines()]
    for row in rows:
        # A restart after step 30: the sum begins again.
        since = row["step"] if row["step"] <= 30 else row["step"] - 30
        row |= {"step_seconds": 36.0, "evaluation_seconds": 36.0 * since}
    (workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = figures.axis_table(load_run(workdir))
    assert table["step"][0] == 0 and table["step"][-1] == 40
    assert table["tokens"][-1] == 4000
    assert table["hours"][-1] == pytest.approx(0.8) and table["hours"][10] == pytest.approx(0.2)


def test_the_answers_of_a_run(workdir):
    found = {one["title"]: one for one in answers(load_run(workdir), [])}
    low, english = found["Low-resource languages"], found["English"]
    assert (low["value"], low["kind"]) == ("-50.0%", "good")
    assert (english["value"], english["kind"]) == ("+10.0%", "bad")
    pick = found["Picking the right translation"]
    # Of independent values: 20 points with an error of 2.8.
    assert (pick["value"], pick["kind"]) == ("+20.0 ± 2.8", "good")
    assert found["Mixture"]["value"] == "25.0 points off"
    assert "Kazakh in Stage-II, asked 50.00%, had 25.00%" in found["Mixture"]["detail"]
    assert found["Mixture"]["kind"] == "bad"


def test_the_facts_of_a_run(tmp_path):
    run = load_run(write_run(tmp_path / "run", 1.0))
    found = dict(run_facts(run))
    assert found["Config"] == "configs/demo.py" and found["Devices"] == "8 × TPU v5p"
    assert found["Commit"] == "0123456789 with uncommitted changes" and found["Hosts"] == "2"
    assert found["Started"] == "21 September 2026, 14:13 UTC"
    assert found["Price"] == "$0.33 at $2.50 a device-hour"
    assert "jax 0.10.2" in found["Versions"]
    assert differences_from_defaults(run)[0][1:] == ["256", "512"]
    (english, urdu) = sample_rows(run)
    assert english["texts"] == [(40, "answer 40"), (60, "answer 60"), (80, "answer 80")]
    assert urdu["language"] == "Urdu"
    (run.workdir / "environment.json").write_text('{"versions": 3, "changed": [1], "devices": "x"}')
    (run.workdir / "samples" / "80.json").write_text('{"samples": [{"language": "en"}, 3]}')
    damaged = load_run(run.workdir)
    assert differences_from_defaults(damaged) == [] and max(damaged.samples) == 60
    write_report(run.workdir)


def test_names_for_people():
    assert task_label("xcopa:cloze:5@validation") == "XCOPA, cloze, 5 shots (validation)"
    assert task_label("my_task") == "My task"
    assert metric_label("accuracy_pmi") == "Accuracy, PMI-normalised"
    assert metric_label("own_metric") == "Own metric"
    paths = ["/r/a/prior", "/r/b/prior", "gs://c/other", "/q/a/prior/"]
    assert distinct_names(paths) == ["r/a/prior", "b/prior", "other", "q/a/prior"]


def test_empty_workdir(tmp_path):
    page = _read(tmp_path)
    assert page.figures == {} and page.open == []
    assert "No evaluation yet" in page.text
    assert "no evaluation yet" in format_summary(summary(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "mixture.json", "metrics.jsonl", "eval"])
def test_any_file_may_be_missing(workdir, missing):
    for path in [workdir / missing, *workdir.glob(f"{missing}/*")][::-1]:
        path.rmdir() if path.is_dir() else path.unlink()
    assert _read(workdir).open == []
    format_summary(summary(workdir))


def test_a_run_in_progress_or_killed(workdir):
    (workdir / "metrics.jsonl").write_text(_metrics(26) + '{"step": 27, "lo')
    (workdir / "eval" / "30.json").rename(workdir / "eval" / "26.json")
    (workdir / "eval" / "40.json").write_text("[{")
    assert [mark["label"] for mark in summary(workdir)["milestones"]] == [
        "Base",
        "Stage-I, step 26",
    ]
    assert summary(workdir)["step"] == 26
    assert _read(workdir).open == []


def test_keys_may_be_missing(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/kk": 2.0}\n{"step": 2}\n{}\n')
    (tmp_path / "mixture.json").write_text('{"stages": [{"name": "stage1"}]}')
    (tmp_path / "config.json").write_text("[]")
    assert _read(tmp_path).open == []
    format_summary(summary(tmp_path))


def test_figures_that_are_not_numbers_are_gaps(workdir):
    rows = [Result("bits_per_byte", "en", 0, "bits_per_byte", float("nan"), float("nan"), 1)]
    write_results(workdir / "eval" / "40.json", rows)
    assert [mark["step"] for mark in summary(workdir)["milestones"]] == [20, 30, 40]
    assert "nan" not in _read(workdir).text


def test_a_restart_and_the_report_see_the_same_rows_of_a_damaged_file(tmp_path):
    lines = [json.dumps({"step": step, "tokens": 10 * step}) for step in (1, 2, 3, 5, 4)]
    lines[2] = lines[2][:9]
    # A run that went on after step 1 has written step 2 again.
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"step": 2, "tokens": 21}', "[3]", '{"step": 6, "to']))
    seen = load_run(tmp_path).metrics
    assert [(row["step"], row["tokens"]) for row in seen] == [(1, 10), (2, 21), (4, 40), (5, 50)]
    meta = {"step": 5, "tokens": 50}
    MetricsWriter(tmp_path, unittest.mock.MagicMock(), ("en",), 8, meta, unittest.mock.Mock())
    assert [json.loads(line) for line in path.read_text().splitlines()] == seen
    assert load_run(tmp_path).metrics == seen


def test_no_directory_is_one_clear_line(tmp_path):
    with pytest.raises(NotADirectoryError, match="absent is not a directory"):
        write_report(tmp_path / "absent")
