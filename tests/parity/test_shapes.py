"""Every published size's shape, scaled down, against transformers in float32.

`relative` is max |ours - theirs| / max |theirs|. The bounds are a few times what differing
summation order gives in float32 (about 1e-6 for these sizes).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.model.parameters import flatten, parameter_table
from marco_jax.model.qwen2 import bind
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.objectives.losses import cross_entropy
from marco_jax.weights.huggingface import load_huggingface

torch = pytest.importorskip("torch")

LOGITS_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4
LENGTH = 48
# Ids that a tokenizer of these models would have: the rows past them are padding.
USED_VOCAB = 250
# A row of documents that are packed, and the padding after them.
DOCUMENTS, PADDING = (11, 1, 20, 5), 11


def relative(ours, theirs):
    theirs = np.asarray(theirs, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())


def random_tokens(*shape):
    return np.random.default_rng(1).integers(0, USED_VOCAB, shape, dtype=np.int32)


def packed_row():
    """Tokens, positions and segment ids [1, LENGTH], and a slice for each document."""
    lengths = [*DOCUMENTS, PADDING]
    segment_ids = np.repeat([*range(1, len(DOCUMENTS) + 1), 0], lengths)[None].astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in lengths])[None].astype(np.int32)
    ends = np.cumsum(DOCUMENTS)
    documents = [slice(end - n, end) for n, end in zip(DOCUMENTS, ends, strict=True)]
    return random_tokens(1, LENGTH), positions, segment_ids, documents


def in_rows(tokens, positions=None, segment_ids=None):
    """Jax arrays, with the positions and segments of rows that are one document each."""
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    if segment_ids is None:
        segment_ids = np.ones_like(tokens)
    return jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(segment_ids, jnp.int32)


def our_logits(config, params, *row):
    def logits(params, *row):
        model = bind(config, params)
        return model.logits(model(*row)[0])

    return np.asarray(jax.jit(logits)(params, *in_rows(*row)))


def our_loss_and_gradients(config, params, targets, weights, *row):
    """The mean loss over weighted targets and its gradients, by the loss that training uses."""

    def mean_loss(params):
        model = bind(config, params)
        hidden, _ = model(*in_rows(*row))
        weighting = jnp.asarray(weights)
        total, _ = cross_entropy(hidden, model.head, jnp.asarray(targets), weighting)
        return total / weighting.sum()

    return jax.jit(jax.value_and_grad(mean_loss))(params)


def check_gradients(config, ours, model):
    """Every parameter's gradient against that which `model` holds after its backward pass."""
    flat, named = flatten(ours), dict(model.named_parameters())
    for row in parameter_table(config):
        for layer, name in enumerate(row.huggingface_names(config)):
            gradient = np.asarray(flat[row.path][layer] if row.stacked else flat[row.path])
            theirs = named.pop(name).grad.numpy()
            gradient = row.to_huggingface(gradient, config)
            assert gradient.shape == theirs.shape
            assert relative(gradient, theirs) < GRADIENT_TOLERANCE, name
    assert not named


@pytest.fixture(scope="module", params=["0.5B", "1.5B", "7B", "72B", "3-0.6B", "3-8B"])
def shape(request, published, make_directory, load_torch):
    """A size's preset, our config and parameters, and the model of transformers."""
    directory = make_directory(published[request.param])
    size = request.param.lower().replace(".", "_")
    preset = PRESETS[f"qwen3_{size[2:]}" if size.startswith("3-") else f"qwen2_{size}"]
    return preset, *load_huggingface(directory), load_torch(directory)


def test_shape_is_that_of_the_preset(shape):
    preset, config, params, _ = shape
    for field in (
        "num_attention_heads",
        "num_key_value_heads",
        "qkv_bias",
        "qk_norm",
        "rms_norm_eps",
        "rope_theta",
        "tie_word_embeddings",
    ):
        assert getattr(config, field) == getattr(preset, field), field
    ratios = [c.intermediate_size / c.hidden_size for c in (config, preset)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.05)
    assert config.vocab_size > USED_VOCAB
    flat = {path: np.asarray(x) for path, x in flatten(params).items()}
    biases = [x for path, x in flat.items() if path.endswith("bias")]
    norms = [x for path, x in flat.items() if "_norm/" in path]
    assert (len(biases), len(norms)) == ((3, 0) if config.qkv_bias else (0, 2))
    assert all(np.abs(bias).min() > 0 for bias in biases)
    assert all(np.abs(norm - 1).max() > 0.1 for norm in norms)


def test_plain_input(shape, torch_logits):
    _, config, params, model = shape
    tokens = random_tokens(2, LENGTH)
    ours = our_logits(config, params, tokens)
    # Rows past the tokenizer's vocabulary have logits too, as in transformers.
    assert ours.shape == (2, LENGTH, config.vocab_size)
    assert relative(ours, torch_logits(model, tokens)) < LOGITS_TOLERANCE


def test_right_padded_input(shape, torch_logits):
    _, config, params, model = shape
    tokens = random_tokens(3, LENGTH)
    mask = np.arange(LENGTH) < np.array([[LENGTH], [17], [1]])
    theirs = torch_logits(model, tokens, mask.astype(np.int64))
    ours = our_logits(config, params, tokens, None, mask)
    assert relative(ours[mask], theirs[mask]) < LOGITS_TOLERANCE


def test_packed_input(shape, torch_logits):
    """Each document of a packed row has the logits that it has alone."""
    _, config, params, model = shape
    tokens, positions, segment_ids, documents = packed_row()
    ours = our_logits(config, params, tokens, positions, segment_ids)
    for document in documents:
        theirs = torch_logits(model, tokens[:, document])
        assert relative(ours[:, document], theirs) < LOGITS_TOLERANCE


def test_gradients_of_the_mean_loss(shape):
    _, config, params, model = shape
    tokens = random_tokens(2, LENGTH)
    targets, weights = np.roll(tokens, -1, axis=1), np.ones(tokens.shape, np.float32)
    weights[:, -1] = 0
    loss, gradients = our_loss_and_gradients(config, params, targets, weights, tokens)

    model.zero_grad()
    ids = torch.tensor(tokens, dtype=torch.int64)
    theirs = model(ids, labels=ids).loss
    theirs.backward()
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-6)
    check_gradients(config, gradients, model)


def test_gradients_of_packed_documents(shape):
    """The gradient of a packed row is that of its documents, each run alone."""
    _, config, params, model = shape
    tokens, positions, segment_ids, documents = packed_row()
    targets, weights = np.roll(tokens, -1, axis=1), (segment_ids > 0).astype(np.float32)
    weights[:, [document.stop - 1 for document in documents]] = 0
    loss, gradients = our_loss_and_gradients(
        config, params, targets, weights, tokens, positions, segment_ids
    )

    model.zero_grad()
    total = 0.0
    for document in documents:
        ids = torch.tensor(tokens[:, document], dtype=torch.int64)
        logits = model(ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    mean = total / weights.sum()
    mean.backward()
    np.testing.assert_allclose(loss, mean.item(), rtol=1e-6)
    check_gradients(config, gradients, model)
