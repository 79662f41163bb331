"""The evaluator on a fake engine and corpus."""

import math

import jax
import jax.numpy as jnp
import pytest

from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.builtin_tasks import TASKS, get_task
from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.evaluation.result_rows import averages
from marco_jax.evaluation.results import Result
from marco_jax.model.qwen2 import bind, init_params
from marco_jax.model.qwen2_config import Qwen2Config

TASK_NAMES = list(TASKS)


def evaluate(engine, params, corpus, tasks, **options):
    return Evaluator(engine, corpus, tasks, **options).run(params).results


def _by_key(results):
    return {(row.task, row.language, row.metric): row for row in results}


def test_rows_of_all_tasks(fake_engine, corpus):
    rows = _by_key(evaluate(fake_engine(), 1.0, corpus, TASK_NAMES, examples=8))
    languages = {language for task, language, _ in rows if task == "bits_per_byte"}
    assert languages == {"en", "de", "kk", "ne", "all", "high", "low"}
    assert ("translation", "en", "chrf++") not in rows
    assert rows["pick_translation", "kk", "accuracy"].examples == 8
    assert rows["pick_translation", "kk", "accuracy"].shots == 3
    assert rows["bits_per_byte", "kk", "bits_per_byte"].shots == 0
    assert rows["bits_per_byte", "all", "bits_per_byte"].examples == 24


def test_one_call_of_the_engine_for_each_kind(fake_engine, corpus):
    engine = fake_engine()
    evaluator = Evaluator(engine, corpus, TASK_NAMES, examples=4)
    evaluator.run(1.0)
    assert [call for call, _ in engine.calls] == ["score", "generate"]


def test_prompts_are_encoded_once(fake_engine, corpus, monkeypatch):
    engine = fake_engine()
    evaluator = Evaluator(engine, corpus, TASK_NAMES, examples=8)
    monkeypatch.setattr(engine.tokenizer, "encode", None)
    first, second = evaluator.run(1.0), evaluator.run(1.0)
    assert first.results == second.results
    assert evaluator.run(2.0).results != first.results


def test_seconds_by_task_add_up_to_the_calls(fake_engine, corpus):
    seconds = Evaluator(fake_engine(), corpus, TASK_NAMES, examples=4).run(1.0).seconds
    assert set(seconds) == set(TASK_NAMES)
    assert all(value > 0 for value in seconds.values())


def test_figures_do_not_depend_on_company(fake_engine, corpus):
    together = _by_key(evaluate(fake_engine(), 1.0, corpus, TASK_NAMES))
    alone = _by_key(evaluate(fake_engine(), 1.0, corpus, ["pick_translation"], languages=["ne"]))
    key = ("pick_translation", "ne", "accuracy")
    assert alone[key] == together[key]
    for pairs in corpus.pairs_by.values():
        pairs.reverse()
    for texts in corpus.texts_by.values():
        texts.reverse()
    reordered = evaluate(fake_engine(), 1.0, corpus, TASK_NAMES[::-1], languages=["ne", "kk"])
    for key, row in _by_key(reordered).items():
        if key[1] in ("ne", "kk"):
            # Sums over documents in another order round differently.
            assert row.value == pytest.approx(together[key].value, rel=1e-12)


def test_a_model_that_reads_english_is_always_right(fake_engine, corpus):
    def logprob(context, continuation):
        source = bytes(i for i in context if i < 256).decode().rsplit("English text: ")[-1]
        number = source.split("number ")[-1].split(" ")[0]
        return 0.0 if f" {number} " in bytes(continuation).decode() else -5.0

    def answer(prompt):
        number = prompt.rsplit("number ")[-1].split(" ")[0]
        return f" сөз {number} " + "сөз" * (1 + int(number) % 5) + "\n\nEnglish text: more"

    engine = fake_engine(logprob=logprob, answer=answer)
    tasks = ["pick_translation", "translation"]
    rows = _by_key(evaluate(engine, 1.0, corpus, tasks, languages=["kk"]))
    assert rows["pick_translation", "kk", "accuracy"].value == 1
    assert rows["pick_translation", "kk", "accuracy_pmi"].value == 1
    assert rows["translation", "kk", "chrf++"].value == pytest.approx(100)


def test_shots_and_examples_by_task(fake_engine, corpus):
    examples = {"pick_translation": 4, "translation": 2}
    rows = _by_key(evaluate(fake_engine(), 1.0, corpus, TASK_NAMES, shots=1, examples=examples))
    assert rows["pick_translation", "kk", "accuracy"].examples == 4
    assert rows["translation", "kk", "chrf++"].examples == 2
    assert rows["bits_per_byte", "kk", "bits_per_byte"].examples == 6
    assert rows["translation", "kk", "chrf++"].shots == 1
    assert rows["bits_per_byte", "kk", "bits_per_byte"].shots == 0


def test_prompts_show_no_held_out_translation(fake_engine, corpus):
    seen = []

    def answer(prompt):
        seen.append(prompt)
        return "x"

    evaluate(fake_engine(answer=answer), 1.0, corpus, ["translation"], languages=["kk"])
    for prompt in seen:
        assert prompt.count("Kazakh text:") == 4
        assert not [p for p in corpus.pairs("en", "kk", "held_out") if p.target in prompt]


def test_a_diverged_model_gives_nan_not_chance(fake_engine, corpus):
    for row in evaluate(fake_engine(), math.nan, corpus, ["pick_translation", "bits_per_byte"]):
        assert math.isnan(row.value)


def test_averages_by_hand():
    rows = [
        Result("t", language, 0, "m", value, stderr, 10)
        for language, value, stderr in (("de", 1.0, 0.3), ("kk", 2.0, 0.4), ("ne", 6.0, 0.0))
    ]
    by_language = {row.language: row for row in averages(rows)}
    assert by_language["all"].value == 3.0
    assert by_language["all"].stderr == pytest.approx(0.5 / 3)
    assert by_language["low"] == Result("t", "low", 0, "m", 4.0, 0.2, 20)
    assert by_language["high"].value == 1.0
    assert "low" not in {row.language for row in averages(rows[:1])}


def test_unknown_tasks_and_missing_data_are_clear(fake_engine, corpus):
    with pytest.raises(ValueError, match="did you mean 'bits_per_byte'"):
        get_task("bits_per_bite")
    with pytest.raises(ValueError, match="'translation' has no held-out data in th"):
        Evaluator(fake_engine(), corpus, ["translation"], languages=["th"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": 0}, "examples is 0"),
        ({"shots": -1}, "shots is -1"),
        ({"languages": ["kkk"]}, "kkk"),
    ],
)
def test_bad_arguments_are_named(fake_engine, corpus, arguments, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(fake_engine(), corpus, ["pick_translation"], **arguments)


@pytest.fixture(scope="module")
def tiny():
    return Qwen2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
    )


def test_the_real_engine_gives_the_same_figures_in_any_batch(tiny, byte_tokenizer, corpus):
    params, rows = init_params(tiny, 0), []
    texts = corpus.texts_by["kk", "held_out"] = ["сөз бен сөйлем", "тағы сөз бар шығар"]
    for tokens_per_batch in (512, 2048):
        engine = Engine(tiny, byte_tokenizer, tokens_per_batch=tokens_per_batch)
        tasks = ["bits_per_byte", "pick_translation"]
        rows.append(evaluate(engine, params, corpus, tasks, languages=["kk"], shots=1, examples=8))
    for small, large in zip(*rows, strict=True):
        # Float32 sums in another order.
        assert small.value == pytest.approx(large.value, abs=1e-5)

    bits = 0.0
    for text in texts:
        ids = byte_tokenizer.encode(text)
        inputs = jnp.array([[byte_tokenizer.eos_id, *ids[:-1]]])
        positions = jnp.arange(len(ids))[None]
        hidden, _ = bind(tiny, params)(inputs, positions, jnp.ones_like(inputs))
        logprobs = jax.nn.log_softmax(bind(tiny, params).logits(hidden))[0]
        bits -= float(logprobs[jnp.arange(len(ids)), jnp.array(ids)].sum()) / math.log(2)
    expected = bits / sum(len(text.encode()) for text in texts)
    measured = _by_key(rows[0])["bits_per_byte", "kk", "bits_per_byte"].value
    assert measured == pytest.approx(expected, rel=1e-5)
