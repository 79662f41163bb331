"""`marco curate` from raw files to a corpus that training reads."""

import gzip
import json
import pathlib
import random

import pytest

from marco_jax.curation import beam_runs
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.pipeline import PHASES
from marco_jax.data.load import load_corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.reports.curation_page import curation_page
from marco_jax.tokenizers.tokenizer_files import Companions

WORDS = ["river", "market", "garden", "winter", "teacher", "letter", "morning", "people", "bridge"]


def prose(seed: int, sentences: int = 8) -> str:
    draw = random.Random(seed)

    def name() -> str:
        return "".join(draw.choice("bdfglmnprst") + draw.choice("aeiou") for _ in range(4)).title()

    made = []
    for _ in range(sentences):
        first, second = draw.sample(WORDS, 2)
        made.append(f"{name()} of {name()} met {name()} in the {first} with the {second} {name()}.")
    return " ".join(made)


class Bytes:
    """UTF-8 bytes as token ids."""

    vocab_size = 257
    eos_id = 256
    companions = Companions()
    fingerprint = "b17e5b17e5b17e5b"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i != self.eos_id).decode()


def write(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def kept(out: pathlib.Path) -> dict[str, str]:
    rows = {}
    for file in out.glob("docs/*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows |= {row["id"]: row["text"] for row in map(json.loads, lines)}
    return rows


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    page = prose(1)
    return [
        *({"id": f"good{n}", "text": prose(n), "lang_hint": "en"} for n in range(1, 9)),
        {"id": "copy", "text": page, "lang_hint": "en"},
        {"id": "cut", "text": prose(2)[: int(0.6 * len(prose(2)))], "lang_hint": "en"},
        {"id": "wrong", "text": prose(20), "lang_hint": "kk"},
        {"id": "bad", "text": prose(21), "url": "https://porn-tube.example/a"},
        {"id": "log", "text": "2024-07-14 12:50:01 INFO worker GET /api/v1/items 200\n" * 9},
        {"id": "mail", "text": prose(22) + " Write to jane.roe@example.org for more."},
        {"id": "item", "text": prose(23) + " Which town was granted to the Huguenots on arrival?"},
    ]


def test_curated_text_is_a_corpus_and_defects_are_gone(tmp_path, rows):
    config = curation_config()
    items = [{"question": "Which town was actually granted to the Huguenots on arrival?"}]
    config.benchmarks = str(write(tmp_path / "items.jsonl", items))
    raw = write(tmp_path / "raw.jsonl", rows)
    out, rejects = tmp_path / "out", tmp_path / "rejects"
    report = curate((str(raw),), out, config, rejects=rejects, sample=2, explain="log")
    found = kept(out)
    assert set(found) - {"copy", "good1"} == {*(f"good{n}" for n in range(2, 9)), "mail"}
    assert len({"copy", "good1"} & set(found)) == 1
    assert "jane.roe" not in found["mail"] and "<EMAIL>" in found["mail"]
    assert report["explained"][-1] == "log: language en; rejected by machine_text: log"
    thrown = {}
    for file in rejects.glob("*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            thrown |= {row["id"]: row["stage"] for row in map(json.loads, lines)}
    assert len(thrown) + len(found) == len(rows) == report["total"]["read"]
    assert thrown["cut"] == "duplicates" and thrown["wrong"] == "language"
    assert thrown["bad"] == "url" and thrown["item"] == "benchmarks"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert sum(shard["documents"] for shard in manifest["shards"]) == len(found)
    corpus = load_corpus(str(out))
    assert list(corpus.sources()) == ["en"]
    stores = prepare_stores(corpus, Bytes(), ["en"], tmp_path / "cache")
    assert set(stores) == {"en"}


def test_order_shards_and_bad_records_do_not_change_what_is_kept(tmp_path, rows):
    one = curate((str(write(tmp_path / "a.jsonl", rows)),), tmp_path / "one", curation_config())
    config = curation_config()
    config.shards = 8
    mixed = random.Random(3).sample(rows, len(rows))
    folder = tmp_path / "many"
    folder.mkdir()
    write(folder / "a.jsonl", mixed[:7])
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b'{"id": "broken"\n\xff\xfe\n{"id": 3}\n')
        file.write(b'{"text": "' + b"x" * (33 << 20) + b'"}\n')
    (folder / "b.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in mixed[7:]).encode())
    )
    (folder / "c.jsonl").write_bytes(b"")
    (folder / "d.jsonl.gz").write_bytes(b"no gzip at all")
    # What a killed run left.
    (tmp_path / "two.partial").mkdir()
    (tmp_path / "two.partial" / "junk.jsonl").write_text("junk")
    two = curate((str(folder / "*"),), tmp_path / "two", config)
    assert kept(tmp_path / "one") == kept(tmp_path / "two")
    assert one["total"]["kept"] == two["total"]["kept"]
    assert not list((tmp_path / "two").rglob("junk*"))
    faults = two["unreadable"]
    assert [faults[name] for name in ("no JSON", "not UTF-8", "line too long")] == [1, 1, 1]
    assert faults["the record has no text"] == 1


def test_a_run_that_was_killed_goes_on_after_the_last_phase_that_ended(tmp_path, rows, monkeypatch):
    raw = (str(write(tmp_path / "raw.jsonl", rows)),)
    curate(raw, tmp_path / "whole", curation_config(), sample=2)
    real, ran = beam_runs._run_phase, []

    def stopped(name, *others):
        ran.append(name)
        outputs = real(name, *others)
        # The files of the phase are there, but it has not been marked as done.
        if name == stop:
            (out.with_name(f"{stop}.partial") / "final" / "docs").mkdir(parents=True, exist_ok=True)
            (out.with_name(f"{stop}.partial") / "final" / "docs" / "en.1.draft").write_text("cut")
            raise KeyboardInterrupt
        return outputs

    for number, stop in enumerate(PHASES):
        out = tmp_path / stop
        with monkeypatch.context() as patch:
            patch.setattr(beam_runs, "_run_phase", stopped)
            with pytest.raises(KeyboardInterrupt):
                curate(raw, out, curation_config(), sample=2)
            assert not out.exists() and ran.pop() == stop
            ran.clear()
            stop = ""
            curate(raw, out, curation_config(), sample=2)
        assert ran == list(PHASES)[number:]
        ran.clear()
        for name in ("manifest.json", "report.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert not out.with_name(f"{out.name}.partial").exists()
        assert not list(out.rglob("*.draft"))


@pytest.mark.slow
def test_several_processes_and_one_pipeline_give_the_same_corpus(tmp_path, rows):
    raw = (str(write(tmp_path / "raw.jsonl", rows)),)
    one = curate(raw, tmp_path / "one", curation_config())
    for name, options in (
        ("processes", {"workers": 2}),
        ("chained", {"runner": "DirectRunner"}),
    ):
        assert curate(raw, tmp_path / name, curation_config(), **options) == one
        manifests = [(tmp_path / run / "manifest.json").read_bytes() for run in ("one", name)]
        assert manifests[0] == manifests[1], name


def test_boilerplate_caps_and_weights(tmp_path):
    menu = ["Accept all cookies", "Subscribe to our newsletter"]
    rows = [
        {"id": f"page{n}", "url": f"https://www.site{n % 2}.example/{n}", "language": "en"}
        | {"text": "\n".join([menu[0], prose(100 + n), menu[1]])}
        for n in range(20)
    ]
    rows += [{**rows[0], "id": "copy"}, {"id": "menu", "text": "\n".join(menu * 9)}]
    config = curation_config()
    config.host_cap, config.rehydrate = 4, True
    report = curate((str(write(tmp_path / "raw.jsonl", rows)),), tmp_path / "out", config)
    found = kept(tmp_path / "out")
    assert len(found) == 8 and not any(line in text for line in menu for text in found.values())
    rejected = {}
    for entry in report["languages"].values():
        rejected |= entry["rejected"]
    assert rejected["host: cap"] == 12 and rejected["boilerplate: nothing else"] == 1
    with gzip.open(next((tmp_path / "out/docs").glob("*.gz")), "rt") as lines:
        weights = {row["cluster_size"]: row["weight"] for row in map(json.loads, lines)}
    assert weights in ({1: 1}, {1: 1, 2: 2})


def test_a_perplexity_decides_by_language(tmp_path):
    rows = [{"id": str(n), "text": prose(n), "language": "en"} for n in range(40)]
    config = curation_config()
    config.perplexity_model, config.most_bits_per_byte = "a model", "en=1.0,kk=9"
    raw = (str(write(tmp_path / "raw.jsonl", rows)),)
    marked = {prose(3), prose(7)}

    def bits(texts: list[str], languages: list[str]) -> list[float]:
        assert set(languages) == {"en"}
        return [2.0 if text in marked else 0.5 for text in texts]

    report = curate(raw, tmp_path / "out", config, perplexity=bits, count_tokens=len)
    assert set(kept(tmp_path / "out")) == {str(n) for n in range(40)} - {"3", "7"}
    assert report["languages"]["en"]["rejected"] == {"perplexity: high": 2}
    assert report["languages"]["en"]["tokens"] == report["languages"]["en"]["bytes"]
    with pytest.raises(ValueError, match="needs a model"):
        curate(raw, tmp_path / "other", config)
    config.most_bits_per_byte = "kk=x"
    with pytest.raises(ValueError, match="'kk=x' is not a number"):
        curate(raw, tmp_path / "other", config, perplexity=bits)


def test_the_report_is_a_funnel_with_samples_and_bounds(tmp_path, rows):
    raw = write(tmp_path / "raw.jsonl", rows)
    report = curate((str(raw),), tmp_path / "out", curation_config(), sample=1)
    for entry in report["languages"].values():
        documents = [row["documents"] for row in entry["funnel"]]
        assert documents[0] == entry["read"] and documents[-1] == entry["kept"]
        assert documents == sorted(documents, reverse=True)
    assert report["funnel"][0]["documents"] == report["total"]["read"]
    assert report["funnel"][-1]["documents"] == report["total"]["kept"]
    scripts = [h for h in report["histograms"] if h["rule"] == "script"]
    assert scripts and all(h["least"] == 0.15 for h in scripts)
    links = next(h for h in report["histograms"] if h["rule"] == "links" and h["language"] == "en")
    assert links["most"] == 0.4 and sum(n for _, n in links["counts"]) >= 9
    assert {sample["fate"] for sample in report["samples"]} >= {"kept", "url: adult"}
    page = curation_page(report)
    # A chart for each rule, with its bounds.
    assert 'id="scores_0"' in page and '"bounds":[' in page


def test_an_output_that_exists_is_left_alone(tmp_path, rows):
    raw = write(tmp_path / "raw.jsonl", rows)
    with pytest.raises(ValueError, match="exists: name a new directory"):
        curate((str(raw),), tmp_path, curation_config())
    with pytest.raises(FileNotFoundError, match="no file matches"):
        curate((str(tmp_path / "none*"),), tmp_path / "out", curation_config())
    with pytest.raises(ValueError, match="--workers=0: write 1 or more"):
        curate((str(raw),), tmp_path / "out", curation_config(), workers=0)


def test_pairs_are_a_corpus_with_one_pair_for_a_text(tmp_path):
    english = "The committee met on Monday and agreed to meet again in 2024."
    german = "Der Ausschuss tagte am Montag und beschloss, 2024 wieder zusammenzukommen."
    lines = [f"{english}\t{german}"] * 3 + [
        f"{english}\tJa.",
        "one column",
        f"{english}\t{english}",
    ]
    raw = tmp_path / "raw.en-de.tsv"
    raw.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = curate((str(raw),), tmp_path / "out", curation_config())
    assert report["languages"]["en-de"]["kept"] == 1
    assert report["languages"]["en-de"]["rejected"] == {
        "pairs: copy": 1,
        "pairs: duplicate": 2,
        "pairs: length ratio": 1,
    }
    assert report["unreadable"] == {"not two columns": 1}
    assert "parallel" in load_corpus(str(tmp_path / "out")).sources()
