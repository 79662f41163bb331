"""Few-shot translation prompts, and the split of tokens into context and continuation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from marco_jax.data.corpus import Pair
from marco_jax.languages import get_language
from marco_jax.tokenizers.tokenizer import Tokenizer

# The "text" template of the paper's translation data (Table 13); shots are joined by a blank line.
TEMPLATE = "{source_language} text: {source}\n{target_language} text:"
DELIMITER = " "
SHOT_DELIMITER = "\n\n"

# Characters that a shot's source has at least, and each of its sides at most: shorter texts are
# labels that demonstrate little, longer ones fill the sequence.
SHOT_CHARACTERS = (12, 80)

T = TypeVar("T")


class PairSource(Protocol):
    """The corpus interface that prompts need."""

    def pairs(self, source_language: str, target_language: str, split: str) -> list[Pair]:
        """Translation pairs of a split, "train" or "held_out"."""
        ...


def seeded_order(items: Iterable[T], key: Callable[[T], str], seed: int) -> list[T]:
    """Sorts items pseudo-randomly by their keys and a seed, whatever order they come in.

    The first n of a list are among the first m > n, so a larger evaluation contains a smaller one.
    """

    def rank(item: T) -> bytes:
        return hashlib.sha256(f"{seed}\0{key(item)}".encode()).digest()

    return sorted(items, key=rank)


def fold(text: str) -> str:
    """A text without differences of case and spacing, for comparisons."""
    return " ".join(text.casefold().split())


def usable_pairs(pairs: Iterable[Pair], max_characters: int) -> list[Pair]:
    """Keeps pairs that make good items: one line per side, sides that differ, no side twice."""
    kept, sources, targets = [], set(), set()
    for pair in sorted(pairs, key=lambda pair: (pair.key, pair.target)):
        source, target = fold(pair.source), fold(pair.target)
        if not source or not target or source == target:
            continue
        if not all(_is_one_line(text, max_characters) for text in (pair.source, pair.target)):
            continue
        if source in sources or target in targets:
            continue
        sources.add(source)
        targets.add(target)
        kept.append(pair)
    return kept


def _is_one_line(text: str, max_characters: int) -> bool:
    return len(text.strip().splitlines()) == 1 and len(text) <= max_characters


def held_out_pairs(corpus: PairSource, source: str, target: str, max_characters: int) -> list[Pair]:
    """The held-out pairs that a translation task asks about, sorted by key."""
    return usable_pairs(corpus.pairs(source, target, "held_out"), max_characters)


def choose_shots(corpus: PairSource, source: str, target: str, count: int, seed: int) -> list[Pair]:
    """Chooses the shots of a language's prompts: training pairs whose sides are not held out.

    Pairs within SHOT_CHARACTERS come first, in seeded order, then the others, shortest first.

    Raises:
        ValueError: the training split has fewer than `count` usable pairs.
    """
    if not count:
        return []
    held_out = corpus.pairs(source, target, "held_out")
    excluded = {fold(text) for pair in held_out for text in (pair.source, pair.target)}
    pool = [
        pair
        for pair in usable_pairs(corpus.pairs(source, target, "train"), max_characters=1000)
        if fold(pair.source) not in excluded and fold(pair.target) not in excluded
    ]
    if len(pool) < count:
        raise ValueError(
            f"shots is {count}: only {len(pool)} training pairs {source}-{target} can be shown, "
            "set fewer shots"
        )
    shortest, longest = SHOT_CHARACTERS

    def misfit(pair: Pair) -> int:
        characters = max(len(pair.source), len(pair.target))
        return 0 if len(pair.source) >= shortest and characters <= longest else characters

    return sorted(seeded_order(pool, lambda pair: pair.key, seed), key=misfit)[:count]


def translation_prompt(shots: Sequence[Pair], pair: Pair) -> str:
    """The text before the translation of `pair`; it ends without a space."""
    return SHOT_DELIMITER.join([*_solved(shots), _question(pair)])


def translation_premise(shots: Sequence[Pair], pair: Pair) -> str:
    """The prompt of `pair` without the sentence to translate: the question's last line alone."""
    return SHOT_DELIMITER.join([*_solved(shots), _question(pair).rpartition("\n")[2]])


def _solved(shots: Sequence[Pair]) -> list[str]:
    return [f"{_question(shot)}{DELIMITER}{shot.target.strip()}" for shot in shots]


def _question(pair: Pair) -> str:
    return TEMPLATE.format(
        source_language=get_language(pair.source_language).name,
        target_language=get_language(pair.target_language).name,
        source=pair.source.strip(),
    )


def encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Encodes a context and the continuation to score.

    Follows lm-evaluation-harness (`TemplateLM._encode_pair`): whitespace at the end of the
    context moves to the continuation, both are encoded together, and the tokens past the
    length of the encoded context are the continuation. An empty context becomes EOS.

    Raises:
        ValueError: no token is left for the continuation.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if kept:
        context_ids = tokenizer.encode(kept)
        continuation_ids = tokenizer.encode(kept + continuation)[len(context_ids) :]
    else:
        context_ids, continuation_ids = [tokenizer.eos_id], tokenizer.encode(continuation)
    if not continuation_ids:
        raise ValueError(
            f"continuation {continuation!r} has no tokens of its own after {context[-40:]!r}: "
            "start it with a space"
        )
    return context_ids, continuation_ids
