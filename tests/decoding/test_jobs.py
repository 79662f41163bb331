"""A file of prompts: what a job that was cut off has done is not done again."""

import json

import pytest

from marco_jax.decoding import jobs
from marco_jax.decoding.jobs import run_blocks
from marco_jax.decoding.requests import GenerateRequest, Generation

ROWS = [{"id": number, "prompt": f"prompt {number}"} for number in range(11)]
REQUESTS = [GenerateRequest([number + 1], 4) for number in range(11)]


class Echo:
    """An engine that answers with its prompt and its block, and may break down."""

    def __init__(self, breaks_at=None):
        self.asked, self.breaks_at = [], breaks_at

    def ask(self, requests, start):
        if self.breaks_at is not None and len(self.asked) >= self.breaks_at:
            raise KeyboardInterrupt
        self.asked += [request.prompt[0] for request in requests]
        return [Generation((), f"{request.prompt[0]} {start}\n") for request in requests]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK", 3)


def job(engine, out, **settings):
    def answer(start, stop):
        texts = [result.text for result in engine.ask(REQUESTS[start:stop], start)]
        return [row | {"text": text} for row, text in zip(ROWS[start:stop], texts, strict=True)]

    return run_blocks(answer, ROWS, out, settings=settings)


def test_a_job_that_was_cut_off_goes_on_and_gives_the_same_file(tmp_path):
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    assert job(Echo(), whole) == 0
    with pytest.raises(KeyboardInterrupt):
        job(Echo(breaks_at=6), again)
    assert not again.exists()
    second = Echo()
    assert job(second, again) == 6
    assert second.asked == [7, 8, 9, 10, 11]
    assert again.read_bytes() == whole.read_bytes()
    rows = [json.loads(line) for line in again.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(11))
    assert rows[4] == ROWS[4] | {"text": "5 3\n"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_line_cut_in_the_middle_is_done_again(tmp_path):
    out, partial = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        job(Echo(breaks_at=6), out)
    partial.write_text(partial.read_text()[:-7])
    second = Echo()
    assert job(second, out) == 3
    assert second.asked[0] == 4
    assert len(out.read_text().splitlines()) == 11


def test_another_job_with_the_same_file_starts_anew(tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        job(Echo(breaks_at=6), out, temperature=0.0)
    second = Echo()
    assert job(second, out, temperature=1.0) == 0
    assert len(second.asked) == 11


def test_what_is_kept_is_decided_in_the_end_whatever_line_ends_texts_have(tmp_path):
    rows, calls = [{"text": f"{number}\u2028\x85b"} for number in range(7)], []

    def answer(start, stop):
        calls.append(start)
        if start == 4 and calls.count(4) == 1:
            raise KeyboardInterrupt
        return [{"n": n, **rows[n]} for n in range(start, stop)]

    def keep(record):
        return record if record["n"] % 2 else None

    out = tmp_path / "out.jsonl"
    options = {"settings": {}, "block": 2, "keep": keep}
    with pytest.raises(KeyboardInterrupt):
        run_blocks(answer, rows, out, **options)
    assert run_blocks(answer, rows, out, **options) == 4
    assert calls == [0, 2, 4, 4, 6]
    lines = out.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"n": n, **rows[n]} for n in (1, 3, 5)]
