"""Benchmarks in the evaluator: names, languages, metrics."""

import json
import math

import numpy as np
import pytest

from marco_jax.evaluation import metrics
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask, is_benchmark
from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge, Question
from marco_jax.evaluation.results import read_results, write_results
from marco_jax.evaluation.suites import ChoiceItem, ChoiceSuite
from marco_jax.reports.summary import format_results


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    """XCOPA in three languages, Belebele in one, passages in three."""
    for code in ("zh", "sw", "th"):
        row = {"choice1": "Wet.", "choice2": "Dry ground.", "question": "effect"}
        rows = [row | {"premise": f"It rained {n}.", "label": n % 2} for n in range(6)]
        jsonl(tmp_path / f"xcopa/val.{code}.jsonl", rows)
    row = {"passage": "p", "question": "q", "choices": list("wxyz")}
    jsonl(tmp_path / "belebele/kaz_Cyrl.jsonl", [row | {"answer": n % 4} for n in range(8)])
    for code in ("eng_Latn", "kaz_Cyrl", "jpn_Jpan"):
        rows = [{"id": n, "text": f"{code} {n}"} for n in range(5)]
        jsonl(tmp_path / f"flores_passages/{code}.jsonl", rows)
    return tmp_path


def run(engine, data, tasks, corpus=None, **options):
    evaluator = Evaluator(engine, corpus, tasks, data_dir=str(data), **options)
    return evaluator.run(1.0).results


def by_key(results):
    return {(row.task, row.language, row.metric): row for row in results}


def test_formats_and_splits_are_part_of_a_tasks_name():
    assert is_benchmark("belebele:cloze") and is_benchmark("xcopa@validation")
    assert not is_benchmark("translation")
    assert BenchmarkTask.parse("belebele:cloze").metrics[0] == "accuracy_norm"
    assert BenchmarkTask.parse("xcopa@validation").split == "validation"
    for name, message in (("belebele:x", "format 'x'"), ("xcopa@dev", "split 'dev'")):
        with pytest.raises(ValueError, match=message):
            BenchmarkTask.parse(name)


def test_benchmarks_beside_the_tasks_on_held_out_data(fake_engine, corpus, data):
    tasks = ["bits_per_byte", "belebele", "xcopa"]
    rows = by_key(run(fake_engine(), data, tasks, corpus, shots=2, languages=["kk", "sw"]))
    assert rows["bits_per_byte", "kk", "bits_per_byte"].shots == 0
    assert rows["belebele", "kk", "accuracy"].examples == 8
    # The paper's numbers of shots; `shots` is for the other tasks.
    assert rows["belebele", "kk", "accuracy"].shots == 1
    assert rows["xcopa", "sw", "accuracy"].shots == 5
    assert ("xcopa", "zh", "accuracy") not in rows
    assert ("belebele", "sw", "accuracy") not in rows
    # Swahili is not one of the paper's languages, so it is in neither group.
    assert rows["belebele", "low", "accuracy"].examples == 8
    assert ("xcopa", "low", "accuracy") not in rows


def test_all_languages_with_files_by_default(fake_engine, data):
    rows = run(fake_engine(), data, ["xcopa"], benchmark_shots=0, examples=4)
    assert {row.language for row in rows} == {"zh", "sw", "th", "all", "high", "low"}
    assert {row.shots for row in rows} == {0}
    assert {row.examples for row in rows if row.language == "zh"} == {4}


def test_the_likelier_option_is_chosen(fake_engine, data):
    def logprob(context, continuation):
        return -float(len(continuation))

    rows = by_key(run(fake_engine(logprob=logprob), data, ["xcopa"], benchmark_shots=0))
    # " wet." is shorter than " dry ground." and right in half of the items; per byte they tie.
    assert rows["xcopa", "zh", "accuracy"].value == 0.5


def test_translation_into_and_out_of_english(fake_engine, data):
    engine = fake_engine(answer=lambda prompt: " kaz_Cyrl 1\nmore")
    rows = run(engine, data, ["flores_passages_from_en"], languages=["kk"], benchmark_shots=0)
    found = by_key(rows)
    assert found["flores_passages_from_en", "kk", "bleu"].signature.startswith("nrefs:1|case:mixed")
    assert "tok:13a" in found["flores_passages_from_en", "kk", "bleu"].signature
    assert 0 < found["flores_passages_from_en", "kk", "chrf++"].value < 100
    assert found["flores_passages_from_en", "kk", "language_rate"].value <= 1
    both = run(engine, data, ["flores_passages"], languages=["kk"], benchmark_shots=0)
    assert {row.language for row in both} >= {"en-kk", "kk-en"}
    pair = run(engine, data, ["flores_passages"], languages=["kk-ja"], benchmark_shots=0)
    tokenizers = {row.metric: row.signature for row in pair if row.language == "kk-ja"}
    assert "tok:char" in tokenizers["bleu"]


def test_scores_computed_otherwise_have_a_mixed_mean(fake_engine, data):
    rows = by_key(run(fake_engine(), data, ["flores_passages_from_en"], benchmark_shots=0))
    assert rows["flores_passages_from_en", "all", "bleu"].signature == "mixed"
    assert "nw:2" in rows["flores_passages_from_en", "all", "chrf++"].signature


def test_signatures_are_written_and_read(tmp_path, fake_engine, data):
    rows = run(fake_engine(), data, ["flores_passages_from_en", "belebele"], benchmark_shots=0)
    write_results(tmp_path / "out.json", rows)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert all(("signature" in row) == (row["metric"] in ("bleu", "chrf++")) for row in written)
    assert read_results(tmp_path / "out.json") == rows


def test_spbleu_needs_its_model(monkeypatch, tmp_path, byte_tokenizer, caplog):
    from marco_jax.evaluation import generation_suites as generation

    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    generation._warn_no_spbleu.cache_clear()
    judge = Judge(("bleu", "spbleu"), "kk")
    suite = GenerationSuite.build(byte_tokenizer, [Question("p", ("r",))], judge)
    assert suite.judge.metrics == ("bleu",)
    assert str(tmp_path / "models/flores200sacrebleuspm") in caplog.text
    (tmp_path / "models").mkdir()
    (tmp_path / "models/flores200sacrebleuspm").write_bytes(b"model")
    suite = GenerationSuite.build(byte_tokenizer, [Question("p", ("r",))], judge)
    assert suite.judge.metrics == ("bleu", "spbleu")


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        (["belebele"], {"data_dir": ""}, "data_dir must name the folder that holds belebele/"),
        (["belebele"], {"languages": ["ne"]}, "no held-out data below"),
        (["belebele"], {"languages": ["xx"]}, "language 'xx' is unknown"),
        (["belebele"], {"benchmark_shots": -1}, "shots is -1"),
        (["belebel"], {}, "did you mean 'belebele'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(fake_engine, data, tasks, options, message):
    options = {"data_dir": str(data), **options}
    with pytest.raises(ValueError, match=message):
        Evaluator(fake_engine(), None, tasks, **options)


def test_tables_have_a_line_a_language_and_the_means_last(fake_engine, data):
    rows = run(fake_engine(), data, ["xcopa", "flores_passages_from_en"], benchmark_shots=0)
    lines = format_results(rows).splitlines()
    first = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert first == ["sw", "th", "zh", "all", "high", "low"]
    assert lines[0].split()[:4] == ["xcopa,", "0", "shots", "accuracy"]
    assert any(line.startswith("bleu: nrefs:1") for line in lines)


def test_one_of_several_right_options_is_enough(byte_tokenizer):
    from marco_jax.decoding.requests import Score

    items = [ChoiceItem("q", ("a", "b", "a"), gold, part=str(gold)) for gold in ((0, 1), 2)]
    suite = ChoiceSuite.build(byte_tokenizer, items, ("accuracy",))
    assert len(suite.requests) == 6
    scores = [Score(value, False) for value in (-3, -1, -3, -1, -9, -1)]
    # In the second item the first of two equal options counts, which is not the right one.
    assert suite.estimates(scores)["accuracy"].value == 0.5


def test_normalised_by_bytes_and_by_characters(byte_tokenizer):
    from marco_jax.decoding.requests import Score

    item = ChoiceItem("q", ("水", "abcd"), 0)
    suite = ChoiceSuite.build(
        byte_tokenizer, [item], ("accuracy", "accuracy_norm", "accuracy_chars")
    )
    estimates = suite.estimates([Score(-2.0, False), Score(-4.0, False)])
    # -2 against -4; -2/3 against -4/4; -2/1 against -4/4.
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        "accuracy": 1,
        "accuracy_norm": 1,
        "accuracy_chars": 0,
    }


def test_standard_errors_of_groups_are_the_harnesss():
    harness = pytest.importorskip("lm_eval.api.metrics")
    random = np.random.default_rng(0)
    parts = [random.integers(0, 2, size).astype(float).tolist() for size in (12, 40, 7)]
    errors = [metrics.mean(part).stderr for part in parts]
    estimate = metrics.pooled(parts)
    assert estimate.stderr == pytest.approx(harness.pooled_sample_stderr(errors, [12, 40, 7]))
    assert estimate.value == pytest.approx(sum(map(sum, parts)) / 59)
    assert math.isnan(metrics.pooled([[1.0], [0.0]]).stderr)


def test_bleu_is_sacrebleus():
    from sacrebleu.metrics import BLEU

    hypotheses, references = ["一 二 三 四", "五六七八"], ["一二三四", "五六七九"]
    for tokenizer in ("13a", "zh", "char"):
        expected = BLEU(tokenize=tokenizer).corpus_score(hypotheses, [references]).score
        assert metrics.bleu(hypotheses, references, tokenizer).value == pytest.approx(expected)


def test_the_language_of_answers():
    texts = ["Қазақстан Республикасы Орталық Азияда орналасқан мемлекет.", "This is English.", ""]
    assert [metrics.is_in_language(text, "kk") for text in texts] == [True, False, False]
    assert metrics.is_in_language("Saya tinggal di sebuah rumah besar di kota.", "ms")


def test_subjects_have_rows_of_their_own_and_a_mean(fake_engine, tmp_path):
    """Two subjects of unequal size; the engine likes what stands first."""
    for subject, golds in (("astronomy", "AB"), ("virology", "AAAABB")):
        lines = [f"Q{n} of {subject}?,w,x,y,z,{gold}" for n, gold in enumerate(golds)]
        path = tmp_path / f"mmlu/test/{subject}_test.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    engine = fake_engine(logprob=lambda context, continuation: -float(continuation[-1]))
    rows = run(engine, tmp_path, ["mmlu"], benchmark_shots=0)
    found = {(row.part, row.language): row for row in rows if row.metric == "accuracy"}
    assert found["astronomy", "en"].value == 0.5 and found["astronomy", "en"].examples == 2
    assert found["virology", "en"].value == pytest.approx(2 / 3)
    # Each item counts in the task's metric, each subject in the mean of subjects.
    assert found["", "en"].value == found["", "all"].value == 5 / 8
    mean = found["mean", "en"]
    assert mean.value == pytest.approx((1 / 2 + 2 / 3) / 2) and mean.examples == 8
    errors = [found[name, "en"].stderr for name in ("astronomy", "virology")]
    assert mean.stderr == pytest.approx(math.hypot(*errors) / 2)
    assert ("mean", "all") not in found
    write_results(tmp_path / "results.json", rows)
    assert read_results(tmp_path / "results.json") == rows
    assert "astronomy" not in format_results(rows)


def test_one_subject_alone_is_the_task(fake_engine, tmp_path):
    path = tmp_path / "mmlu/test/astronomy_test.csv"
    path.parent.mkdir(parents=True)
    path.write_text("Q?,w,x,y,z,A\n")
    assert not any(row.part for row in run(fake_engine(), tmp_path, ["mmlu"], benchmark_shots=0))


def test_names_state_format_shots_and_split():
    task = BenchmarkTask.parse("belebele:cloze:3@test")
    assert (task.shots, task.asked_shots, task.split) == (3, 3, "test")
    assert task.format is task.benchmark.formats["cloze"]
    assert BenchmarkTask.parse("mmlu:0").shots == 0
    assert BenchmarkTask.parse("mmlu").shots == 5
    for name in ("mmlu:five", "mmlu:5:harness", "mmlu:-1"):
        with pytest.raises(ValueError, match="format .* of mmlu is unknown"):
            BenchmarkTask.parse(name)


def test_shots_and_limits_by_task(fake_engine, data):
    rows = run(
        *(fake_engine(), data, ["belebele", "belebele:2", "belebele:cloze:0"]),
        benchmark_shots=1,
        examples={"belebele": 3, "belebele:cloze:0": 2, "all": 1},
    )
    found = {(row.task, row.shots, row.examples) for row in rows if row.language == "kk"}
    assert found == {("belebele", 1, 3), ("belebele:2", 2, 3), ("belebele:cloze:0", 0, 2)}


def test_translations_of_a_question_are_known_where_files_number_them(fake_engine, tmp_path):
    row = {"choice1": "Wet.", "choice2": "Dry ground.", "question": "effect"}
    for code in ("sw", "zh"):
        rows = [row | {"premise": f"{code} {n}.", "label": 0, "idx": n} for n in range(8)]
        jsonl(tmp_path / f"xcopa/val.{code}.jsonl", rows)

    def logprob(context, continuation):
        """Right for even numbers, in both languages."""
        odd = len(context) > 3 and context[3] % 2
        return -float((continuation[1] == ord("w")) == odd)

    engine = fake_engine(logprob=logprob)
    evaluator = Evaluator(engine, None, ["xcopa"], data_dir=str(tmp_path), benchmark_shots=0)
    evaluation = evaluator.run(1.0)
    found = evaluation.outcomes["xcopa", "zh"]
    assert list(found.questions) == [str(n) for n in range(8)]
    assert found.questions == evaluation.outcomes["xcopa", "sw"].questions
    rows = by_key(evaluation.results)
    # A second language with the same outcomes adds nothing.
    errors = [rows["xcopa", code, "accuracy"].stderr for code in ("zh", "sw", "all")]
    assert errors[2] == pytest.approx(errors[0]) == pytest.approx(errors[1])
