"""marco generate --template: the paper's prompt families, from rows to batches of a feed."""

import json

import pytest

from marco_jax.__main__ import main
from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import get_mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.synthetic import FAMILIES, load_template
from marco_jax.tokenizers.tokenizer import load_tokenizer

EXPLANATION = {
    "role_1": "a teacher",
    "role_2": "first-year",
    "subject": "physics",
    "keywords": ["force", "mass"],
    "language": "kk",
}
STORY = EXPLANATION | {
    "type_passage": "a fairy tale",
    "scene": "a harbour at night",
    "style": "dry",
    "ending": "open",
    "min_length": 100,
    "max_length": 200,
}
SAMPLES = {"samples": ["One {brace}.", "Two."], "language": "Yoruba"}
ROWS = dict(zip(FAMILIES, (EXPLANATION, STORY, SAMPLES), strict=True))


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_says_all_that_its_row_does(family):
    template, row = load_template(family), ROWS[family]
    prompt = template.render(row, "rows:1")
    for name in template.fields:
        values = row[name] if isinstance(row[name], list) else [row[name]]
        assert all(str(value) in prompt or name == "language" for value in values)
    assert ("Kazakh" if row["language"] == "kk" else "Yoruba") in prompt
    for name in template.fields:
        with pytest.raises(ValueError, match=f"rows:1.*there is no '{name}'"):
            template.render({**row, name: ""}, "rows:1")


def test_what_must_not_stand_in_a_document():
    template = load_template("sample_generator")
    assert template.usable("A new one.")
    assert not template.usable("created sample: a new one.")
    assert not template.usable("  \n")


def test_a_template_of_ones_own(tmp_path):
    path = tmp_path / "quiz.txt"
    path.write_text("Ask about {topic}: {{}}\n")
    assert load_template(str(path)).render({"topic": "tea"}, "r") == "Ask about tea: {}"
    for text in ("no fields", "{0}", "{broken"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not a valid template"):
            load_template(str(path))
    with pytest.raises(ValueError, match="known are keyword_explanation"):
        load_template("kewyord")


def test_documents_are_a_source_by_config_alone(chat_model, tmp_path, capsys):
    rows = [STORY | {"id": f"s{n}"} for n in range(8)]
    out = tmp_path / "story_kk.jsonl"
    command = [
        "generate",
        f"--model={chat_model}",
        "--template=keyword_story",
        f"--input={write(tmp_path / 'rows.jsonl', rows)}",
        f"--out={out}",
        "--chat",
        "--max_new_tokens=400",
    ]
    assert main(command) == 0
    documents = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert f"{len(documents)} documents" in capsys.readouterr().err
    assert 0 < len(documents) <= 8
    source = {"name": "story", "kind": "synthetic", "language": "kk", "files": out.name}
    (tmp_path / "data.json").write_text(json.dumps({"sources": [source | {"held_out": 0.0}]}))

    # A random model writes NUL characters, too.
    corpus = load_corpus(str(tmp_path / "data.json"), data_errors="skip")
    tokenizer = load_tokenizer(chat_model)
    mixture = get_mixture("stage1", corpus.infos())
    assert mixture.shares == {"story": 1.0}
    stores = prepare_stores(corpus, tokenizer, ["story"], tmp_path / "cache")
    packed = pack_sources(stores, length=64, seed=0, eos_id=tokenizer.eos_id)
    feed = build_feed(packed, [Stage("only", mixture, 2)], length=64, batch_rows=2, seed=0)
    batch = feed.batch(0)
    assert batch["loss_weights"].sum() > 0
    assert set(batch["source_ids"].flat) == {0}
    usable = [document for document in documents if "\0" not in document["text"]]
    assert len(stores["story"].lengths) == len(usable)


def test_bad_usage_is_one_line_and_code_2(chat_model, tmp_path, capsys):
    rows = write(tmp_path / "rows.jsonl", [STORY, EXPLANATION])
    command = ["generate", f"--model={chat_model}", f"--input={rows}", f"--out={tmp_path}/o.jsonl"]
    for flags, message in (
        (["--template=keyword_story"], "rows.jsonl:2: keyword_story needs"),
        (["--template=none"], "is unknown"),
        (["--template=keyword_story", "--pairs"], "leave one out"),
    ):
        assert main([*command, *flags]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert not (tmp_path / "o.jsonl").exists()
