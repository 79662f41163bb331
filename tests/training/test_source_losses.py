"""The loss of each source is the mean over its documents, each read alone."""

import collections
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.qwen2 import bind
from marco_jax.reports.run_data import read_metrics
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.training import loop

STEPS = 3
SETTINGS = (
    f"steps={STEPS}",
    "stages=stage1",
    "mixture.name=flat",
    "batch.length=96",
    "log_every=1",
    "checkpoint.every=0",
)
LETTERS = {"en": "abcdefgh", "kk": "абвгдежз"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Short documents of two languages that have no letter in common."""
    rng = random.Random(0)
    rows = []
    for number in range(400):
        for code, letters in LETTERS.items():
            words = ["".join(rng.choices(letters, k=3)) for _ in range(rng.randint(2, 16))]
            rows.append({"id": f"{code} {number}", "language": code, "text": " ".join(words)})
    path = tmp_path_factory.mktemp("two") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def unchanged(batch):
    return batch


def with_sources_swapped(batch):
    return batch._replace(source_ids=1 - batch.source_ids)


def with_sources_shuffled(batch):
    rows = np.roll(np.arange(len(batch.source_ids)), 1)
    return batch._replace(source_ids=batch.source_ids[rows])


def with_segments_joined(batch):
    """Every second document reads the one before it too."""
    return batch._replace(segment_ids=(batch.segment_ids + 1) // 2)


def run(monkeypatch, config, workdir, change):
    """Trains; returns for each step the parameters before it, and its batch without the change."""
    models, steps = [], []
    create = loop.create_trainer

    def create_watched(*args, **kwargs):
        trainer = create(*args, **kwargs)
        step = trainer.step

        def watched(state, batch):
            if not steps:
                # The losses of small random parameters hardly depend on what they read.
                state = state._replace(params=jax.tree.map(lambda x: 3 * x, state.params))
            arrays = jax.device_get(batch)
            steps.append((jax.device_get(trainer.model_params(state)), arrays))
            changed = jax.device_put(change(arrays), trainer.batch_sharding)
            return step(state, changed)

        trainer.step = watched
        models.append(trainer.config)
        return trainer

    monkeypatch.setattr(loop, "create_trainer", create_watched)
    assert loop.train(config, workdir) == 0
    return models[0], steps


def documents(batch, tokenizer):
    """The tokens, targets and source of every segment; its letters tell the source."""
    for row in range(len(batch.tokens)):
        for segment in np.unique(batch.segment_ids[row]):
            if segment:
                own = batch.segment_ids[row] == segment
                tokens, targets = batch.tokens[row][own], batch.targets[row][own]
                assert (batch.loss_weights[row][own] == 1).all()
                np.testing.assert_array_equal(tokens[1:], targets[:-1])
                text = tokenizer.decode([t for t in targets.tolist() if t != tokenizer.eos_id])
                (source,) = (code for code, letters in LETTERS.items() if set(letters) & set(text))
                yield tokens, targets, source


def losses_alone(model, params, batch, tokenizer):
    """By source: the mean over targets of cross-entropies, each document in a row of its own."""

    @jax.jit
    def log_probabilities(params, tokens):
        # The rest of the row is behind the document, which therefore does not read it.
        qwen2 = bind(model, params)
        hidden, _ = qwen2(tokens[None], jnp.arange(tokens.size)[None])
        return jax.nn.log_softmax(qwen2.logits(hidden)[0])

    sums, counts = collections.Counter(), collections.Counter()
    length = batch.tokens.shape[1]
    begun = 0
    for tokens, targets, source in documents(batch, tokenizer):
        begun += tokens[0] == tokenizer.eos_id
        row = np.pad(tokens, (0, length - tokens.size))
        found = np.asarray(log_probabilities(params, row), np.float64)
        sums[source] -= found[np.arange(targets.size), targets].sum()
        counts[source] += targets.size
    assert begun > 10 and len(sums) == 2
    return {source: sums[source] / counts[source] for source in sums}, counts


def differences(monkeypatch, config, workdir, change):
    """Relative differences between the losses of a run and those of its documents, by step."""
    model, steps = run(monkeypatch, config, workdir, change)
    rows = read_metrics(workdir / "metrics.jsonl")
    assert len(steps) == len(rows) == STEPS
    tokenizer = load_tokenizer(workdir / "tokenizer")
    found = []
    for (params, batch), row in zip(steps, rows, strict=True):
        alone, counts = losses_alone(model, params, batch, tokenizer)
        if change is unchanged:
            assert {code: row[f"tokens/{code}"] for code in LETTERS} == counts
        found.append({code: abs(row[f"loss/{code}"] / alone[code] - 1) for code in LETTERS})
    return found


def test_the_loss_of_a_source_is_that_of_its_documents_alone(
    monkeypatch, small_config, corpus, tmp_path
):
    config = small_config(*SETTINGS, f"data={corpus}")
    for step in differences(monkeypatch, config, tmp_path, unchanged):
        # Sums of float32 in another order.
        assert max(step.values()) < 1e-5


@pytest.mark.parametrize(
    "change", [with_sources_swapped, with_sources_shuffled, with_segments_joined]
)
def test_the_comparison_notices_a_wrong_batch(monkeypatch, small_config, corpus, tmp_path, change):
    config = small_config(*SETTINGS, f"data={corpus}")
    for step in differences(monkeypatch, config, tmp_path, change):
        assert max(step.values()) > 1e-3
