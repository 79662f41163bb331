"""Pairs of a corpus as conversations that ask for a translation, and what models make of them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.corpus import Corpus
from marco_jax.data.texts import Pair
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, Generation, Sampling
from marco_jax.evaluation.metrics import chrf, is_in_language, mean
from marco_jax.evaluation.ranking import PairWriter, rank, usable
from marco_jax.evaluation.scorers import load_scorer
from marco_jax.files import write_json, write_json_lines
from marco_jax.languages import LANGUAGES
from marco_jax.model.parameters import Params
from marco_jax.tokenizers.chat_templates import ChatTemplate

# Characters of either side: interface messages of a line, which a small model can learn.
SHORTEST, LONGEST = 4, 60
NEW_TOKENS = 48


def short_pairs(corpus: Corpus, split: str, each: int, seed: int) -> list[Pair]:
    """Up to `each` pairs from English to every other language, drawn with `seed`."""
    chosen = []
    for code in LANGUAGES:
        if code == "en":
            continue
        found = [pair for pair in corpus.pairs("en", code, split) if _is_short(pair)]
        order = np.random.default_rng([seed, len(chosen)]).permutation(len(found))
        chosen += [found[number] for number in order[:each]]
    return chosen


def _is_short(pair: Pair) -> bool:
    sides = (pair.source.strip(), pair.target.strip())
    return all(SHORTEST <= len(side) <= LONGEST and "\n" not in side for side in sides)


def request(pair: Pair) -> str:
    """What the user says."""
    return f"Translate to {LANGUAGES[pair.target_language].name}: {pair.source.strip()}"


def conversation(pair: Pair) -> dict[str, Any]:
    """A record of a source of kind "chat"."""
    return chat_record(pair.target_language, request(pair), pair.target.strip())


def chat_record(language: str, prompt: str, answer: str) -> dict[str, Any]:
    """A record of a source of kind "chat", of one prompt and its answer."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"language": language, "messages": messages}


def prompt_record(pair: Pair) -> dict[str, Any]:
    """A record of a source of kind "prompt", and a row of `marco generate --pairs`."""
    language, reference = pair.target_language, pair.target.strip()
    return {"language": language, "prompt": request(pair), "reference": reference}


def translate(
    engine: Engine,
    params: Params,
    pairs: Sequence[Pair],
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[str]:
    """What a model answers to each request, greedy by default."""
    tokenizer = engine.tokenizer
    template = ChatTemplate.of(tokenizer)
    asked = (template.prompt([{"role": "user", "content": request(p)}]) for p in pairs)
    requests = [GenerateRequest(tokenizer.encode(text), NEW_TOKENS) for text in asked]
    found = engine.generate(params, requests, sampling=sampling, seed=seed)
    return [generation.text.strip() for generation in found]


def scores(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, Any]:
    """chrF++ over all sentences, its mean over languages, and how many are in their language."""
    references = [pair.target.strip() for pair in pairs]
    own, rates = {}, []
    for code in dict.fromkeys(pair.target_language for pair in pairs):
        numbers = [n for n, pair in enumerate(pairs) if pair.target_language == code]
        answered = [answers[n] for n in numbers]
        own[code] = chrf(answered, [references[n] for n in numbers]).value
        rates.append(mean([float(is_in_language(text, code)) for text in answered]).value)
    whole = chrf(answers, references)
    return {
        "chrf": whole.value,
        "stderr": whole.stderr,
        "chrf_of_languages": float(np.mean(list(own.values()))),
        "language_rate": float(np.mean(rates)),
        "characters": float(np.mean([len(answer) for answer in answers])),
        "by_language": own,
    }


def ranked(
    pairs: Sequence[Pair], draws: Sequence[Sequence[str]], least: float
) -> list[dict[str, Any]]:
    """Records of a source of kind "preference": the best and the worst of the answers to each pair.

    A draw has an answer to every pair. Answers are ranked by the chrF++ of the sentence; pairs
    that differ by less than `least` are left out.
    """
    samples = []
    for pair, own in zip(pairs, zip(*draws, strict=True), strict=True):
        samples.append(usable(prompt_record(pair), [Generation((), text) for text in own]))
    write = PairWriter(least)
    found = [
        write({"row": sample.row, "prompt": sample.row["prompt"], "ranked": answers})
        for sample, answers in zip(samples, rank(samples, load_scorer("chrf++")), strict=True)
    ]
    return [row for row in found if row is not None]


def write_source(
    path: pathlib.Path, name: str, kind: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Writes rows as JSONL beside a declaration, `path`, of the source that they are."""
    write_json_lines(path.with_suffix(".jsonl"), rows)
    source = {"name": name, "kind": kind, "files": path.with_suffix(".jsonl").name, "held_out": 0.0}
    write_json(path, {"sources": [source]})
