"""How well curation tells sentence pairs that are translations from wrong ones of many kinds.

    python -m benchmarks.curation.pairs [--corpora=DIR] [--pairs=en-kk,en-zh]

The pairs of clean corpora are taken, and a part of each file is damaged: the target of the next
pair or of any pair, a second sentence or half of a side, exchanged columns, another language, an
untranslated copy, another number, boilerplate, and machine noise. A damaged pair replaces its good
one. Measured, for each pair of languages, are the share of wrong pairs that are removed, of each
kind too, the share of kept pairs that are good, and the share of good pairs that are kept, by the
rules, the removal of repeated sides and the judge that is trained on the file itself.
"""

from __future__ import annotations

import collections
import pathlib
import random
import sys
import time
from typing import Any

from benchmarks.common import print_json, read_flags
from benchmarks.curation.readers import CORPORA, lines
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.pair_judge import PairJudge
from marco_jax.curation.pair_rules import bad_pair
from marco_jax.ngrams import normalized_words

# Languages, corpora, number of pairs and share of wrong pairs.
FILES = {
    "en-kk": ("firefox_l10n", 1000, 0.3),
    "en-he": ("firefox_l10n", 300, 0.3),
    "en-ne": ("flores_v1_wiki,firefox_l10n", 5000, 0.4),
    "en-zh": ("bible_pd,ntrex128,tldr,tatoeba", 20_000, 0.3),
    "en-ja": ("ntrex128,tldr,tatoeba", 5000, 0.2),
    "en-th": ("tldr,tatoeba", 1000, 0.1),
    "en-ur": ("firefox_l10n,tatoeba", 1000, 0.5),
    "en-uk": ("gnome_user_docs,firefox_l10n", 5000, 0.2),
    "en-de": ("ntrex128,tldr", 300, 0.6),
    "kk-ru": ("ntrex128", 1000, 0.4),
    "az-tr": ("ntrex128", 1800, 0.3),
}
# The language that stands in for another.
STRANGE = {"he": "ar", "zh": "ja", "ja": "zh", "th": "vi", "ur": "ar", "de": "nl", "tr": "az"}
STRANGE |= {"ne": "hi", "hi": "ne", "ru": "uk", "et": "hu", "vi": "id", "sw": "ms", "ko": "ja"}
DAMAGES = ("neighbour", "random", "longer", "shorter", "swapped", "language", "copied", "number")
DAMAGES = (*DAMAGES, "boilerplate", "noise")

Pair = tuple[str, str]


def clean_pairs(corpora: pathlib.Path, languages: str, names: str) -> list[Pair]:
    """The pairs of corpora in two languages that have words on both sides, each side once."""
    found: list[Pair] = []
    one, two = languages.split("-")
    for name in names.split(","):
        files = sorted(corpora.glob(f"{name}/parallel/{languages}*.tsv"))
        for file in files:
            found += [tuple(line.split("\t")[:2]) for line in lines(file) if "\t" in line]
        if not files:
            mono = [lines(corpora / name / "mono" / f"{code}.txt") for code in (one, two)]
            found += list(zip(*mono, strict=True)) if all(mono) else []
    seen: set[str] = set()
    result = []
    for pair in found:
        sides = [" ".join(normalized_words(side)) for side in pair]
        if all(sides) and sides[0] != sides[1] and not seen & set(sides):
            seen.update(sides)
            result.append(pair)
    return result


def damaged(
    pair: Pair, kind: str, others: list[Pair], strange: list[str], draw: random.Random
) -> Pair | None:
    """A wrong pair made of a good one; None if it cannot have this damage."""
    source, target = pair
    if kind in ("neighbour", "random"):
        return source, (others[0] if kind == "neighbour" else draw.choice(others))[1]
    if kind == "longer":
        more = draw.choice(others)
        return draw.choice([(f"{source} {more[0]}", target), (source, f"{target} {more[1]}")])
    if kind == "shorter":
        return draw.choice([(_half(source), target), (source, _half(target))])
    if kind == "swapped":
        return target, source
    if kind == "language":
        return source, draw.choice(strange)
    if kind == "copied":
        return draw.choice([(source, source), (source, f"{source} {source[:6]}"), (target, target)])
    if kind == "number":
        return _renumbered(pair, draw)
    if kind == "boilerplate":
        return source, others[-draw.randint(1, 5)][1]
    return source, _noise(target, draw)


def _half(text: str) -> str:
    words = text.split()
    half = " ".join(words[: len(words) // 2]) if len(words) > 3 else text[: len(text) // 2]
    return half or text[:1]


def _renumbered(pair: Pair, draw: random.Random) -> Pair | None:
    source, target = pair
    runs = [run for run in normalized_words(target) if run.isdigit() and run.isascii()]
    runs = [run for run in runs if run in source and run in target]
    if not runs:
        return None
    run = draw.choice(runs)
    other = "".join(str((int(digit) + draw.randint(1, 8)) % 9 + 1) for digit in run)
    return (source, target.replace(run, other)) if other != run else None


def _noise(text: str, draw: random.Random) -> str:
    words = text.split() or [text]
    way = draw.randrange(3)
    if way == 0:
        return " ".join("".join(draw.sample(word, len(word))) for word in words)
    if way == 1:
        return " ".join([draw.choice(words)] * max(3, len(words)))
    return text.encode("utf-8").decode("latin-1")


def planted(
    corpora: pathlib.Path, languages: str, names: str, size: int, share: float, seed: int = 0
) -> list[tuple[Pair, str]]:
    """Pairs, each with the kind of its damage, "" for a good one, in random order."""
    draw = random.Random(f"{languages} {seed}")
    clean = clean_pairs(corpora, languages, names)
    # Sentences in a row stay in a row; the next pair's target is a likely mistake of alignment.
    start = draw.randrange(max(1, len(clean) - size))
    clean = clean[start : start + size] if size < len(clean) else clean
    code = languages.split("-")[1]
    strange = lines(corpora / "ntrex128" / "mono" / f"{STRANGE.get(code, 'ru')}.txt")
    wrong = set(draw.sample(range(len(clean)), round(share * len(clean))))
    rows: list[tuple[Pair, str]] = []
    for number, pair in enumerate(clean):
        if number not in wrong:
            rows.append((pair, ""))
            continue
        others = [*clean[number + 1 :][:50], *clean[-50:]]
        kind, made = "", None
        while made is None or made == pair:
            kind = draw.choice(DAMAGES)
            made = damaged(pair, kind, others, strange, draw)
        rows.append((made, kind))
    draw.shuffle(rows)
    return rows


def measure(rows: list[tuple[Pair, str]], languages: str) -> dict[str, Any]:
    """Judges planted pairs and compares the judgements with the damages."""
    codes = tuple(languages.split("-"))
    seen: set[tuple[int, str]] = set()
    left = []
    for pair, kind in rows:
        sides = set(enumerate(" ".join(normalized_words(side)) for side in pair))
        if not bad_pair(*pair, codes) and not seen & sides:
            seen |= sides
            left.append((pair, kind))
    begin = time.perf_counter()
    judge = PairJudge.train([pair for pair, _ in left[:20_000]], codes)
    trained = time.perf_counter()
    least = curation_config().pair_similarity
    kept = [(pair, kind) for pair, kind in left if judge.similarity(*pair) >= least]
    scored = time.perf_counter()
    total = collections.Counter(kind for _, kind in rows)
    after_rules = collections.Counter(kind for _, kind in left)
    held = collections.Counter(kind for _, kind in kept)
    bad = sum(total.values()) - total[""]
    return {
        "kind": judge.kind,
        "pairs": len(rows),
        "wrong": round(bad / len(rows), 4),
        "wrong_removed": round(1 - (len(kept) - held[""]) / bad, 4),
        "kept_that_are_good": round(held[""] / max(1, len(kept)), 4),
        "good_kept": round(held[""] / total[""], 4),
        "good_kept_by_rules": round(after_rules[""] / total[""], 4),
        "wrong_after_rules": round(1 - after_rules[""] / max(1, len(left)), 4),
        "wrong_after_rules_estimated": round(judge.wrong, 4),
        "removed_of_kind": {
            kind: f"{total[kind] - held[kind]} of {total[kind]}" for kind in DAMAGES if total[kind]
        },
        "seconds_to_train": round(trained - begin, 1),
        "pairs_a_second": round(len(left) / (scored - trained)),
    }


if __name__ == "__main__":
    flags = read_flags(
        __doc__, corpora=(CORPORA, "their folder"), pairs=(tuple(FILES), "pairs of languages")
    )
    if unknown := set(flags.pairs) - set(FILES):
        sys.exit(f"--pairs={','.join(sorted(unknown))}: choose from {','.join(FILES)}")
    print_json(
        {name: measure(planted(flags.corpora, name, *FILES[name]), name) for name in flags.pairs}
    )
