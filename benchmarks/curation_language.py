"""How often curation names the language of a sentence, beside the two identifiers it asks.

    python -m benchmarks.curation_language --corpora=../shared/corpora

Sentences of the 29 languages by source: news (NTREX), the Declaration of Human Rights, web
sentences (Leipzig) and short everyday ones (Tatoeba). No claim is given, and the answer may be any
language the identifiers know. A source is read in two halves, first every other line and then the
rest, so that a figure that one half alone has is seen. Printed, as JSON: the share that is right by
source, by language over news and the Declaration (for the table of identifiers there), for pairs of
languages that are written alike the share of one taken for the other, and sentences a second.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import time
from collections.abc import Callable, Iterator

import py3langid
import pycld2

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
ALSO = ("hi", "sk")
# Headings of the Declaration, "Article 3", are in several languages at once.
SHORTEST = {"news": 4, "declaration": 40, "web": 4, "short": 4}
DENSE = frozenset({"zh", "ja", "ko"})
SOURCES = ("news", "declaration", "web", "short")
_CODES = {"zh-Hant": "zh", "iw": "he"}

Identifier = Callable[[str], str]


def sentences(corpora: pathlib.Path, source: str, code: str) -> list[str]:
    """Texts of one source in a language, none twice."""
    if source == "short":
        path = corpora / "tatoeba" / "parallel" / f"en-{code}.tsv"
        lines = [line.split("\t")[-1] for line in _lines(path)]
    else:
        name = DECLARATION.get(code, code) if source == "declaration" else code
        folder = {"news": "ntrex128", "declaration": "udhr", "web": "leipzig_sentences"}[source]
        lines = _lines(corpora / folder / "mono" / f"{name}.txt")
    least = SHORTEST[source] // (2 if code in DENSE else 1)
    return [line for line in dict.fromkeys(lines) if len(line) >= least]


def _lines(path: pathlib.Path) -> list[str]:
    if not path.exists():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]


def _py3langid(text: str) -> str:
    return {"wuu": "zh", "arz": "ar"}.get(code := str(py3langid.classify(text)[0]), code)


def _pycld2(text: str) -> str:
    try:
        code = pycld2.detect(text)[2][0][1]
    except pycld2.error:
        return ""
    return _CODES.get(code, code)


IDENTIFIERS: dict[str, Identifier] = {
    "curation": identify, "py3langid": _py3langid, "pycld2": _pycld2
}  # fmt: skip


def measured(corpora: pathlib.Path, most: int) -> Iterator[tuple[str, str, int, str, str, float]]:
    """Source, language, half, identifier, answer and seconds of each sentence."""
    for source in SOURCES:
        for code in (*LANGUAGES, *ALSO):
            for number, text in enumerate(sentences(corpora, source, code)[:most]):
                for name, identifier in IDENTIFIERS.items():
                    begin = time.perf_counter()
                    answer = identifier(text)
                    yield source, code, number % 2, name, answer, time.perf_counter() - begin


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    parser.add_argument("--most", type=int, default=400, help="sentences of a language and source")
    args = parser.parse_args()
    candidate_languages("warm")
    right: collections.Counter = collections.Counter()
    total: collections.Counter = collections.Counter()
    seconds: collections.Counter = collections.Counter()
    answers: collections.Counter = collections.Counter()
    for source, code, half, name, answer, spent in measured(args.corpora, args.most):
        keys = [("code", source, code)]
        if code in LANGUAGES:
            keys += [("source", source, ""), ("half", source, str(half))]
        for key in keys:
            right[name, key] += answer == code
            total[name, key] += 1
        seconds[name] += spent
        if name == "curation":
            answers[source, code, answer] += 1

    def share(name: str, *keys: tuple[str, str, str]) -> float:
        asked = sum(total[name, key] for key in keys)
        return round(sum(right[name, key] for key in keys) / max(1, asked), 4)

    formal = {
        code: {
            name: share(name, *(("code", source, code) for source in SOURCES[:2]))
            for name in IDENTIFIERS
        }
        for code in LANGUAGES
    }
    alike = {}
    for one, two in ((a, b) for pair in CLOSE for a, b in (sorted(pair), sorted(pair)[::-1])):
        found = {
            source: round(answers[source, one, two] / asked, 4)
            for source in SOURCES
            if (asked := total["curation", ("code", source, one)])
        }
        alike[f"{one} taken for {two}"] = found
    number = sum(n for (name, key), n in total.items() if name == "curation" and key[0] == "code")
    result = {
        "sentences": number,
        "by_source": {
            source: {name: share(name, ("source", source, "")) for name in IDENTIFIERS}
            for source in SOURCES
        },
        "halves_of_curation": {
            source: [share("curation", ("half", source, str(half))) for half in (0, 1)]
            for source in SOURCES
        },
        "news_and_declaration": formal,
        "lowest_by_source": {
            source: min((share("curation", ("code", source, code)), code) for code in LANGUAGES
                        if total["curation", ("code", source, code)])
            for source in SOURCES
        },
        "written_alike": alike,
        "sentences_per_second": {name: round(number / spent) for name, spent in seconds.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
