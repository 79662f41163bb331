"""Which held-out pairs the translation tasks ask about, and which options they offer."""

from __future__ import annotations

from collections.abc import Sequence

from marco_jax.data.corpus import Pair
from marco_jax.evaluation.few_shot import seeded_order, translation_premise, translation_prompt
from marco_jax.evaluation.suites import ChoiceItem

OPTIONS = 4


def pick_items(
    pairs: Sequence[Pair], shots: Sequence[Pair], examples: int | None, seed: int
) -> list[ChoiceItem]:
    """Items "which of four texts translates this English one?", all of one target language.

    Pairs are sorted by the bytes of their translation and cut in blocks of four; the four
    translations of a block are the options of its four items. So options differ little in
    length, and each is the right answer exactly once: whoever does not read the English text is
    right in one item of four, whatever else they know about the options. Messages are taken as
    they are: a name, a number or a placeholder that a translation repeats is part of what tells
    the options apart, and the first thing that a small model learns to read.

    Args:
        pairs: held-out pairs with distinct sides.
        shots: solved examples of every prompt.
        examples: how many items to keep, rounded down to whole blocks (at least one).
        seed: of the choice of blocks and of the order of options.
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
    )


def translation_items(
    pairs: Sequence[Pair], shots: Sequence[Pair], examples: int | None, seed: int
) -> tuple[list[str], list[str]]:
    """Prompts and reference translations of up to `examples` pairs, in seeded order."""
    chosen = seeded_order(pairs, lambda pair: pair.key, seed)[:examples]
    prompts = [translation_prompt(shots, pair) for pair in chosen]
    return prompts, [pair.target.strip() for pair in chosen]
