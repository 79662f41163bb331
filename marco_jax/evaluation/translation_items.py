"""Items of the built-in translation tasks, made from held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence

from marco_jax.data.corpus import Pair
from marco_jax.evaluation.few_shot import seeded_order, translation_premise, translation_prompt
from marco_jax.evaluation.suites import ChoiceItem

OPTIONS = 4


def pick_items(
    pairs: Sequence[Pair], shots: Sequence[Pair], examples: int | None, seed: int
) -> list[ChoiceItem]:
    """Makes multiple-choice items: which of four texts translates an English one?

    Pairs are sorted by the byte length of their translation and cut into blocks of four; the four
    translations of a block are the options of its four items. So options have similar lengths, and
    each is the right answer exactly once: a model that ignores the English text is right in one
    item of four, whatever it knows about the options. Names, numbers and placeholders that a
    translation repeats are kept: they distinguish options, and small models learn them first.

    Args:
        pairs: held-out pairs with distinct sides, all of one target language.
        shots: shots of every prompt.
        examples: number of items to keep, rounded down to whole blocks (at least one).
        seed: seed of the choice of blocks and of the order of options.
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
