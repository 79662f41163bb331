"""Scores and generations do not depend on how the engine batched them."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, Sampling, ScoreRequest
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings
from marco_jax.model.qwen2 import bind, init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.tokenizers.tokenizer_files import Companions

TINY = dataclasses.replace(PRESETS["tiny"], max_position_embeddings=256)


QWEN3 = dataclasses.replace(PRESETS["qwen3_tiny"], max_position_embeddings=256)


class Words:
    """A tokenizer of numbers; 250..255 are the padding rows of the vocabulary."""

    vocab_size = 250
    eos_id = 3
    companions = Companions()

    def decode(self, ids):
        return " ".join(map(str, ids))


def clear_params(config):
    # Larger weights than at the start of training, so that argmaxes are clear.
    return jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, init_params(config, seed=1))


@pytest.fixture(scope="module")
def params():
    return clear_params(TINY)


def by_hand(params, tokens):
    """Log-probabilities [length, vocab] of one row, without the engine."""
    tokens = np.array([tokens], np.int32)
    model = bind(TINY, params)
    hidden, _ = model(tokens, np.arange(tokens.shape[1])[None])
    return np.asarray(jax.nn.log_softmax(model.logits(hidden)))[0]


def expected(params, context, continuation):
    logprobs = by_hand(params, [*context, *continuation])[len(context) - 1 : -1]
    total = sum(logprobs[place, token] for place, token in enumerate(continuation))
    return float(total), bool((logprobs.argmax(-1) == continuation).all())


def random_requests(count, seed=0):
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(count):
        context = rng.integers(0, 250, rng.integers(1, 60)).tolist()
        for _ in range(rng.integers(1, 5)):
            continuation = rng.integers(0, 250, rng.integers(1, 12)).tolist()
            requests.append(ScoreRequest(context, continuation))
    return requests


def test_scores_equal_one_plain_forward_each(params):
    requests = random_requests(12)
    scores = Engine(TINY, Words(), tokens_per_batch=512).score(params, requests)
    for request, score in zip(requests, scores, strict=True):
        logprob, greedy = expected(params, request.context, request.continuation)
        # float32 sums of up to 12 terms near 6, an ulp or two each.
        assert score.logprob == pytest.approx(logprob, abs=1e-5)
        assert score.is_greedy == greedy


def test_the_argmax_is_greedy_and_its_neighbour_is_not(params):
    context = [5, 6, 7]
    best = int(by_hand(params, context)[-1].argmax())
    requests = [ScoreRequest(context, [best]), ScoreRequest(context, [(best + 1) % 250])]
    scores = Engine(TINY, Words()).score(params, requests)
    assert [score.is_greedy for score in scores] == [True, False]


@settings(max_examples=8, deadline=None)
@given(data=st.data(), tokens_per_batch=st.sampled_from([64, 300, 4096]))
def test_scores_do_not_depend_on_order_or_batch_size(params, data, tokens_per_batch):
    requests = random_requests(6, seed=3)
    order = data.draw(st.permutations(range(len(requests))))
    reference = Engine(TINY, Words(), tokens_per_batch=1024).score(params, requests)
    engine = Engine(TINY, Words(), tokens_per_batch=tokens_per_batch)
    shuffled = engine.score(params, [requests[i] for i in order])
    for position, index in enumerate(order):
        assert shuffled[position].logprob == pytest.approx(reference[index].logprob, abs=1e-5)


def test_short_and_long_prompts_together_are_one_batch(params):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 250, size).tolist() for size in (3, 90, 9)]
    requests = [GenerateRequest(prompt, 12) for prompt in prompts]
    apart, together = Engine(TINY, Words()), Engine(TINY, Words())
    assert together.generate(params, requests, together=True) == apart.generate(params, requests)
    assert together.generate(params, [], together=True) == []
    counts = [sum(name[0] == "decode" for name in engine.programs) for engine in (apart, together)]
    assert counts == [2, 1]


@pytest.mark.parametrize("axes", [{"fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "context": 2}])
@pytest.mark.parametrize("config", [TINY, QWEN3], ids=["biases", "norms"])
def test_scores_and_generations_do_not_depend_on_the_mesh(config, axes):
    params, sharding = clear_params(config), Sharding(create_mesh(axes))
    laid = jax.device_put(params, parameter_shardings(config, sharding))
    one, mesh = Engine(config, Words()), Engine(config, Words(), sharding=sharding)
    requests = random_requests(5)
    for a, b in zip(one.score(params, requests), mesh.score(laid, requests), strict=True):
        # Sums down to -60 in other orders: the last bits of float32.
        assert a.logprob == pytest.approx(b.logprob, rel=5e-7, abs=1e-5)
    prompts = [GenerateRequest(request.context, 12) for request in requests[:3]]
    assert one.generate(params, prompts) == mesh.generate(laid, prompts)
    assert one.beam_search(params, prompts, beams=2) == mesh.beam_search(laid, prompts, beams=2)


def few_shot_requests(count, shots, seed=0):
    """Items after a beginning that all share, some of them with continuations of several tokens."""
    rng = np.random.default_rng(seed)
    beginning = rng.integers(0, 250, shots).tolist()
    requests = []
    for _ in range(count):
        context = beginning + rng.integers(0, 250, rng.integers(1, 40)).tolist()
        for _ in range(4):
            continuation = rng.integers(0, 250, rng.integers(1, 5)).tolist()
            requests.append(ScoreRequest(context, continuation))
    return requests


@settings(max_examples=6, deadline=None)
@given(
    shots=st.sampled_from([63, 64, 100, 130]),
    seed=st.integers(0, 99),
    tokens_per_batch=st.sampled_from([64, 512, 4096]),
)
def test_scores_do_not_depend_on_sharing_a_prefix(params, shots, seed, tokens_per_batch):
    requests = few_shot_requests(8, shots, seed)
    shared = Engine(TINY, Words(), tokens_per_batch=tokens_per_batch)
    apart = Engine(TINY, Words(), share_prefixes=False)
    first, second = shared.score(params, requests), apart.score(params, requests)
    assert any(name[0] == "extend" for name in shared.programs)
    for a, b in zip(first, second, strict=True):
        # Sums of up to 4 float32 log-probabilities near 6, two or three ulps each.
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)
        assert a.is_greedy == b.is_greedy


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_a_shared_prefix_on_a_mesh(params, axes):
    sharding = Sharding(create_mesh(axes))
    laid = jax.device_put(params, parameter_shardings(TINY, sharding))
    one, mesh = Engine(TINY, Words()), Engine(TINY, Words(), sharding=sharding)
    requests = few_shot_requests(9, 120)
    for a, b in zip(one.score(params, requests), mesh.score(laid, requests), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)
    prompts = [GenerateRequest(request.context, 5 + n % 7) for n, request in enumerate(requests)]
    assert one.generate(params, prompts) == mesh.generate(laid, prompts)
    assert any(name[0] == "extend" for name in mesh.programs)


def test_long_inputs_are_cut_on_the_left_and_counted(params):
    rng = np.random.default_rng(0)
    context, continuation = rng.integers(0, 250, 70).tolist(), rng.integers(0, 250, 5).tolist()
    engine = Engine(TINY, Words(), max_length=32)
    score = engine.score(params, [ScoreRequest(context, continuation)])[0]
    logprob, _ = expected(params, context[-28:], continuation)
    assert engine.truncated == 1
    assert score.logprob == pytest.approx(logprob, abs=1e-5)


def test_a_continuation_longer_than_a_row_is_scored_at_its_end(params):
    context, continuation = [7, 8, 9], list(range(20, 60))
    engine = Engine(TINY, Words(), max_length=16)
    (score,) = engine.score(params, [ScoreRequest(context, continuation)])
    logprob, _ = expected(params, continuation[-17:-16], continuation[-16:])
    assert engine.truncated == 1
    assert score.logprob == pytest.approx(logprob, abs=1e-4)


def greedy_by_hand(params, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(by_hand(params, ids)[-1][: Words.vocab_size].argmax()))
        if ids[-1] == Words.eos_id:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def test_greedy_generation_equals_recomputing_every_prefix(params):
    prompts = [[1], [9, 8, 7], list(range(40, 80))]
    requests = [GenerateRequest(prompt, 10) for prompt in prompts]
    for prompt, result in zip(
        prompts, Engine(TINY, Words()).generate(params, requests), strict=True
    ):
        assert list(result.ids) == greedy_by_hand(params, prompt, 10)
        assert max(result.ids, default=0) < Words.vocab_size


def test_generation_stops_before_a_stop_string(params):
    prompt = [9, 8, 7]
    free = Engine(TINY, Words()).generate(params, [GenerateRequest(prompt, 40)])[0]
    stop = free.text.split()[5]
    cut = Engine(TINY, Words()).generate(params, [GenerateRequest(prompt, 40, (stop,))])[0]
    assert cut.text == free.text[: free.text.find(stop)]
    # "4 7 " ends in a space, which the next word begins with: that word alone is too much.
    assert Words().decode(cut.ids).startswith(cut.text.strip())
    assert len(cut.ids) <= 6


class Letters:
    """A tokenizer of one-letter words and "xy", which a stop string may cut in two."""

    vocab_size, eos_id = 28, 27
    companions = Companions()

    def decode(self, ids):
        return "".join("xy" if i == 26 else chr(97 + i) for i in ids if i != self.eos_id)


@settings(deadline=None)
@given(st.lists(st.integers(0, 26), max_size=20), st.sampled_from(["c", "ya", "de", "x"]))
def test_ids_of_a_cut_text_end_with_it(params, ids, stop):
    engine = Engine(TINY, Letters())
    request = GenerateRequest([1], 20, (stop,))
    result, cut = engine.finish(request, ids)
    whole = Letters().decode(ids)
    assert cut == (stop in whole)
    assert result.text == (whole[: whole.find(stop)] if cut else whole)
    held = Letters().decode(result.ids)
    assert list(result.ids) == ids[: len(result.ids)]
    assert held.startswith(result.text)
    # Without its last token it would lack some of the text.
    assert not cut or not result.ids or len(Letters().decode(result.ids[:-1])) < len(result.text)


def test_other_ids_may_end_an_answer_which_says_whether_it_came_to_an_end(params):
    requests = [GenerateRequest([1 + n, 7], 12) for n in range(6)]
    whole = Engine(TINY, Words()).generate(params, requests)
    assert any(not answer.ended for answer in whole)
    end = next(answer for answer in whole if not answer.ended).ids[4]
    engine = Engine(TINY, Words(), end_ids=[end])
    for answer, before in zip(engine.generate(params, requests), whole, strict=True):
        cut = before.ids.index(end) if end in before.ids else None
        assert answer.ids == before.ids[:cut]
        assert answer.ended == (cut is not None or before.ended)
        # The token that ended it: the first of both.
        assert answer.end == (None if not answer.ended else Words.eos_id if cut is None else end)


def test_the_ends_of_a_generation_config_end_an_answer(params):
    request = GenerateRequest([1, 7], 12)
    (whole,) = Engine(TINY, Words()).generate(params, [request])
    words = Words()
    words.companions = Companions(generation={"eos_token_id": [whole.ids[6], whole.ids[4]]})
    first = min(whole.ids.index(whole.ids[6]), whole.ids.index(whole.ids[4]))
    (cut,) = Engine(TINY, words).generate(params, [request])
    assert (cut.ids, cut.end) == (whole.ids[:first], whole.ids[first])
    for wrong in ("<|im_end|>", [True], {"id": 3}):
        words.companions = Companions(generation={"eos_token_id": wrong})
        with pytest.raises(ValueError, match="eos_token_id of generation_config.json is"):
            Engine(TINY, words)


def test_rows_that_end_are_given_to_waiting_prompts(params):
    """Far more prompts than rows, of all lengths, with a beginning in common and without."""
    rng = np.random.default_rng(2)
    shared = rng.integers(0, 250, 80).tolist()
    requests = [
        GenerateRequest(
            (shared if n % 3 else []) + rng.integers(0, 250, rng.integers(1, 30)).tolist(),
            int(rng.integers(1, 50)),
        )
        for n in range(24)
    ]
    engine = Engine(TINY, Words(), tokens_per_batch=600)
    told = {}
    together = engine.generate(params, requests, ended=told.__setitem__)
    assert [told[number] for number in range(len(requests))] == together
    sizes = {name[1] for name in engine.programs if name[0] == "decode"}
    assert max(sizes) < len(requests)
    for request, result in zip(requests, together, strict=True):
        # One length for all rows, so that the plain model compiles once: what follows is not seen.
        row = [*request.prompt, *result.ids]
        best = by_hand(params, row + [0] * (192 - len(row)))[:, : Words.vocab_size].argmax(-1)
        following = best[len(request.prompt) - 1 : len(row)].tolist()
        assert following[:-1] == list(result.ids)
        assert len(result.ids) == request.max_new_tokens or following[-1] == Words.eos_id


def test_samples_depend_on_the_seed_and_not_on_the_batch(params):
    sampling = Sampling(temperature=1.0, top_k=50, top_p=0.9)
    engine = Engine(TINY, Words())
    requests = [GenerateRequest([n, n + 1], 12) for n in range(6)]
    together = engine.generate(params, requests, sampling=sampling, seed=1)
    assert engine.generate(params, requests[:1], sampling=sampling, seed=1)[0] == together[0]
    assert engine.generate(params, requests, sampling=sampling, seed=2) != together


def test_programs_stay_few(params):
    engine = Engine(TINY, Words(), tokens_per_batch=1024)
    engine.score(params, random_requests(60, seed=5))
    assert len(engine.programs) <= 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoreRequest([], [1]), "context is empty"),
        (lambda: ScoreRequest([1], []), "continuation is empty"),
        (lambda: GenerateRequest([], 4), "prompt is empty"),
        (lambda: GenerateRequest([1], 0), "max_new_tokens is 0"),
        (lambda: Sampling(temperature=-1), "temperature is -1"),
        (lambda: Sampling(top_p=0), "top_p is 0"),
    ],
)
def test_senseless_requests_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
