"""Damaged files end in one line that names file and line; wrong arguments name the remedy."""

import json

import pytest

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks import DataError

GOOD = {"premise": "p.", "choice1": "a", "choice2": "b", "question": "cause", "label": 0}


def read_xcopa(folder, second, shots=0):
    first = json.dumps(GOOD)
    text = second if isinstance(second, str) else json.dumps(second)
    (folder / "test.zh.jsonl").write_text(f"{first}\n{text}\n", encoding="utf-8")
    return list(benchmarks.prompts("xcopa", "zh", folder, shots=shots))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"premise": "p.", "choi', "is not a JSON object"),
        ("[1, 2]", "is not a JSON object"),
        ({k: v for k, v in GOOD.items() if k != "premise"}, "'premise' is missing"),
        ({k: v for k, v in GOOD.items() if k != "label"}, "'label' is missing"),
        (GOOD | {"label": 2}, "label is 2: it must be one of 0 to 1"),
        (GOOD | {"label": -1}, "label is -1"),
        (GOOD | {"label": True}, "label is True"),
        (GOOD | {"label": None}, "label"),
        (GOOD | {"choice2": ""}, "option 2 of 2 is ''"),
        (GOOD | {"choice2": None}, "option 2 of 2 is None"),
        (GOOD | {"premise": " "}, "premise is empty"),
        (GOOD | {"premise": []}, "premise is []"),
        (GOOD | {"question": "why"}, "question is 'why'"),
    ],
)
def test_a_bad_row_names_its_line(tmp_path, row, message):
    with pytest.raises(DataError) as raised:
        read_xcopa(tmp_path, row)
    assert str(raised.value).startswith(f"{tmp_path}/test.zh.jsonl:2: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_utf8_names_its_line(tmp_path):
    path = tmp_path / "test.zh.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + "因".encode("gb18030") + b"\n")
    with pytest.raises(DataError, match=r"test.zh.jsonl:2: it is not UTF-8"):
        list(benchmarks.prompts("xcopa", "zh", tmp_path, shots=0))


def test_csv_rows_count_the_lines_before_them(tmp_path):
    folder = tmp_path / "cmmlu/test"
    folder.mkdir(parents=True)
    text = ',Question,A,B,C,D,Answer\n0,"two\nlines",w,x,y,z,A\n1,q,w,x,y,z,E\n'
    (folder / "arts.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"arts.csv:4: Answer is 'E'"):
        list(benchmarks.prompts("cmmlu", "zh", tmp_path, shots=0))
    (folder / "arts.csv").write_text(text.replace(",E\n", "\n"), encoding="utf-8")
    with pytest.raises(DataError, match=r"arts.csv:4: it has 6 fields: 7 are needed"):
        list(benchmarks.prompts("cmmlu", "zh", tmp_path, shots=0))
    (folder / "arts.csv").write_text(text[:35] + '"never closed', encoding="utf-8")
    with pytest.raises(DataError, match=r"arts.csv:2: it is not valid CSV"):
        list(benchmarks.prompts("cmmlu", "zh", tmp_path, shots=0))


def test_a_tsv_row_with_too_few_columns(tmp_path):
    (tmp_path / "dev-de.tsv").write_text("a\tb\tneutral\nc\td\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dev-de.tsv:2: it has 2 fields: 3 are needed"):
        list(benchmarks.prompts("xnli", "de", tmp_path))


def test_truncated_and_malformed_squad(tmp_path):
    path = tmp_path / "tydiqa.goldp.sw.dev.json"
    path.write_text('{"data": [\n{"paragraphs": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"dev.json:2: it is not valid JSON"):
        list(benchmarks.prompts("tydiqa", "sw", tmp_path, shots=0))
    path.write_text('{"data": [{"paragraphs": [{"qas": [{}]}]}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"near question 1: it has no 'answers'"):
        list(benchmarks.prompts("tydiqa", "sw", tmp_path, shots=0))


def test_an_empty_file_and_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "test.zh.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"test.zh.jsonl holds no items of xcopa"):
        list(benchmarks.prompts("xcopa", "zh", tmp_path, shots=0))
    (tmp_path / "zh").mkdir()
    (tmp_path / "zh/train-0.parquet").write_text("no table", encoding="utf-8")
    (tmp_path / "zh/eval-0.parquet").write_text("no table", encoding="utf-8")
    with pytest.raises(DataError, match=r"eval-0.parquet: it is not a valid Parquet file"):
        list(benchmarks.prompts("xstorycloze", "zh", tmp_path, shots=0))


def test_more_shots_than_examples(tmp_path):
    (tmp_path / "val.zh.jsonl").write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"shots is 5: .*val.zh.jsonl has 1 examples"):
        read_xcopa(tmp_path, GOOD, shots=5)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("xcopo", "zh"), {}, "did you mean 'xcopa'"),
        (("xcopa", "kk"), {}, "language 'kk' of xcopa is unknown: choose one of en, et"),
        (("xcopa", "zh"), {"format": "letter"}, "format 'letter' of xcopa is unknown"),
        (("xcopa", "zh"), {"split": "dev"}, "split 'dev' of xcopa is unknown"),
        (("xcopa", "zh"), {"shots": -1}, "shots is -1"),
        (("xcopa", "zh"), {"limit": 0}, "limit is 0"),
        (("mmlu", "en"), {"part": "anatomi"}, "did you mean 'anatomy'"),
        (("flores", "kk"), {}, "must be a pair such as en-kk"),
    ],
)
def test_wrong_arguments_are_refused_by_the_call(tmp_path, arguments, options, message):
    (tmp_path / "test.zh.jsonl").write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/anatomy_test.csv").write_text("q,a,b,c,d,A\n", encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        benchmarks.prompts(*arguments, tmp_path, **options)
    assert message in str(raised.value)


def test_missing_files_say_where_they_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"xcopa in zh has no files: .*xcopa/test.zh.jsonl"):
        benchmarks.prompts("xcopa", "zh", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        benchmarks.prompts("xcopa", "zh", tmp_path / "no")
