"""Few-shot translation prompts, and the items of the built-in translation tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from marco_jax.data.corpus import Corpus
from marco_jax.data.texts import Pair
from marco_jax.evaluation.generation_suites import Question
from marco_jax.evaluation.outcomes import item_key
from marco_jax.evaluation.suites import DELIMITER, ChoiceItem
from marco_jax.languages import get_language

# The "text" template of the paper's translation data (Table 13); shots are joined by a blank line.
TEMPLATE = "{source_language} text: {source}\n{target_language} text:"
SHOT_DELIMITER = "\n\n"

# Characters that a shot's source has at least, and each of its sides at most: shorter texts are
# labels that demonstrate little, longer ones fill the sequence.
SHOT_CHARACTERS = (12, 80)

# Options of a multiple-choice item.
OPTIONS = 4

T = TypeVar("T")


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
    """Sorts pairs and keeps good items: one line per side, sides that differ, no side twice."""
    kept, sources, targets = [], set(), set()
    for pair in sorted(pairs, key=lambda pair: (pair.key, pair.target)):
        source, target = fold(pair.source), fold(pair.target)
        if not source or not target or source == target:
            continue
        sides = (pair.source, pair.target)
        if any(len(text.strip().splitlines()) != 1 for text in sides):
            continue
        if max(map(len, sides)) > max_characters:
            continue
        if source in sources or target in targets:
            continue
        sources.add(source)
        targets.add(target)
        kept.append(pair)
    return kept


def choose_shots(corpus: Corpus, source: str, target: str, count: int, seed: int) -> list[Pair]:
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


def pick_items(
    pairs: Sequence[Pair], shots: Sequence[Pair], examples: int | None, seed: int
) -> list[ChoiceItem]:
    """Makes multiple-choice items: which of four texts translates an English one?

    Pairs are sorted by the byte length of their translation and cut into blocks of four; the four
    translations of a block are the options of its four items. So options have similar lengths, and
    each is the right answer exactly once: a model that ignores the English text is right in one
    item of four, whatever it knows about the options. Names, numbers and placeholders that a
    translation repeats are kept: they distinguish options, and small models learn them first.

    `pairs` are held-out pairs with distinct sides, all of one target language. `examples` is the
    number of items to keep, rounded down to whole blocks (at least one); `seed` decides the choice
    of blocks and the order of options.
    """
    by_length = sorted(pairs, key=lambda pair: (len(pair.target.strip().encode()), pair.key))
    blocks = [
        by_length[start : start + OPTIONS]
        for start in range(0, len(by_length) - OPTIONS + 1, OPTIONS)
    ]
    blocks = seeded_order(blocks, lambda block: block[0].key, seed)
    if examples is not None:
        blocks = blocks[: max(1, examples // OPTIONS)]
    return [_pick_item(pair, block, shots, seed) for block in blocks for pair in block]


def _pick_item(pair: Pair, block: Sequence[Pair], shots: Sequence[Pair], seed: int) -> ChoiceItem:
    shuffled = seeded_order(block, lambda option: f"{pair.key}\0{option.key}", seed)
    return ChoiceItem(
        context=translation_prompt(shots, pair),
        options=tuple(option.target.strip() for option in shuffled),
        gold=shuffled.index(pair),
        premise=translation_premise(shots, pair),
        cluster=block[0].key,
        key=item_key(pair.source, pair.target),
    )


def translation_items(
    pairs: Sequence[Pair],
    shots: Sequence[Pair],
    examples: int | None,
    seed: int,
    max_new_tokens: int,
) -> list[Question]:
    """Asks for the translation of up to `examples` pairs, in seeded order."""
    chosen = seeded_order(pairs, lambda pair: pair.key, seed)[:examples]
    return [
        Question(
            translation_prompt(shots, pair),
            (pair.target.strip(),),
            max_new_tokens=max_new_tokens,
            key=item_key(pair.source, pair.target),
        )
        for pair in chosen
    ]
