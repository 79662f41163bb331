"""Prompts against lm-evaluation-harness's own, character for character, on the real files.

The harness builds its requests from its packaged task files; only the data sets are replaced by
local JSON files with the columns of the hub's, read here without the code under test.
"""

import csv
import json

import pytest

from benchmarks import harness_tasks
from benchmarks.harness_tasks import build_task, jsonl, squad, table
from marco_jax.evaluation import benchmarks

pytest.importorskip("lm_eval")
LIMIT = 40

pytestmark = pytest.mark.usefixtures("offline_harness")


@pytest.fixture
def harness(tmp_path):
    """The arguments of the requests that a task file makes of given rows."""

    def build(path, splits, shots, limit=LIMIT, **changes):
        task = build_task(path, splits, shots, tmp_path, **changes)
        task.build_all_requests(limit=limit)
        return [instance.args for instance in task.instances]

    def of(task, shots, limit=LIMIT):
        return build(task.path, task.splits, shots, limit, **task.changes)

    build.of = of
    return build


def ours(data, task, language, shots, limit=LIMIT, **options):
    """The same from the code under test."""
    found = []
    for prompt in benchmarks.prompts(task, language, data, shots=shots, limit=limit, **options):
        found += [(prompt.context, choice) for choice in prompt.choices]
        if not prompt.choices:
            found.append((prompt.context, prompt.stop))
    return found


def generated(requests):
    """Contexts and stop strings of generation requests."""
    return [(context, tuple(settings["until"])) for context, settings in requests]


@pytest.fixture
def data(shared_dir):
    return shared_dir / "benchmarks"


SHOTS = pytest.mark.parametrize("shots", [0, 5])


@SHOTS
@pytest.mark.parametrize("language", ["zh", "et", "sw"])
def test_xcopa(harness, data, language, shots):
    expected = harness.of(harness_tasks.xcopa(data, language), shots)
    assert ours(data, "xcopa", language, shots) == expected


def test_xcopa_on_the_validation_split_does_not_show_an_item_its_answer(harness, data):
    splits = {"validation": jsonl(data / "xcopa/val.th.jsonl")}
    # All items, so that many draw themselves.
    expected = harness("xcopa/default_th.yaml", splits, 5, limit=None, test_split=None)
    assert ours(data, "xcopa", "th", 5, limit=None, split="validation") == expected


@SHOTS
@pytest.mark.parametrize("language", ["es", "my", "zh"])
def test_xstorycloze(harness, data, language, shots):
    expected = harness.of(harness_tasks.xstorycloze(data, language), shots)
    assert ours(data, "xstorycloze", language, shots) == expected


@SHOTS
@pytest.mark.parametrize("language", ["ar", "hi", "tr", "zh"])
def test_xnli(harness, data, language, shots):
    expected = harness.of(harness_tasks.xnli(data, language), shots)
    assert ours(data, "xnli", language, shots) == expected


@SHOTS
@pytest.mark.parametrize("language", ["de", "ko", "zh"])
def test_pawsx(harness, data, language, shots):
    columns = ("sentence1", "sentence2", "label")
    rows = table(data / f"pawsx/dev-{language}.tsv", columns, delimiter="\t")
    rows = [row | {"label": int(row["label"])} for row in rows]
    expected = harness(
        f"paws-x/paws_{language}.yaml",
        {"validation": rows},
        shots,
        limit=150,
        training_split=None,
        test_split=None,
    )
    assert ours(data, "pawsx", language, shots, limit=150) == expected


@pytest.mark.parametrize("shots", [0, 1, 5])
@pytest.mark.parametrize("code", ["kaz_Cyrl", "npi_Deva", "jpn_Jpan"])
def test_belebele(harness, data, code, shots):
    expected = harness.of(harness_tasks.belebele(data, "", code), shots)
    assert ours(data, "belebele", code, shots, format="harness") == expected


@SHOTS
@pytest.mark.parametrize(
    "subject", ["astronomy", "college_physics", "formal_logic", "high_school_us_history"]
)
@pytest.mark.parametrize("format", ["harness", "continuation"])
def test_mmlu(harness, data, subject, shots, format):
    expected = harness.of(harness_tasks.mmlu(data, subject, format), shots)
    assert ours(data, "mmlu", "en", shots, part=subject, format=format) == expected


@SHOTS
@pytest.mark.parametrize("subject", ["agronomy", "college_law", "world_history"])
def test_cmmlu(harness, data, subject, shots):
    expected = harness.of(harness_tasks.cmmlu(data, subject), shots)
    assert ours(data, "cmmlu", "zh", shots, part=subject) == expected


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_tydiqa(harness, data, shots):
    expected = generated(harness.of(harness_tasks.tydiqa(data), shots))
    assert ours(data, "tydiqa", "sw", shots) == expected


@SHOTS
@pytest.mark.parametrize("language", ["de", "vi", "zh"])
def test_mlqa(harness, data, language, shots):
    rows = squad(data / f"mlqa/dev-context-{language}-question-{language}.json")
    path = f"mlqa/mlqa_{language}_{language}.yaml"
    expected = generated(harness(path, {"validation": rows}, shots, test_split=None))
    assert ours(data, "mlqa", language, shots) == expected


@pytest.mark.parametrize("shots", [0, 5, 8])
@pytest.mark.parametrize("language", ["de", "fr", "ja", "ru", "sw", "zh"])
@pytest.mark.parametrize("format", ["direct", "native_cot"])
def test_mgsm(harness, data, language, shots, format):
    expected = generated(harness.of(harness_tasks.mgsm(data, language, format), shots))
    assert ours(data, "mgsm", language, shots, format=format) == expected


@SHOTS
@pytest.mark.parametrize("part", ["aqua-rat", "lsat-ar", "logiqa-zh", "gaokao-chemistry"])
def test_agieval(harness, data, part, shots):
    """The hub's `query` is the zero-shot prompt of AGIEval's own loader, written out here."""
    rows = []
    for row in jsonl(data / f"agieval/{part}.jsonl"):
        last = "ABCDEFG"[len(row["options"]) - 1]
        passage, question, options = row["passage"] or "", row["question"], row["options"]
        if part in ("logiqa-zh", "gaokao-chemistry"):
            query = f"{passage}问题：{question} 选项：{' '.join(options)}\n"
            query += f"答案：从A到{last}, 我们应选择"
        else:
            query = f"{passage}Q: {question} Answer Choices: {' '.join(options)}\n"
            query += f"A: Among A through {last}, the answer is"
        rows.append({"query": query, "choices": options, "gold": "ABCDEFG".index(row["label"])})
    language = "zh" if "问题" in rows[0]["query"] else "en"
    expected = harness(f"agieval/{part}.yaml", {"test": rows}, shots)
    assert ours(data, "agieval", language, shots, part=part, format="harness") == expected


@SHOTS
def test_agieval_cloze(harness, data, shots):
    rows = [
        {"query": f"{row['passage'] or ''}问题：{row['question']}\n答案：", "answer": row["answer"]}
        for row in jsonl(data / "agieval/gaokao-mathcloze.jsonl")
    ]
    expected = generated(harness("agieval/gaokao-mathcloze.yaml", {"test": rows}, shots))
    assert ours(data, "agieval_cloze", "zh", shots, format="harness") == expected


# Of these no files are held: the harness and we read the same rows in their public columns.
WORDS = ["Fe", "'q'", '"x"', "{b}", "naïve", "水", "\\frac", "1"]


def question(number):
    return {
        "question": f" Q{number} {WORDS[number % 8]}? ",
        **{letter: f"{WORDS[(number + n) % 8]} {letter}" for n, letter in enumerate("ABCD")},
        "answer": "ABCD"[number % 4],
    }


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@SHOTS
def test_ceval(harness, tmp_path, shots):
    splits = {name: [question(n) for n in range(9)] for name in ("dev", "val")}
    for name, rows in splits.items():
        write_table(tmp_path / f"ceval/{name}/law_{name}.csv", rows)
    expected = harness("ceval/ceval-valid_law.yaml", splits, shots)
    assert ours(tmp_path, "ceval", "zh", shots, part="law") == expected


@SHOTS
def test_mmmlu(harness, tmp_path, shots):
    rows = [
        {"Question": row.pop("question"), "Answer": row.pop("answer"), **row, "Subject": "virology"}
        for row in map(question, range(9))
    ]
    write_table(tmp_path / "mmmlu/mmlu_PT-BR.csv", rows)
    numbered = [row | {"Answer": "ABCD".index(row["Answer"])} for row in rows]
    path = "openai-mmmlu/default/mmmlu_pt_br_virology.yaml"
    expected = harness(path, {"test": numbered}, shots)
    assert ours(tmp_path, "mmmlu", "pt", shots) == expected


@SHOTS
def test_okapis_mmlu(harness, tmp_path, shots):
    def row(number):
        plain = question(number)
        options = {f"option_{letter.lower()}": plain[letter] for letter in "ABCD"}
        return {"instruction": plain["question"], **options, "answer": plain["answer"]}

    splits = {name: [row(n) for n in range(9)] for name in ("train", "test")}
    for name, rows in splits.items():
        path = tmp_path / f"xmmlu/ne_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    for rows in splits.values():
        for item in rows:
            item["answer"] = "ABCD".index(item["answer"])
    # The hub's folder of Nepali includes the default under a name of its own.
    path = "okapi/mmlu_multilingual/m_mmlu_ne.yaml"
    assert ours(tmp_path, "xmmlu", "ne", shots) == harness(path, splits, shots)


@pytest.mark.parametrize("shots", [0, 5, 25])
def test_arc(harness, tmp_path, shots):
    def row(number):
        labels = "123" if number % 3 == 0 else "ABCD"
        texts = [f"{WORDS[(number + n) % 8]} {n}" for n in range(len(labels))]
        answer = labels[number % len(labels)]
        return {
            "question": f"Q{number} {WORDS[number % 8]}?",
            "choices": {"text": texts, "label": list(labels)},
            "answerKey": answer,
        }

    splits = {name: [row(n) for n in range(30)] for name in ("train", "test")}
    for split, name in (("train", "Train"), ("test", "Test")):
        lines = []
        for item in splits[split]:
            choices = item["choices"]
            listed = [
                {"text": text, "label": label}
                for text, label in zip(choices["text"], choices["label"], strict=True)
            ]
            stem = {"stem": item["question"], "choices": listed}
            lines.append(json.dumps({"question": stem, "answerKey": item["answerKey"]}) + "\n")
        folder = tmp_path / "arc/ARC-Challenge"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"ARC-Challenge-{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    expected = harness("arc/arc_challenge.yaml", splits, shots, validation_split=None)
    assert ours(tmp_path, "arc_challenge", "en", shots) == expected


@SHOTS
def test_flores(harness, tmp_path, shots):
    splits = {"dev": [], "devtest": []}
    for split, rows in splits.items():
        folder = tmp_path / f"flores200/{split}"
        folder.mkdir(parents=True)
        for n in range(9):
            rows.append({"sentence_spa_Latn": f"es {split} {n}", "sentence_eng_Latn": f"en {n}"})
        for code in ("spa_Latn", "eng_Latn"):
            text = "".join(row[f"sentence_{code}"] + "\n" for row in rows)
            (folder / f"{code}.{split}").write_text(text, encoding="utf-8")
    expected = generated(harness("spanish_bench/flores_es/flores_es-en.yaml", splits, shots))
    assert ours(tmp_path, "flores", "es-en", shots) == expected


@pytest.mark.parametrize("shots", [0, 1, 5])
def test_wmt16(harness, tmp_path, shots):
    splits = {
        name: [{"translation": {"de": f"de & {name} {n}", "en": f"en {n}"}} for n in range(9)]
        for name in ("validation", "test")
    }
    for split, stem in (("validation", "dev/newstest2015"), ("test", "test/newstest2016")):
        for code, side in (("de", "ref"), ("en", "src")):
            path = tmp_path / f"wmt16/{stem}-ende-{side}.{code}.sgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(
                f'<seg id="{n}">{row["translation"][code].replace("&", "&amp;")}</seg>\n'
                for n, row in enumerate(splits[split], 1)
            )
            path.write_text(text, encoding="utf-8")
    changes = {"training_split": None}
    expected = generated(harness("translation/wmt16_en-de.yaml", splits, shots, **changes))
    assert ours(tmp_path, "wmt16", "en-de", shots) == expected
