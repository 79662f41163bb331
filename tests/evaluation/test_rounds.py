"""Evaluations within a time limit, and evaluations that are cut off and go on."""

import gzip
import json

import pytest

from marco_jax.evaluation import evaluator as evaluator_module
from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.evaluation.outcomes import Outcomes, outcomes_path, read_outcomes, write_outcomes
from marco_jax.evaluation.rounds import blocks, shares
from marco_jax.evaluation.suites import ChoiceItem, ChoiceSuite

TASKS = ["bits_per_byte", "pick_translation", "translation"]


@pytest.fixture
def suite(byte_tokenizer):
    def build(parts, clusters=None):
        items = [
            ChoiceItem(f"q{n}", ("a", "b"), 0, part=part, cluster=clusters and clusters[n])
            for n, part in enumerate(parts)
        ]
        return ChoiceSuite.build(byte_tokenizer, items)

    return build


def test_shares_cover_every_item_once_and_every_beginning_is_balanced(suite):
    suites = {("t", "kk"): suite(["x"] * 40 + ["y"] * 20), ("t", "ne"): suite([""] * 3)}
    rounds = shares(suites, 10)
    for key, one in suites.items():
        rows = [row for planned in rounds for row in planned.rows.get(key, ())]
        assert sorted(rows) == list(range(one.examples))
    assert set(rounds[0].rows) == set(suites)
    for planned in rounds:
        parts = [suites["t", "kk"].items[row].part for row in planned.rows["t", "kk"]]
        assert (parts.count("x"), parts.count("y")) == (4, 2)


def test_items_of_a_cluster_stay_together(suite):
    clusters = [str(n // 4) for n in range(20)]
    for planned in shares({("t", "kk"): suite([""] * 20, clusters)}, 3):
        rows = planned.rows["t", "kk"]
        assert len(rows) % 4 == 0


def test_blocks_are_of_one_task_and_language(suite):
    suites = {(task, code): suite([""] * 700) for task in "tu" for code in ("kk", "ne")}
    rounds = blocks(suites)
    assert all(len(one.rows) == 1 for one in rounds)
    assert [one.name for one in rounds[:1]] == ["t, task 1 of 2"]
    # Two requests an item, and two of pmi in all.
    assert {one.size for one in rounds} <= {510, 511, 190, 189}
    assert sum(one.size for one in rounds) == 2800


def run(engine, corpus, **options):
    return Evaluator(engine, corpus, TASKS, examples=8).run(1.0, **options)


class Clock:
    """Every reading is a second later."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1
        return self.now


def test_a_time_limit_leaves_out_the_same_share_everywhere(fake_engine, corpus, monkeypatch):
    whole = run(fake_engine(), corpus)
    assert whole.left_out == ""
    monkeypatch.setattr(evaluator_module, "time", Clock())
    some = run(fake_engine(), corpus, max_seconds=40)
    assert "of" in some.left_out and some.left_out.startswith("max_seconds is 40")
    counts = {key: len(one.items) for key, one in some.outcomes.items()}
    assert counts.keys() == whole.outcomes.keys()
    for task in TASKS:
        assert len({count for (name, _), count in counts.items() if name == task}) == 1
    assert sum(counts.values()) < sum(len(one.items) for one in whole.outcomes.values())
    # What was evaluated has the same outcomes as in the whole.
    for key, one in some.outcomes.items():
        rows = [list(whole.outcomes[key].items).index(item) for item in one.items]
        assert whole.outcomes[key].take(rows).to_record() == one.to_record()


def test_a_share_is_evaluated_however_short_the_time(fake_engine, corpus):
    some = run(fake_engine(), corpus, max_seconds=1e-9)
    assert all(one.items for one in some.outcomes.values())


def files(evaluation, evaluator, path):
    write_outcomes(outcomes_path(path), evaluation.outcomes, evaluator.shots)
    return outcomes_path(path).read_bytes(), evaluation.results


class Killed(Exception):
    """The process ends here."""


def test_a_cut_evaluation_goes_on_to_the_same_files(fake_engine, corpus, tmp_path):
    out = tmp_path / "results.json"

    def start(engine, model="m"):
        evaluator = Evaluator(engine, corpus, TASKS, examples=8)
        return evaluator, evaluator.saved_rounds(out, model)

    evaluator, saved = start(fake_engine())
    expected = files(evaluator.run(1.0, saved=saved), evaluator, tmp_path / "whole.json")
    rounds = len(saved.path.read_text().splitlines()) - 1
    assert rounds == len(evaluator.run(1.0).outcomes)
    saved.remove()

    class Dying(fake_engine):
        left = 4

        def score(self, *arguments, **options):
            self.left -= 1
            if not self.left:
                raise Killed
            return super().score(*arguments, **options)

    evaluator, saved = start(Dying())
    with pytest.raises(Killed):
        evaluator.run(1.0, saved=saved)
    with open(saved.path, "a") as file:
        file.write('[["cut of')
    engine = fake_engine()
    evaluator, saved = start(engine)
    assert len(saved.finished) == 3
    found = files(evaluator.run(1.0, saved=saved), evaluator, tmp_path / "resumed.json")
    assert found == expected
    assert len(engine.calls) == rounds - 3
    # Another model, or other requests, begin again.
    assert not start(engine, "another")[1].finished
    other = Evaluator(engine, corpus, TASKS, examples=4)
    assert not other.saved_rounds(out, "another").finished


def test_files_of_outcomes_are_read_back(fake_engine, corpus, tmp_path):
    evaluator = Evaluator(fake_engine(), corpus, TASKS, examples=8)
    outcomes = evaluator.run(float("nan")).outcomes
    path = tmp_path / "1.items.jsonl.gz"
    write_outcomes(path, outcomes, evaluator.shots)
    back = read_outcomes(path)
    assert {key: one.to_record() for key, one in back.items()} == {
        key: one.to_record() for key, one in outcomes.items()
    }
    line = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    assert set(line) == {"task", "language", "shots", "items", "metrics"}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot read outcomes from"):
        read_outcomes(path)


def test_joined_outcomes_are_those_of_all_items(fake_engine, corpus):
    for one in run(fake_engine(), corpus).outcomes.values():
        rows = range(len(one.items))
        pieces = [one.take(rows[:2]), one.take(rows[2:])]
        assert Outcomes.join(pieces).to_record() == one.to_record()
        assert Outcomes.join(pieces).estimates() == one.estimates()
