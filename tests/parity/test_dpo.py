"""Preference training against TRL: losses, rewards and gradients of the same pairs and weights."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Within, get_mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.decoding.engine import Engine
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import flatten, parameter_table
from marco_jax.objectives.preferences import Answers, PreferenceOptions, pair_losses
from marco_jax.tokenizers.tokenizer import train_sentencepiece
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.references import reference_path, reference_scores
from marco_jax.training.step import Batch, StepOptions, Trainer
from marco_jax.weights.huggingface import load_huggingface
from tests.parity.tiny_models import moving_models, tiny_qwen2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

LENGTH, ROWS = 768, 8
BETA = 0.3
TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "de": "der Lauf sichert seinen Stand und der Schritt liest neuen Text ein",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
}
# Ours, and TRL's name of it with what it is to be told. Its "aot" sorts the pairs of a batch, and
# is conservative DPO on batches of one.
VARIANTS = {
    "sigmoid": (dict(variant="sigmoid"), dict(loss_type=["sigmoid"])),
    "ipo": (dict(variant="ipo"), dict(loss_type=["ipo"])),
    "robust": (
        dict(variant="robust", label_smoothing=0.2),
        dict(loss_type=["robust"], label_smoothing=0.2),
    ),
    "smoothed": (
        dict(variant="smoothed", label_smoothing=0.2),
        dict(loss_type=["aot"], label_smoothing=0.2),
    ),
    "sft term": (
        dict(variant="sigmoid", sft_weight=0.5),
        dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]),
    ),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A store of 24 pairs, their tokenizer and corpus."""
    rng = np.random.default_rng(0)
    directory = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(24):
        code, text = list(TEXTS.items())[number % 3]
        words = text.split()
        said = [" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(3)]
        rows.append(dict(language=code, prompt=said[0], chosen=said[1], rejected=said[2]))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (directory / "pairs.jsonl").write_text("".join(lines), "utf-8")
    source = {"name": "pairs", "kind": "preference", "files": "pairs.jsonl", "held_out": 0.0}
    (directory / "data.json").write_text(json.dumps({"sources": [source]}))
    corpus = load_corpus(str(directory / "data.json"), seed=0)
    tokenizer = train_sentencepiece(list(TEXTS.values()) * 20, 330, directory / "tokenizer")
    return corpus, tokenizer, prepare_stores(corpus, tokenizer, ["pairs"], directory / "cache")


@pytest.fixture(scope="module")
def directories(pairs, tmp_path_factory):
    """A reference model, and one that has moved away from it."""
    moves = (("reference", 0.05), ("policy", 0.05))
    found = moving_models(tiny_qwen2(384, pairs[1].eos_id), moves, tmp_path_factory)
    for directory in found:
        pairs[1].save(directory)
    return found


@pytest.fixture(scope="module")
def examples(pairs):
    """The pairs as TRL has them: ids of the prompt and of both answers."""
    store = pairs[2]["pairs"]
    found = []
    for first in range(0, len(store.lengths), 2):
        sides = []
        for document in (first, first + 1):
            ids = store.read(document, 0, int(store.lengths[document])).tolist()
            start = int(np.flatnonzero(store.read_loss_mask(document))[0])
            sides.append((ids[:start], ids[start:]))
        (prompt, chosen), (again, rejected) = sides
        assert prompt == again
        found.append(dict(prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected))
    return found


def ours(pairs, directories, options, devices, axes):
    """Sums and gradients over all pairs, by (label, figure) and by path."""
    corpus, tokenizer, stores = pairs
    reference, policy = (load_huggingface(directory) for directory in directories)
    config, params = policy
    references = {}
    if options.has_reference and not options.is_live:

        def load():
            return Engine(config, tokenizer, max_length=LENGTH), reference[1]

        store = stores["pairs"]
        path = reference_path(store, "test", LENGTH)
        references = {"pairs": reference_scores(store, path, LENGTH, load)}
        np.testing.assert_array_equal(
            reference_scores(store, path, LENGTH, None), references["pairs"]
        )
    mixture = get_mixture("preference", corpus.infos(), Within("proportional"), {"pairs": 1})
    packed = pack_sources(
        stores,
        length=LENGTH,
        seed=0,
        eos_id=tokenizer.eos_id,
        references=references,
        pairs_per_row=options.pairs_per_row,
    )
    stages = [Stage("dpo", mixture, 100)]
    feed = build_feed(packed, stages, length=LENGTH, batch_rows=ROWS, seed=0)
    rows = feed.describe()["sources"]["pairs"]["rows"]
    assert rows <= ROWS
    arrays = {name: np.array(array) for name, array in feed.batch(0).items()}
    # The feed goes on with the next reading: those rows are emptied.
    for name in ("segment_ids", "loss_weights", "positions"):
        arrays[name][rows:] = 0
    schedule = StageSchedule(steps=10, peak=0.0).build()
    optimizer = create_optimizer(
        config, schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0
    )
    sharding = Sharding(create_mesh(axes, devices))
    step = StepOptions(preference=options)
    trainer = Trainer(config, optimizer, schedule, sharding, len(feed.labels), step)
    frozen = trainer.freeze(reference[1])
    batch = jax.device_put(Batch(**arrays), trainer.batch_sharding)
    params = jax.device_put(params, trainer.state_shardings.params)
    sums, grads = jax.jit(trainer.gradients)(params, batch, frozen)
    count = float(sums.loss_counts.sum())
    assert count == len(stores["pairs"].lengths) / 2
    figures = {name: float(value.sum()) / count for name, value in sums.metrics.items()}
    figures["loss"] = float(sums.loss_sums.sum()) / count
    return figures, {path: np.asarray(grad) / count for path, grad in flatten(grads).items()}


def theirs(directories, examples, tmp_path, changes):
    """Loss, logged figures and gradients of TRL's own trainer on all pairs."""
    reference, policy = (
        transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        for directory in directories
    )
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=BETA,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=len(examples),
        max_length=None,
        report_to=[],
        **changes,
    )
    texts = [dict(prompt="a", chosen="b", rejected="c")]
    trainer = trl.DPOTrainer(
        policy,
        ref_model=reference,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=transformers.AutoTokenizer.from_pretrained(directories[0]),
    )
    trainer.model.train()
    batches = [[example] for example in examples] if "aot" in changes["loss_type"] else [examples]
    losses = []
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch)) / len(batches)
        loss.backward()
        losses.append(float(loss.detach()))
    logged = {name: np.mean(values) for name, values in trainer._metrics["train"].items()}
    grads = {name: p.grad.numpy() for name, p in trainer.model.named_parameters()}
    return sum(losses), logged, grads


def assert_same_gradients(found, expected, config):
    scale = max(np.abs(grad).max() for grad in expected.values())
    for row in parameter_table(config):
        for layer, name in enumerate(row.huggingface_names(config)):
            own = found[row.path][layer] if row.stacked else found[row.path]
            np.testing.assert_allclose(
                row.to_huggingface(own, config), expected[name], atol=1e-5 * scale, err_msg=name
            )


@pytest.mark.parametrize(
    ("variant", "reference"),
    [
        ("sigmoid", "cached"),
        *(
            pytest.param(variant, reference, marks=pytest.mark.slow)
            for variant in VARIANTS
            for reference in ("cached", "live")
            if (variant, reference) != ("sigmoid", "cached")
        ),
    ],
)
def test_losses_rewards_and_gradients_are_those_of_trl(
    pairs, directories, examples, tmp_path, one_device, variant, reference
):
    mine, changes = VARIANTS[variant]
    options = PreferenceOptions(beta=BETA, reference=reference, pairs_per_row=4, **mine)
    figures, grads = ours(pairs, directories, options, one_device, {"fsdp": 1})
    loss, logged, expected = theirs(directories, examples, tmp_path, changes)
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    for name, value in (
        ("reward_chosen", "rewards/chosen"),
        ("reward_rejected", "rewards/rejected"),
        ("reward_margin", "rewards/margins"),
        ("reward_accuracy", "rewards/accuracies"),
    ):
        assert figures[name] == pytest.approx(logged[value], abs=1e-5), name
    assert abs(figures["reward_margin"]) > 1e-2
    assert_same_gradients(grads, expected, load_huggingface(directories[0])[0])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["sigmoid", "ipo", "simpo"])
def test_a_mesh_of_eight_gives_the_same(pairs, directories, one_device, variant):
    options = PreferenceOptions(variant=variant, beta=BETA, pairs_per_row=4, sft_weight=0.1)
    alone, first = ours(pairs, directories, options, one_device, {"fsdp": 1})
    axes = {"fsdp": 2, "tensor": 2, "context": 2}
    meshed, second = ours(pairs, directories, options, None, axes)
    assert meshed == pytest.approx(alone, rel=1e-4, abs=1e-6)
    for path, grad in first.items():
        np.testing.assert_allclose(second[path], grad, atol=1e-5 * np.abs(grad).max() + 1e-7)


def test_simpo_is_that_of_trl():
    """TRL has it in a trainer of its own, whose loss takes mean log-probabilities."""
    CPOTrainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    rng = np.random.default_rng(0)
    sums, tokens = rng.normal(-20, 5, (2, 16)), rng.integers(2, 30, (2, 16))
    self = types.SimpleNamespace(
        loss_type="simpo", beta=2.0, simpo_gamma=0.7, label_smoothing=0.0, alpha=0.0
    )
    self.accelerator = types.SimpleNamespace(device="cpu")
    means = torch.tensor(sums / tokens, requires_grad=True)
    expected = CPOTrainer.cpo_loss(self, means[0], means[1])[0]
    expected.sum().backward()

    options = PreferenceOptions(variant="simpo", beta=2.0, simpo_gamma=0.7)

    def total(sums):
        sides = [
            Answers(jnp.asarray(s), jnp.zeros(16), jnp.asarray(t))
            for s, t in zip(sums, tokens, strict=True)
        ]
        losses = pair_losses(*sides, options)
        return losses.sum(), losses

    grads, losses = jax.grad(total, has_aux=True)(jnp.asarray(sums, jnp.float32))
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(grads * tokens, means.grad, rtol=1e-5, atol=1e-7)
