"""From raw files to a trained model by three commands, with nothing done by hand between."""

import gzip
import json
import random

import pytest

from marco_jax.__main__ import main
from tests.curation.test_warc import http, record
from tests.curation.web_texts import SENTENCES

CONFIG = """
from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config():
    c = training_config()
    c.steps = 4
    c.mixture.name = c.stages = "flat"
    c.stage = ConfigDict({"flat": training_stage(1, 1e-3, warmup_share=0.0, final_share=0.1)})
    c.tokenizer.vocab_size = 800
    c.model.hidden_size, c.model.intermediate_size, c.model.num_hidden_layers = 32, 64, 1
    c.model.num_attention_heads, c.model.num_key_value_heads, c.model.head_dim = 2, 1, 16
    c.batch.length, c.batch.sequences_per_chip = 64, 1
    c.evaluation.tasks = ""
    return c
"""
ENGLISH = (
    ["The", "A", "Every", "No"],
    ["teacher", "river", "market", "village", "winter", "garden", "letter"],
    ["was", "became", "remained"],
    ["old", "quiet", "famous", "large", "empty", "green"],
    ["because of the", "before the", "after the", "with the"],
    ["storm", "war", "harvest", "election", "school", "bridge", "road"],
)
GERMAN = (
    ["Der", "Ein", "Jeder", "Kein"],
    ["Lehrer", "Fluss", "Markt", "Ort", "Winter", "Garten", "Brief"],
    ["war", "wurde", "blieb"],
    ["alt", "still", "bekannt", "groß", "leer", "grün"],
    ["wegen der", "vor der", "nach der", "mit der"],
    ["Nacht", "Flut", "Ernte", "Wahl", "Schule", "Brücke", "Straße"],
)


# Languages and charsets of pages in a WARC file.
CRAWLED = {
    "zh": "gb18030",
    "ja": "shift_jis",
    "ko": "euc_kr",
    "ru": "koi8-r",
    "uk": "windows-1251",
    "el": "windows-1253",
    "he": "windows-1255",
    "ar": "windows-1256",
    "th": "tis-620",
    "pl": "iso-8859-2",
    "tr": "windows-1254",
    "hu": "windows-1250",
}


def pages(text: str) -> list[str]:
    """A text, and its words in other orders; pairs of characters where there are few spaces."""
    words, draw = text.split(" "), random.Random(len(text))
    joint = " " if len(words) > 10 else ""
    words = words if joint else [text[at : at + 2] for at in range(0, len(text), 2)]
    return [text, *(joint.join(draw.sample(words, len(words))) for _ in range(5))]


def sentences(slots: tuple, seed: int, count: int) -> str:
    draw = random.Random(seed)

    def name() -> str:
        return "".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(4)).title()

    made = []
    for _ in range(count):
        words = list(map(draw.choice, slots))
        made.append(" ".join([*words[:2], name(), *words[2:], name(), name()]) + ".")
    return " ".join(made)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = [
        {"id": f"{code}{n}", "text": sentences(slots, n, 10), "language": code}
        for code, slots in (("en", ENGLISH), ("de", GERMAN))
        for n in range(60)
    ]
    rows += [{"id": "copy", "text": rows[0]["text"]}, {"id": "short", "text": "Read more"}]
    lines = [json.dumps(row) for row in rows]
    (folder / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pairs = [
        "\t".join(sentences(slots, n, 1) for slots in (ENGLISH, GERMAN)) for n in range(100, 160)
    ]
    crawled = [
        record(http(f"<p>{page}</p>".encode(codec), media=f"text/html; charset={codec}"))
        for code, codec in CRAWLED.items()
        for page in pages(SENTENCES[code])
    ]
    (folder / "crawl.warc.gz").write_bytes(b"".join(map(gzip.compress, crawled)))
    (folder / "pairs.en-de.tsv").write_text("\n".join([*pairs, "no pair"]), encoding="utf-8")
    return folder


def test_raw_text_becomes_a_model(tmp_path, root, raw, capsys):
    out, rejects, workdir = tmp_path / "corpus", tmp_path / "rejects", tmp_path / "run"
    curated = ["curate", f"--input={raw}/*", f"--out={out}", f"--rejects={rejects}"]
    assert main([*curated, f"--config={root / 'configs/curation.py'}", "--sample=1"]) == 0
    assert main([*curated, f"--config={root / 'configs/curation.py'}"]) == 2
    assert "exists: name a new directory" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["unreadable"] == {"not two columns": 1}
    assert report["languages"]["en"]["kept"] + report["languages"]["de"]["kept"] == 120
    assert report["languages"]["en-de"]["kept"] > 40
    assert len(report["charsets"]) == len(CRAWLED)
    assert sum(report["charsets"].values()) == 6 * len(CRAWLED)
    assert all(report["languages"][code]["kept"] for code in CRAWLED)
    (tmp_path / "config.py").write_text(CONFIG, encoding="utf-8")
    train = ["train", f"--config={tmp_path / 'config.py'}", f"--workdir={workdir}"]
    assert main([*train, f"--config.data={out}"]) == 0
    mixture = json.loads((workdir / "mixture.json").read_text(encoding="utf-8"))
    assert {"en", "de", "parallel", *CRAWLED} <= set(json.dumps(mixture).replace('"', " ").split())
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 4 and 0 < last["loss"] < 10
    # A model judges what is read, by bits a byte, and its tokenizer counts.
    judged = [f"--config.perplexity_model={workdir}", "--config.most_bits_per_byte=100"]
    judged += [f"--config.tokenizer={workdir}/tokenizer", f"--out={tmp_path / 'again'}"]
    curated = ["curate", f"--input={raw}/pages.jsonl", f"--config={root / 'configs/curation.py'}"]
    assert main([*curated, *judged]) == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text(encoding="utf-8"))
    assert again["total"]["kept"] == 120 and again["languages"]["de"]["tokens"] > 0
    bits = [h for h in again["histograms"] if h["rule"] == "bits a byte"]
    assert {h["language"] for h in bits} == {"en", "de"}
    assert all(h["most"] == 100 and 0 < h["counts"][0][0] < 20 for h in bits)
