"""marco generate --pairs: from prompts and a model directory to preference records."""

import dataclasses
import json
import unicodedata

import pytest

from marco_jax.__main__ import main
from marco_jax.data.chat import question
from marco_jax.data.load import load_corpus
from marco_jax.data.texts import TRAIN
from marco_jax.decoding import jobs
from marco_jax.evaluation import ranking
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.tokenizers.tokenizer import load_tokenizer

ROWS = [
    {"prompt": "Say a.", "reference": "a a", "language": "kk", "id": 7},
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Say b."},
            {"role": "assistant", "content": "b\u2028b"},
        ],
        "language": "ne",
    },
    {"prompt": "Say c.", "reference": "cc", "language": "de"},
]


@pytest.fixture(autouse=True)
def _bytes_are_texts(monkeypatch):
    """A random model of bytes writes hardly any UTF-8, and its answers are to count."""
    monkeypatch.setattr(ranking, "_BROKEN", "<none>")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def command(model, prompts, out, *flags):
    return [
        "generate",
        f"--model={model}",
        f"--input={prompts}",
        f"--out={out}",
        "--pairs",
        "--samples=4",
        "--max_new_tokens=300",
        *flags,
    ]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_pairs_are_the_best_and_the_worst_of_the_models_own_answers(chat_model, prompts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    assert main(command(chat_model, prompts, out, "--scorer=chrf")) == 0
    pairs = read(out)
    assert 0 < len(pairs) <= 3
    for pair in pairs:
        assert pair["chosen_score"] - pair["rejected_score"] == pair["margin"] > 0
        assert pair["chosen"] != pair["rejected"]
        assert pair["prompt"][-1]["role"] == "user"
        assert pair["language"] in ("kk", "ne", "de")
        assert "messages" not in pair
        # The end of a message is no part of it.
        assert "<|im_end|>" not in pair["chosen"] + pair["rejected"]


def test_a_mesh_gives_the_same_pairs(chat_model, prompts, tmp_path):
    alone, spread = tmp_path / "alone.jsonl", tmp_path / "spread.jsonl"
    assert main(command(chat_model, prompts, alone, "--scorer=chrf")) == 0
    assert main(command(chat_model, prompts, spread, "--scorer=chrf", "--mesh=data=4,fsdp=2")) == 0
    assert spread.read_bytes() == alone.read_bytes()


def test_a_callable_ranks(chat_model, prompts, tmp_path):
    (tmp_path / "my_scorer.py").write_text(
        "def brevity(rows, answers):\n"
        "    assert all('reference' in row for row in rows)\n"
        "    return [-len(answer) for answer in answers]\n"
    )
    out = tmp_path / "pairs.jsonl"
    scorer = f"--scorer={tmp_path}/my_scorer.py:brevity"
    assert main(command(chat_model, prompts, out, scorer, "--margin=2")) == 0
    pairs = read(out)
    assert pairs
    assert all(len(pair["chosen"]) + 2 <= len(pair["rejected"]) for pair in pairs)


def test_a_job_that_was_cut_off_writes_the_same_pairs(
    chat_model, prompts, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jobs, "BLOCK", 4)
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    scorer = tmp_path / "broken.py"
    code = (
        "import pathlib\ncalls = 0\ndef score(rows, answers):\n    global calls\n    calls += 1\n"
    )
    code += "    if calls > 2 and pathlib.Path(__file__).with_name('break').exists():\n"
    code += "        raise KeyboardInterrupt\n    return [len(answer) for answer in answers]\n"
    scorer.write_text(code)
    flag = f"--scorer={scorer}:score"
    assert main(command(chat_model, prompts, whole, flag)) == 0
    (tmp_path / "break").touch()
    assert main(command(chat_model, prompts, again, flag)) == 130
    assert not again.exists()
    (tmp_path / "break").unlink()
    capsys.readouterr()
    assert main(command(chat_model, prompts, again, flag)) == 0
    assert "3 rows, 2 of them from an earlier start" in capsys.readouterr().err
    assert again.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--scorer"),
        (["--scorer=blue"], "known are chrf, chrf++, bleu, number"),
        (["--scorer=no_module:f"], "no_module"),
        (["--scorer=json:nothing"], "no callable 'nothing'"),
        (["--scorer=chrf", "--reference=target"], '"target"'),
        (["--scorer=chrf", "--samples=1"], "--samples is 1"),
        (["--scorer=chrf", "--temperature=0"], "--temperature is 0"),
        (["--scorer=chrf", "--beams=2"], "--beams"),
        (["--scorer=chrf", "--mesh=tensor"], "such as tensor=4"),
        (["--scorer=chrf", "--mesh=data=3"], "devices"),
        (["--scorer=json:dumps"], "the scorer fails: TypeError"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(chat_model, prompts, tmp_path, capsys, flags, message):
    out = tmp_path / "pairs.jsonl"
    assert main(command(chat_model, prompts, out, *flags)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not out.exists()


def test_a_model_without_a_template_is_one_line(chat_model, prompts, tmp_path, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in chat_model.iterdir():
        (plain / file.name).write_bytes(file.read_bytes())
    config = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "chat_template"})
    )
    assert main(command(plain, prompts, tmp_path / "o.jsonl", "--scorer=chrf")) == 2
    assert "no chat template" in capsys.readouterr().err


def test_messages_are_answered_in_the_template_without_pairs_too(chat_model, prompts, tmp_path):
    out = tmp_path / "answers.jsonl"
    code = main(["generate", f"--model={chat_model}", f"--input={prompts}", f"--out={out}"])
    assert code == 0
    answers = read(out)
    assert [set(row) - {"text"} for row in answers] == [set(row) for row in ROWS]


def test_pairs_are_a_source_of_preferences_by_config_alone(chat_model, prompts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    assert main(command(chat_model, prompts, out, "--scorer=chrf")) == 0
    source = {"name": "own", "kind": "preference", "files": out.name, "held_out": 0.0}
    (tmp_path / "data.json").write_text(json.dumps({"sources": [source]}))
    # A random model writes NUL characters, too; an empty answer is no text to train on.
    corpus = load_corpus(str(tmp_path / "data.json"), data_errors="skip")
    documents = [*corpus.documents("own", TRAIN)]
    pairs = [pair for pair in read(out) if "\0" not in pair["chosen"] + pair["rejected"]]
    assert pairs
    assert len(documents) == 2 * len(pairs)
    said = [[turn.content for turn in document.turns] for document in documents]
    for pair in pairs:
        asked = [normal(message["content"]) for message in pair["prompt"]]
        assert [*asked, normal(pair["chosen"])] in said
        assert [*asked, normal(pair["rejected"])] in said
    assert {document.language for document in documents} == {pair["language"] for pair in pairs}


def normal(text):
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Say", "input": "a", "output": "x"},
        {"prompt": "Say\na", "response": "x"},
        {"conversations": [{"from": "human", "value": "Say\na"}, {"from": "gpt", "value": "x"}]},
        {"messages": [{"role": "user", "content": "Say\na"}]},
        {"prompt": [{"role": "user", "content": "Say\na"}]},
        {"instruction": "Say\na"},
    ],
)
def test_every_form_of_a_conversation_asks(row):
    (turn,), answer = question(row, "row 1")
    assert turn.content == "Say\na"
    assert answer == ("x" if len(row) > 1 or "conversations" in row else None)


def test_the_template_says_what_ends_a_message(chat_model):
    tokenizer = load_tokenizer(chat_model)
    (end,) = tokenizer.encode("<|im_end|>")
    assert Chat.of(tokenizer).end_ids == (end,)
    said = "{% for m in messages %}{{ m['content'] }}{{ '' if m['role'] == 'user' else ' END' }}\n"
    said += "{% endfor %}"
    tokenizer.companions = dataclasses.replace(tokenizer.companions, chat_template=said)
    assert Chat.of(tokenizer).stop == ("END",)


def test_drafts_change_no_answer(chat_model, prompts, tmp_path, capsys):
    answers = []
    for drafts in (0, 3):
        out = tmp_path / f"{drafts}.jsonl"
        flags = ["--chat", "--max_new_tokens=40", "--temperature=0.8", f"--drafts={drafts}"]
        model, rows = f"--model={chat_model}", f"--input={prompts}"
        assert main(["generate", model, rows, f"--out={out}", *flags]) == 0
        answers.append(out.read_bytes())
    assert answers[0] == answers[1]
    last = capsys.readouterr().err.splitlines()[-1]
    assert "of drafts accepted" in last and "of row-steps filled" in last
    assert main(["generate", model, "--prompt=a", "--drafts=-1"]) == 2
    assert "drafts is -1" in capsys.readouterr().err
