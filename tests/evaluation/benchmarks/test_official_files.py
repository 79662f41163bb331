"""What is peculiar to published files: quotes, samples, labels, spaces and known broken lines."""

import csv
import hashlib
import json
import logging

import pytest

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks import DataError
from marco_jax.evaluation.benchmarks.repairs import REPAIRS, Repair

HEADER = "id\tsentence1\tsentence2\tlabel\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def jsonl(path, rows):
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def options(task, language, data_dir, **settings):
    found = benchmarks.prompts(task, language, data_dir, shots=0, **settings)
    return [prompt.options[1] for prompt in found]


def test_xtremes_paws_x_has_quoted_fields(tmp_path):
    write(tmp_path / "pawsx/dev-fr.tsv", '"Le "" mot "" .""x"""\tIl "dit" oui\t1\nA .\tB\t0\n')
    assert options("pawsx", "fr", tmp_path) == [
        'Le"mot"."x", n\'est-ce pas? Oui, il"dit"oui',
        "A, n'est-ce pas? Oui, b",
    ]


def test_a_first_row_with_an_empty_cell_is_not_taken_for_a_header(tmp_path):
    write(tmp_path / "pawsx/test-ja.tsv", "\tB\t1\nC\tD\t0\n")
    assert options("pawsx", "ja", tmp_path) == [", ですね? はい, B", "C, ですね? はい, D"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # As TFDS reads the authors' files.
        ('1\t"Le ""mot"" ici"\tIl vit\t1\n', 'Le "mot" ici'),
        # As the hub's script does.
        ('1\tLe "mot" ici\tIl vit\t1\n', 'Le "mot" ici'),
        # A field that only starts with a quote does not take in the next ones.
        ('1\t"Le" mot\tIl vit\t1\n2\tC\t"D ""x"" d"\t0\n', '"Le" mot'),
        ('1\t"Le mot"\tIl vit\t1\n', '"Le mot"'),
    ],
)
def test_the_content_decides_what_quotes_in_paws_xs_own_files_mean(tmp_path, lines, expected):
    write(tmp_path / "pawsx/x-final/ko/test_2k.tsv", HEADER + lines)
    assert options("pawsx", "ko", tmp_path)[0] == f"{expected}, 맞죠? 예, Il vit"


@pytest.mark.parametrize(
    ("task", "name", "line"),
    [
        ("xnli", "dev-de.tsv", '"A" b\t"c\tneutral\n'),
        ("xstorycloze", "spring2016.val.es.tsv.split_20_80_eval.tsv", None),
        ("mgsm", "mgsm_de.tsv", '"A" b "c\t7\n'),
    ],
)
def test_quotes_are_text_in_other_tables(tmp_path, task, name, line):
    if line is None:
        header = "\t".join(
            ["InputStoryid", *(f"InputSentence{n}" for n in range(1, 5))]
            + ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        )
        line = header + '\n1\t"A" b\t"c\td\te\tf\tg\t1\n'
    write(tmp_path / name, line)
    language = "es" if task == "xstorycloze" else "de"
    [prompt] = benchmarks.prompts(task, language, tmp_path, shots=0)
    assert '"A" b' in (prompt.context or prompt.options[0])


def question(**changes):
    row = {"passage": None, "question": "Q", "options": ["(A)w", "(B)x", "(C)y", "(D)z"]}
    return row | {"label": "A", "answer": None, "other": None} | changes


@pytest.fixture
def agieval(tmp_path):
    """The few-shot file with a column a task, as its authors keep it, and questions."""
    samples = {
        "sat-en": question(passage="Long text.", question="Q1", label="B"),
        "gaokao-geography": question(question="Q1", options=["A. w\tB. x\r\nC. y\tD. z\r"]),
        "gaokao-physics": question(question="Q1", label=["B", "C"]),
        "gaokao-chemistry": question(question="Q1", label="AC"),
        "jec-qa-kd": question(question="Q1", label=["D"]),
    }
    path = tmp_path / "agieval/data/few_shot_prompts.csv"
    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *samples])
        writer.writerow(["sample 1", *map(repr, samples.values())])
        writer.writerow(["explanation 1", *samples])
    for part in ("sat-en", "sat-en-without-passage"):
        jsonl(tmp_path / f"agieval/data/v1/{part}.jsonl", [question()])
    return tmp_path


def only(part, data_dir, **settings):
    language = "en" if part.startswith("sat") else "zh"
    found = list(benchmarks.prompts("agieval", language, data_dir, part=part, **settings))
    assert len(found) == 1
    return found[0]


def test_agievals_samples_without_passages_are_those_with_them(agieval):
    shots = {
        part: only(part, agieval).context.partition("\n\n")[0]
        for part in ("sat-en", "sat-en-without-passage")
    }
    assert "Problem 1.   Long text. Q1\nChoose" in shots["sat-en"]
    assert shots["sat-en-without-passage"] == shots["sat-en"].replace("Long text.", "")


def test_agieval_options_in_one_text_are_shown_as_they_are(agieval):
    jsonl(agieval / "agieval/data/v1/gaokao-geography.jsonl", [question(label="C")])
    prompt = only("gaokao-geography", agieval)
    assert "从以下选项中选择:    A. w\tB. x\r\nC. y\tD. z\r\n答案是 A\n\n" in prompt.context
    # The same in a question: four options, as AGIEval's loader takes it.
    row = question(options=["A. w\tB. x\tC. y\tD. z"], label="C")
    jsonl(agieval / "agieval/data/v1/gaokao-geography.jsonl", [row])
    prompt = only("gaokao-geography", agieval, shots=0)
    assert prompt.context.endswith("选项：A. w\tB. x\tC. y\tD. z\n答案：从A到D, 我们应选择")
    assert (prompt.choices, prompt.gold) == ((" A", " B", " C", " D"), 2)
    with pytest.raises(DataError, match="holds no items"):
        only("gaokao-geography", agieval, format="harness")


@pytest.mark.parametrize(
    ("part", "stated"),
    [
        ("gaokao-physics", "['B', 'C']"),
        ("gaokao-chemistry", "AC"),
        ("jec-qa-kd", "['D']"),
    ],
)
def test_agieval_samples_show_all_right_answers(agieval, part, stated):
    jsonl(agieval / f"agieval/data/v1/{part}.jsonl", [question(label=["A", "D"])])
    prompt = only(part, agieval)
    assert f"\n答案是 {stated}\n\n" in prompt.context
    assert prompt.gold == (0, 3)


def test_agieval_questions_without_a_usable_answer_are_left_out_and_counted(agieval, caplog):
    labels = [["A", "C", "D"], ["B", "。"], [], ["A、C"], None, "", ["E"], "B D"]
    rows = [question(label=label) for label in labels]
    jsonl(agieval / "agieval/data/v1/jec-qa-kd.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        found = benchmarks.prompts("agieval", "zh", agieval, part="jec-qa-kd")
        assert [prompt.golds for prompt in found] == [(0, 2, 3), (1,), (0, 2), (1, 3)]
    [left_out] = found.left_out
    assert (left_out.part, left_out.split, left_out.count) == ("jec-qa-kd", "test", 4)
    assert left_out.first.endswith("jec-qa-kd.jsonl:3")
    assert "agieval zh jec-qa-kd: 4 of the test split are left out" in caplog.text
    # A benchmark that does not expect such rows reports them instead.
    row = {"premise": "p.", "choice1": "a", "choice2": "b", "question": "cause", "label": None}
    jsonl(agieval / "test.zh.jsonl", [row])
    with pytest.raises(DataError, match=r"test.zh.jsonl:1: label"):
        list(benchmarks.prompts("xcopa", "zh", agieval, shots=0))


def test_a_part_without_samples_says_so(agieval):
    jsonl(agieval / "agieval/data/v1/jec-qa-ca.jsonl", [question()])
    with pytest.raises(DataError, match=r"few_shot_prompts.csv has no examples of jec-qa-ca"):
        only("jec-qa-ca", agieval)
    assert only("jec-qa-ca", agieval, shots=0).gold == 0


def test_arc_with_a_list_of_choices(tmp_path):
    choices = [{"text": text, "label": label} for label, text in zip("1234", "wxyz", strict=True)]
    row = {"id": "1", "question": "q?", "choices": choices, "answerKey": "4"}
    jsonl(tmp_path / "arc/ARC-Easy/test.jsonl", [row])
    [prompt] = benchmarks.prompts("arc_easy", "en", tmp_path, shots=0)
    assert (prompt.context, prompt.options, prompt.gold) == (
        "Question: q?\nAnswer:",
        ("w", "x", "y", "z"),
        3,
    )


def test_only_belebeles_harness_format_strips_questions(tmp_path):
    row = {"flores_passage": "P ", "question": " Q?  ", "correct_answer_num": "1"}
    row |= {f"mc_answer{n}": f" a{n} " for n in range(1, 5)}
    jsonl(tmp_path / "kaz_Cyrl.jsonl", [row])
    contexts = {
        form: next(benchmarks.prompts("belebele", "kk", tmp_path, format=form, shots=0)).context
        for form in ("letter", "harness", "cloze")
    }
    assert contexts == {
        "letter": "P \nQuestion:  Q?  \n A.  a1 \n B.  a2 \n C.  a3 \n D.  a4 \nAnswer:",
        "harness": "P: P \nQ: Q?\nA:  a1 \nB:  a2 \nC:  a3 \nD:  a4 \nAnswer:",
        "cloze": "P \nQuestion:  Q?  \nAnswer:",
    }


def test_tydiqas_languages_in_one_file_are_found_only_if_it_has_them(tmp_path):
    answers = [{"text": "a", "answer_start": 0}]
    item = {"id": "telugu-1", "question": "q", "answers": answers}
    data = {"data": [{"paragraphs": [{"context": "c", "qas": [item]}]}]}
    write(tmp_path / "tydiqa_goldp/tydiqa-goldp-v1.1-dev.json", json.dumps(data))
    assert benchmarks.available_languages("tydiqa", tmp_path) == ["te"]


def test_a_folder_of_tables_is_not_taken_for_a_tfds_dataset_of_the_same_name(tmp_path):
    write(tmp_path / "xnli/dev-de.tsv", "a\tb\tneutral\n")
    assert benchmarks.available_languages("xnli", tmp_path) == ["de"]


def test_a_line_is_repaired_only_if_it_was_published_broken(tmp_path, monkeypatch):
    path = tmp_path / "marco_bench_mif/kk.jsonl"
    broken = '{"key": 1, "prompt": "Say ("a") twice.", "kwargs": []}'
    write(path, broken + "\n")
    with pytest.raises(DataError, match=r"kk.jsonl:1: it is not a JSON object"):
        list(benchmarks.prompts("marco_bench_mif", "kk", tmp_path))
    repair = Repair("a release", wrong='("a")', right='(\\"a\\")')
    monkeypatch.setitem(REPAIRS, hashlib.sha256(broken.encode()).hexdigest(), repair)
    [prompt] = benchmarks.prompts("marco_bench_mif", "kk", tmp_path)
    assert prompt.context == 'Say ("a") twice.'
    write(path, broken.replace("twice", "thrice") + "\n")
    with pytest.raises(DataError, match=r"kk.jsonl:1: it is not a JSON object"):
        list(benchmarks.prompts("marco_bench_mif", "kk", tmp_path))


def test_all_lines_of_one_language_of_flores_plus_are_joined_by_id(tmp_path):
    for code, order in (("kaz_Cyrl", (0, 1)), ("cmn_Hans", (1, 0))):
        rows = [{"id": n, "text": f"{code} {n}", "iso_639_3": code[:3]} for n in order]
        jsonl(tmp_path / f"flores_plus/devtest/{code}.jsonl", rows)
    found = benchmarks.prompts("flores_plus", "zh-kk", tmp_path, shots=0)
    assert [prompt.references for prompt in found] == [("kaz_Cyrl 1",), ("kaz_Cyrl 0",)]
