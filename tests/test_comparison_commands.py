"""marco eval --against and --chat, from files and a model directory to results.json."""

import json

import pytest

from marco_jax.__main__ import main

JUDGE = "def longer(rows, firsts, seconds):\n"
JUDGE += "    return [len(a) - len(b) for a, b in zip(firsts, seconds)]\n"


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    """Prompts, two files of answers to them, and a judge."""
    prompts = [{"prompt": f"Say {n}.", "language": "kk" if n % 2 else "de"} for n in range(6)]
    write(tmp_path / "prompts.jsonl", prompts)
    write(tmp_path / "long.jsonl", [row | {"text": "long " * 999} for row in prompts[::-1]])
    write(tmp_path / "short.jsonl", [{"answer": "s"} for _ in prompts])
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "marco_bench_mif").mkdir()
    asked = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    write(
        tmp_path / "marco_bench_mif/kk.jsonl", [{"key": n, "prompt": "?", **asked} for n in (1, 2)]
    )
    return tmp_path


def compare(files, model, against, *flags):
    out = files / "table.json"
    code = main(
        [
            "eval",
            f"--model={model}",
            f"--against={against}",
            f"--judge={files}/judge.py:longer",
            f"--out={out}",
            *flags,
        ]
    )
    assert code == 0
    return {(r["metric"], r["language"]): r for r in json.loads(out.read_text(encoding="utf-8"))}


def test_a_model_against_a_file_of_answers(chat_model, files, capsys):
    flags = (f"--input={files}/prompts.jsonl", "--chat", "--max_new_tokens=4")
    verdicts = f"--verdicts={files}/verdicts.jsonl"
    table = compare(files, chat_model, files / "long.jsonl", *flags, verdicts)
    assert table["loss", "all"]["value"] == 1
    assert {language for _, language in table} == {"kk", "de", "all", "high", "low"}
    assert table["win_rate", "kk"]["examples"] == 3
    assert table["win_rate", "kk"]["stderr"] == 0
    assert "judge.py:longer" in table["win_rate", "kk"]["signature"]
    assert "pairwise" in capsys.readouterr().out
    rows = [json.loads(line) for line in (files / "verdicts.jsonl").read_text().splitlines()]
    assert {row["outcome"] for row in rows} == {-1}
    assert rows[0]["against"].startswith("long")


def test_two_files_of_answers(files):
    flags = (f"--input={files}/prompts.jsonl", "--languages=kk", "--limit=2")
    table = compare(files, files / "long.jsonl", files / "long.jsonl", *flags)
    assert table["tie", "kk"]["value"] == 1
    assert table["tie", "kk"]["examples"] == 2


def test_a_model_against_itself_on_a_benchmark(chat_model, files):
    flags = ("--tasks=marco_bench_mif", f"--data_dir={files}", "--chat", "--max_new_tokens=4")
    table = compare(files, chat_model, chat_model, *flags)
    assert table["tie", "kk"]["value"] == 1
    assert table["tie", "kk"]["task"] == "pairwise:marco_bench_mif"


def test_instructions_are_judged_in_chat(chat_model, files):
    out = files / "results.json"
    flags = ("--tasks=marco_bench_mif", f"--data_dir={files}", "--chat", "--max_new_tokens=4")
    assert main(["eval", f"--model={chat_model}", *flags, f"--out={out}"]) == 0
    rows = {row["metric"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    assert set(rows) == {
        "prompt_level_strict_acc",
        "inst_level_strict_acc",
        "prompt_level_loose_acc",
        "inst_level_loose_acc",
        "language_rate",
    }
    assert rows["inst_level_strict_acc"]["examples"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input={f}/prompts.jsonl"], "--judge"),
        (["--judge=chrf"], "--input or --tasks"),
        (["--judge=language", "--input={f}/prompts.jsonl", "--languages=el"], "no prompts in el"),
        (["--judge=chrf", "--input={f}/prompts.jsonl"], "answers to 6 prompts"),
        (["--judge=chrf", "--tasks=belebele", "--data_dir={f}"], "ranks options"),
        (["--judge=chrf", "--tasks=translation", "--data_dir={f}"], "is not a benchmark"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(files, capsys, flags, message):
    write(files / "few.jsonl", [{"answer": "s"}])
    command = ["eval", f"--model={files}/few.jsonl", f"--against={files}/few.jsonl"]
    flags = [flag.format(f=files) for flag in flags]
    assert main([*command, *flags, f"--out={files}/o.json"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("marco eval: ")
    assert message in line
    assert not (files / "o.json").exists()
