"""Wrong pairs are told by words learnt from the pairs themselves."""

import random

from marco_jax.curation.lexical import Lexicon


def test_a_lexicon_tells_translations_from_sentences_put_together_at_random(tmp_path):
    draw = random.Random(1)
    words = [("".join(draw.choices("abcdefgh", k=5)), "".join(draw.choices("klmnopq", k=5)))]
    words += [
        tuple("".join(draw.choices(s, k=5)) for s in ("abcdefgh", "klmnopq")) for _ in range(300)
    ]

    def pair() -> tuple[str, str]:
        chosen = draw.choices(words, k=8)
        target = [there for _, there in chosen]
        draw.shuffle(target)
        return " ".join(here for here, _ in chosen), " ".join(target)

    known = [pair() for _ in range(1500)]
    assert Lexicon.learnt(known[:500], ("en", "de")) is None
    learnt = Lexicon.learnt(known, ("en", "de"))
    learnt.save(tmp_path / "lexicon.json")
    lexicon = Lexicon.load(tmp_path / "lexicon.json")
    assert lexicon == learnt and Lexicon.load(tmp_path / "none.json") is None
    fresh = [pair() for _ in range(200)]
    good = [lexicon.similarity(*one) for one in fresh]
    # A word that two sentences share by chance is part of a translation.
    apart = [
        (source, target)
        for (source, own), (_, target) in zip(fresh, fresh[1:], strict=False)
        if not set(own.split()) & set(target.split())
    ]
    bad = [lexicon.similarity(*one) for one in apart]
    assert sum(value > 0.5 for value in good) > 190
    assert len(bad) > 100 and sum(value < 0.5 for value in bad) > 0.95 * len(bad)
