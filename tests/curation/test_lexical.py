"""Wrong pairs are found by a lexicon that is trained on the pairs themselves."""

import random

from marco_jax.curation.joins import train_lexicon
from marco_jax.curation.lexical import Lexicon
from marco_jax.curation.stages import Job


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
    assert Lexicon.train(known[:500], ("en", "de")) is None
    trained = Lexicon.train(known, ("en", "de"))
    trained.save(tmp_path / "lexicon.json")
    lexicon = Lexicon.load(tmp_path / "lexicon.json")
    assert lexicon == trained and Lexicon.load(tmp_path / "none.json") is None
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


def test_a_lexicon_is_trained_on_given_pairs_of_the_same_languages(tmp_path):
    names = [f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}word" for n in range(400)]
    lines = [f"{a} {b}\t{a[::-1]} {b[::-1]}" for a in names[:40] for b in names[:40]]
    (tmp_path / "known.en-de.tsv").write_text("\n".join([*lines, "no pair"]), encoding="utf-8")
    (tmp_path / "known.en-fr.tsv").write_text("\n".join(lines[:50]), encoding="utf-8")
    job = Job(tmp_path / "work", {"lexicon_pairs": f" {tmp_path}/known.en-*.tsv, "})
    for languages in ("en-de", "en-fr"):
        train_lexicon(languages, job)
    found = [path.stem for path in (tmp_path / "work" / "lexicons").glob("*")]
    assert found == ["en-de"]
    lexicon = Lexicon.load(tmp_path / "work" / "lexicons" / "en-de.json")
    assert lexicon.similarity("aaword baword", "drowaa drowab") > 0.9
