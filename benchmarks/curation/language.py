"""How often curation names the language of a sentence, beside the two identifiers that it asks.

Sentences of the 29 languages by source: news (NTREX), the Declaration of Human Rights, web
sentences (Leipzig) and short everyday ones (Tatoeba). No claim is given, and the answer may be any
language that the identifiers know. The three identifiers take turns, a sentence each. Measured: the
share that is right by source, and by language over news and the Declaration; for pairs of languages
that are written alike, the share of one taken for the other; and sentences a second.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from typing import Any

import py3langid
import pycld2

from benchmarks.common import Times
from benchmarks.curation.readers import lines
from marco_jax.curation.language import CLOSE, candidate_languages, identify
from marco_jax.languages import LANGUAGES

# The Declaration's own names of versions in a language.
DECLARATION = {
    "ar": "arb", "az": "azj_latn", "cs": "ces", "de": "deu_1996", "el": "ell_monotonic",
    "en": "eng", "es": "spa", "fr": "fra", "he": "heb", "hu": "hun", "id": "ind", "it": "ita",
    "ja": "jpn", "kk": "kaz", "ko": "kor", "ms": "mly_latn", "ne": "nep", "nl": "nld", "pl": "pol",
    "pt": "por_BR", "ro": "ron_2006", "ru": "rus", "th": "tha", "tr": "tur", "uk": "ukr",
    "ur": "urd", "vi": "vie", "zh": "cmn_hans", "bn": "ben", "hi": "hin", "sk": "slk",
}  # fmt: skip
# Languages besides the 29 that some of them are taken for.
ALSO = ("hi", "sk")
DENSE = ("zh", "ja", "ko")
SOURCES = ("news", "declaration", "web", "short")


def sentences(corpora: pathlib.Path, source: str, code: str) -> list[str]:
    """Texts of one source in a language, none twice."""
    if source == "short":
        pairs = lines(corpora / "tatoeba" / "parallel" / f"en-{code}.tsv")
        found = [line.split("\t")[-1] for line in pairs]
    else:
        name = DECLARATION.get(code, code) if source == "declaration" else code
        folder = {"news": "ntrex128", "declaration": "udhr", "web": "leipzig_sentences"}[source]
        found = lines(corpora / folder / "mono" / f"{name}.txt")
    # Headings of the Declaration, "Article 3", are in several languages at once.
    least = (40 if source == "declaration" else 4) // (2 if code in DENSE else 1)
    return [line for line in dict.fromkeys(found) if len(line) >= least]


def _py3langid(text: str) -> str:
    return {"wuu": "zh", "arz": "ar"}.get(code := str(py3langid.classify(text)[0]), code)


def _pycld2(text: str) -> str:
    try:
        code = pycld2.detect(text)[2][0][1]
    except pycld2.error:
        return ""
    return {"zh-Hant": "zh", "iw": "he"}.get(code, code)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All shares."""
    identifiers = {"curation": identify, "py3langid": _py3langid, "pycld2": _pycld2}
    candidate_languages("warm")
    # (source, language) -> answers of each identifier.
    answers: dict[tuple[str, str], dict[str, collections.Counter[str]]] = {}
    times = {name: Times() for name in identifiers}
    for source in SOURCES:
        for code in (*LANGUAGES, *ALSO):
            counts = answers[source, code] = {name: collections.Counter() for name in identifiers}
            for text in sentences(args.corpora, source, code)[: args.most]:
                for name, identifier in identifiers.items():
                    answer = times[name].call(lambda call=identifier, text=text: call(text))
                    counts[name][answer] += 1

    def right(name: str, sources: tuple[str, ...], codes: tuple[str, ...]) -> float:
        cells = [(code, answers[source, code][name]) for source in sources for code in codes]
        total = sum(found.total() for _, found in cells)
        return round(sum(found[code] for code, found in cells) / max(1, total), 4)

    def taken(one: str, other: str) -> dict[str, float]:
        cells = {source: answers[source, one]["curation"] for source in SOURCES}
        return {s: round(f[other] / f.total(), 4) for s, f in cells.items() if f.total()}

    close = [tuple(order) for pair in CLOSE for order in (sorted(pair), sorted(pair)[::-1])]
    spent = {name: sum(found.seconds) for name, found in times.items()}
    number = len(times["curation"].seconds)
    every = tuple(LANGUAGES)
    return {
        "sentences": number,
        "by_source": {
            source: {name: right(name, (source,), every) for name in identifiers}
            for source in SOURCES
        },
        "news_and_declaration": {
            code: {name: right(name, SOURCES[:2], (code,)) for name in identifiers}
            for code in every
        },
        "written_alike": {f"{a} taken for {b}": taken(a, b) for a, b in close},
        "sentences_per_second": {name: round(number / s) for name, s in spent.items()},
    }
