"""The engine: batches requests for the compiled kernels and returns results in order.

Shared work is done once: a prefix that many requests have in common (the few-shot examples of a
task) is computed once, and requests with the same context share one row. Rows are padded to few
shapes, so that a whole suite compiles a bounded number of programs (`Engine.programs`). Results do
not depend on how requests are batched.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from marco_jax.decoding import kernels
from marco_jax.decoding.beam import search
from marco_jax.decoding.continuous import generate
from marco_jax.decoding.launcher import Launcher, SharedPrefix
from marco_jax.decoding.requests import GenerateRequest, Generation, Sampling, Score, ScoreRequest
from marco_jax.decoding.score_plans import plan_scoring
from marco_jax.decoding.score_rows import ScoreRow, ScoreShape, fill_rows, most_reads, pack_rows
from marco_jax.model.cpu import on_cpu
from marco_jax.model.parameters import Params
from marco_jax.tokenizers.tokenizer import Tokenizer


class Engine(Launcher):
    """Scores and generates with the parameters that each call receives, without copying them."""

    def score(
        self,
        params: Params,
        requests: Sequence[ScoreRequest],
        finished: Callable[[int], None] = lambda count: None,
    ) -> list[Score]:
        """Computes the log-probability of each continuation after its context, in request order.

        `finished` is called with the number of requests that have just been answered. An input
        longer than max_length + 1 tokens is cut on the left, as in lm-evaluation-harness.
        """
        rows, truncated = pack_rows(requests, self.max_length)
        self.truncated += truncated
        scores: list[Score | None] = [None] * len(requests)
        contexts = [row.context for row in rows]
        plan = plan_scoring(
            *(rows, self.groups_of(contexts), self.config),
            ways=self.runtime.row_ways,
            tokens_per_batch=self.tokens_per_batch,
            on_cpu=on_cpu(self.runtime.sharding),
            devices=self.runtime.sharding.mesh.size,
        )
        for group in plan:
            ids = group.batches[0][0][0].context[: group.length]
            prefix = self.compute_prefix(params, ids, group.slots)
            for batch in group.batches:
                answered = dict(self._score_batch(params, batch, prefix))
                for request, score in answered.items():
                    scores[request] = score
                finished(len(answered))
        return [score for score in scores if score is not None]

    def generate(
        self,
        params: Params,
        requests: Sequence[GenerateRequest],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        finished: Callable[[int], None] = lambda count: None,
        ended: Callable[[int, Generation], None] = lambda number, result: None,
        together: bool = False,
    ) -> list[Generation]:
        """Continues every prompt, in request order; greedy without `sampling`.

        A prompt that leaves no room for its new tokens is cut on the left. `finished` is called
        with the number of requests that have just been answered; `ended` with each of them, its
        number in `requests` and its result, while others are still generated. With `together`
        short and long requests are in one batch: fewer programs, more padding.

        Raises:
            ValueError: max_new_tokens leaves no room for a prompt.
        """
        sampling = sampling or Sampling()
        return generate(self, params, requests, sampling, seed, finished, ended, together)

    def beam_search(
        self,
        params: Params,
        requests: Sequence[GenerateRequest],
        *,
        beams: int,
        length_penalty: float = 1.0,
    ) -> list[Generation]:
        """Finds a likely continuation of each prompt with `beams` hypotheses, as `transformers`.

        Scores are divided by length ** length_penalty: values above 0 favour long continuations.

        Raises:
            ValueError: fewer than 2 beams, or max_new_tokens leaves no room for a prompt.
        """
        return search(self, params, requests, beams, length_penalty)

    def _score_batch(
        self, params: Params, batch: tuple[list[ScoreRow], ScoreShape], prefix: SharedPrefix
    ) -> Iterator[tuple[int, Score]]:
        rows, shape = batch
        host, starts = fill_rows(rows, prefix.length, shape)
        arrays = (self.put(array, by_rows=True) for array in host)
        used = self.put(np.int32(most_reads(rows, shape.ways)))
        arguments = (params, kernels.ScoreBatch(*arrays, used), prefix.prefix)
        name = ("score", *dataclasses.astuple(shape), prefix.slots)
        result = self.call(kernels.score, arguments, name)
        logprobs, greedy = np.asarray(result[0], np.float64), np.asarray(result[1])
        for row, start in zip(rows, starts, strict=True):
            for request, answer in zip(row.requests, row.answers, strict=True):
                index, target = np.transpose(answer)
                tokens = (start + index, target)
                yield request, Score(float(logprobs[tokens].sum()), bool(greedy[tokens].all()))


def bits_per_byte(
    engine: Engine, params: Params, tokenizer: Tokenizer, texts: Sequence[str]
) -> list[float]:
    """Computes the bits per byte of each text, with EOS as its context.

    A text longer than the engine's rows is cut at the end. An empty text has 0 bits.
    """
    requests, numbers, sizes = [], [], []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if not ids:
            continue
        size = len(text.encode("utf-8"))
        if len(ids) > engine.max_length:
            ids = ids[: engine.max_length]
            # The cut may divide a character, whose bytes are then not counted.
            size = len(tokenizer.decode(ids).rstrip("\ufffd").encode("utf-8"))
        requests.append(ScoreRequest([tokenizer.eos_id], ids))
        numbers.append(number)
        sizes.append(max(1, size))
    bits = [0.0] * len(texts)
    for number, size, score in zip(numbers, sizes, engine.score(params, requests), strict=True):
        bits[number] = -score.logprob / math.log(2) / size
    return bits
