"""marco eval on benchmarks, from files and a model directory to results.json."""

import json

import pytest
from tokenizers import pre_tokenizers

from marco_jax.__main__ import main
from marco_jax.model.qwen2 import init_params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.tokenizers.tokenizer import qwen2_tokenizer
from marco_jax.weights.huggingface import save_huggingface


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model whose tokens are bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = qwen2_tokenizer({letter: n for n, letter in enumerate(letters)}, [])
    config = Qwen2Config(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
    )
    directory = tmp_path_factory.mktemp("model") / "hf"
    params = init_params(config, seed=0)
    save_huggingface(directory, config, params, tokenizer=tokenizer)
    return directory


@pytest.fixture
def data(tmp_path):
    row = {"passage": "p", "question": "q", "choices": list("wxyz")}
    for code in ("kaz_Cyrl", "npi_Deva"):
        lines = [json.dumps(row | {"answer": n % 4, "passage": f"p{n}"}) for n in range(6)]
        (tmp_path / "belebele").mkdir(exist_ok=True)
        (tmp_path / f"belebele/{code}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_results_and_tables(model, data, capsys):
    code = main(
        [
            "eval",
            f"--model={model}",
            "--tasks=belebele,belebele:cloze",
            "--languages=kk,ne",
            "--shots=2",
            f"--data_dir={data}",
            "--limit=3",
            f"--out={data}/results.json",
        ]
    )
    assert code == 0
    rows = json.loads((data / "results.json").read_text(encoding="utf-8"))
    assert {row["task"] for row in rows} == {"belebele", "belebele:cloze"}
    kazakh = next(row for row in rows if row["language"] == "kk" and row["task"] == "belebele")
    assert set(kazakh) == {"task", "language", "shots", "metric", "value", "stderr", "examples"}
    assert (kazakh["shots"], kazakh["examples"]) == (2, 3)
    assert 0 <= kazakh["value"] <= 1
    assert "belebele, 2 shots" in capsys.readouterr().out


def test_a_damaged_file_is_one_line_and_code_2(model, data, capsys):
    with open(data / "belebele/npi_Deva.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"passage": ')
    code = main(
        ["eval", f"--model={model}", "--tasks=belebele", f"--data_dir={data}", "--out=unused"]
    )
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(
        f"marco eval: {data}/belebele/npi_Deva.jsonl:7: it is not a JSON object"
    )
    assert "\n" not in error


BELEBELE = {"passage": "p", "question": "q", "choices": list("wxyz"), "answer": 1}
XCOPA = {"premise": "p.", "choice1": "a", "choice2": "b", "question": "cause", "label": 0}
MGSM = "How many?\t3\n"


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("task", "language", "name", "content", "named"),
    [
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE, without(BELEBELE, "question")),
         ":2: the field 'question'"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE, BELEBELE | {"answer": 4}),
         ":2: answer is 4"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE | {"choices": []}),
         ":1: the options are []"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE | {"choices": ["a", "", "b", "c"]}),
         ":1: option 2 of 4 is ''"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(without(BELEBELE, "choices")),
         ":1: the options (mc_answer1"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE) + "я".encode("cp1251") + b"\n",
         ":2: it is not UTF-8"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE) + b'{"passage": "cut of',
         ":2: it is not a JSON object"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", lines(BELEBELE) + b"[" * 100_000,
         ":2: it is not a JSON object"),
        ("belebele", "kk", "kaz_Cyrl.jsonl", b'{"answer": 1' + b"0" * 5000 + b"}",
         ":1: it is not a JSON object"),
        ("xcopa", "zh", "test.zh.jsonl", lines(XCOPA, without(XCOPA, "label")),
         ":2: the field 'label'"),
        ("xcopa", "zh", "test.zh.jsonl", lines(XCOPA, XCOPA | {"label": "none"}),
         ":2: label is 'none'"),
        ("mmlu", "en", "test/anatomy_test.csv", b"q,a,b,c,d,A\nq,a,b,c,d,F\n", ":2: answer is 'F'"),
        ("mmlu", "en", "test/anatomy_test.csv", b"q,a,b,c,d,A\nq,a,,c,d,B\n", ":2: option 2 of 4"),
        ("mmlu", "en", "test/anatomy_test.csv", b"q,a,b,c,d,A\nq,a\n", ":2: it has 2 fields"),
        ("xnli", "tr", "dev-tr.tsv", b"a\tb\tneutral\nc\td\tmaybe\n", ":2: label is 'maybe'"),
        ("xnli", "tr", "dev-tr.tsv", b"a\tb\tneutral\n\xff\td\tneutral\n", ":2: it is not UTF-8"),
        ("mgsm", "en", "mgsm_en.tsv", (MGSM + "How many?\n").encode(), ":2: it has 1 fields"),
    ],
)  # fmt: skip
def test_a_bad_file_ends_in_one_line(model, tmp_path, capsys, task, language, name, content, named):
    path = tmp_path / task / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    out = tmp_path / "results.json"
    command = ["eval", f"--model={model}", f"--tasks={task}", f"--languages={language}"]
    assert main([*command, "--shots=0", f"--data_dir={tmp_path}", f"--out={out}"]) == 2
    *notes, line = capsys.readouterr().err.strip().splitlines()
    assert all(" WARNING " in note for note in notes)
    assert line.startswith(f"marco eval: {path}{named}")
    assert not out.exists()


def evaluate(model, data, out, *flags):
    command = ["eval", f"--model={model}", "--tasks=belebele", "--shots=1", f"--data_dir={data}"]
    return main([*command, f"--out={out}", *flags])


def test_two_results_are_compared_on_their_common_items(model, data, capsys):
    first, second, out = (data / name for name in ("a.json", "b.json", "difference.json"))
    assert evaluate(model, data, first) == 0
    assert evaluate(model, data, second, "--limit=4", "--languages=kk") == 0
    capsys.readouterr()
    assert main(["eval", "--compare", str(first), str(second), f"--out={out}"]) == 0
    shown = capsys.readouterr().out
    assert "belebele, accuracy" in shown and "+0.0000 ± 0.0000" in shown
    rows = {row["language"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    assert set(rows) == {"kk", "all", "low"}
    assert (rows["kk"]["items"], rows["kk"]["difference"], rows["kk"]["p_value"]) == (4, 0, 1)


def test_results_that_cannot_be_compared_end_in_one_line(model, data, capsys):
    out, other = data / "a.json", data / "b.json"
    assert evaluate(model, data, out) == 0
    assert evaluate(model, data, other, "--tasks=belebele:0") == 0
    capsys.readouterr()
    assert main(["eval", "--compare", str(out), str(other)]) == 2
    assert "(belebele) and" in (line := capsys.readouterr().err.splitlines()[-1])
    assert "(belebele:0) have no items in common" in line
    (data / "a.items.jsonl.gz").rename(data / "kept.gz")
    capsys.readouterr()
    for other, message in ((out, "has no outcomes of items"), (data / "no.json", "does not exist")):
        assert main(["eval", "--compare", str(other), str(out)]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_cut_off_evaluation_resumes_to_the_same_bytes(model, data, monkeypatch, capsys):
    from marco_jax.decoding.engine import Engine

    whole, out = data / "whole.json", data / "out.json"
    assert evaluate(model, data, whole) == 0
    score, calls = Engine.score, []

    def cut(self, *arguments, **options):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, *arguments, **options)

    monkeypatch.setattr(Engine, "score", cut)
    assert evaluate(model, data, out) == 130
    partial = data / ".out.json.partial"
    assert partial.exists() and not out.exists()
    assert evaluate(model, data, out) == 0
    # One round was saved, one cut off and asked again.
    assert len(calls) == 3 and not partial.exists()
    assert out.read_bytes() == whole.read_bytes()
    items = [path.with_suffix(".items.jsonl.gz").read_bytes() for path in (whole, out)]
    assert items[0] == items[1]


def test_a_time_limit_is_stated(model, data, capsys):
    assert evaluate(model, data, data / "out.json", "--max_seconds=0.001") == 0
    assert "2 of 12 items were evaluated" in capsys.readouterr().err
    assert evaluate(model, data, data / "out.json", "--max_seconds=-1") == 2
    assert "--max_seconds is -1" in capsys.readouterr().err
