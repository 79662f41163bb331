"""Makes the table of words that tell Malay from Indonesian, or measures what it tells apart.

    pip install wordfreq
    python -m benchmarks.curation.malay_words --write
    python -m benchmarks.curation.malay_words [--corpora=DIR]

The table is made of the word frequencies of wordfreq (encyclopedias, subtitles, news, books, the
web and messages). Measured, on text that is not among these, is the share of sentences that are
identified as what they are, by source and length. Most of the web sentences that leipzig_sentences
names Malay are Indonesian, with words such as `karena`, `bahwa` and `bisa`: `claimed_malay` has
how many of them have at least four nats of evidence for either language.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks.common import print_json, read_flags
from benchmarks.curation.readers import CORPORA, lines, rows
from marco_jax.curation import malay
from marco_jax.curation.language import LINE_EVIDENCE, identify
from marco_jax.ngrams import normalized_words

# Words, which are the ones with most weight: frequency times log-odds.
WORDS = 10_000
# wordfreq lists words down to this frequency.
RAREST = 1e-6
# The share of Malay words that Indonesian text of the lists has, by words that are only Malay.
MIXED = 0.015
# Nats by which frequencies of common words differ for kinds of text, rather than languages.
KINDS = 0.6
LARGEST = 6.0
SOURCES = {
    "ms": {
        "news": "ntrex128/mono/ms.txt",
        "articles": "opensource_guide/docs/ms.jsonl",
        "talk": "tatoeba/parallel/en-ms.tsv",
        "browser": "firefox_l10n/parallel/en-ms.tsv",
    },
    "id": {
        "news": "ntrex128/mono/id.txt",
        "articles": "opensource_guide/docs/id.jsonl",
        "talk": "tatoeba/parallel/en-id.tsv",
        "web": "leipzig_sentences/mono/id.txt",
        "help": "gnome_user_docs/parallel/en-id.tsv",
        "commands": "tldr/parallel/en-id.tsv",
    },
}
CLAIMED_MALAY = "leipzig_sentences/mono/ms.txt"
HEADER = """\
# Log-odds (nats) of words for Malay over Indonesian, rounded; made by
# benchmarks/curation/malay_words.py out of the word frequencies of wordfreq 3
# (Robyn Speer, https://doi.org/10.5281/zenodo.7199437; its sources: Wikipedia, OpenSubtitles by way
# of OPUS 2018, and others). Licence of this file: CC BY-SA 4.0.
"""


def log_odds() -> dict[str, float]:
    """The words of the table and their log-odds (nats); positive for Malay."""
    from wordfreq import get_frequency_dict

    first, second = (get_frequency_dict(code, wordlist="small") for code in ("ms", "id"))
    scores, weights = {}, {}
    for word in first.keys() | second.keys():
        if not word.isalpha() or len(word) < 2 or normalized_words(word) != [word]:
            continue
        ours = first.get(word, 0.0)
        others = max(0.0, second.get(word, 0.0) - MIXED * ours)
        score = math.log((ours + RAREST) / (others + RAREST))
        score = math.copysign(max(0.0, min(LARGEST, abs(score)) - KINDS), score)
        scores[word] = round(score, 1)
        weights[word] = abs(score) * (ours + second.get(word, 0.0))
    chosen = sorted(scores, key=lambda word: (-weights[word], word))[:WORDS]
    return {word: scores[word] for word in chosen if scores[word]}


def write_table(path: pathlib.Path) -> None:
    """Writes a line for each score, with its words."""
    by_score: dict[float, list[str]] = {}
    for word, score in log_odds().items():
        by_score.setdefault(score, []).append(word)
    table = [f"{score} {' '.join(sorted(by_score[score]))}\n" for score in sorted(by_score)]
    path.write_text(HEADER + "".join(table), encoding="utf-8")


def sentences(path: pathlib.Path) -> list[str]:
    """Sentences of a file, or lines of its documents; at most a thousand."""
    if path.suffix == ".jsonl":
        found = [line for row in rows(path) for line in row["text"].split("\n")]
        return [line for line in found if len(line) > 25][:1000]
    return [line.split("\t")[-1] for line in lines(path) if line][:1000]


def _share(found: list[str], right: Callable[[str], bool]) -> str:
    return f"{sum(map(right, found)) / len(found):.3f} of {len(found)}" if found else "none"


def measure(corpora: pathlib.Path) -> dict[str, Any]:
    """Shares of sentences that are identified as what they are."""
    answer: dict[str, Any] = {}
    for code, sources in SOURCES.items():
        for name, path in sources.items():
            found = sentences(corpora / path)
            lengths = {"below 60": (0, 60), "60 to 150": (60, 151), "longer": (151, 1 << 30)}
            answer[f"{code} {name}"] = {
                "all": _share(found, lambda text, code=code: identify(text) == code)
            } | {
                key: _share(
                    [text for text in found if low <= len(text) < high],
                    lambda text, code=code: identify(text) == code,
                )
                for key, (low, high) in lengths.items()
            }
    web = [malay.malay_evidence(text) for text in sentences(corpora / CLAIMED_MALAY)]
    answer["claimed_malay"] = {
        "sentences": len(web),
        "evidence of Malay": sum(score >= LINE_EVIDENCE for score in web),
        "evidence of Indonesian": sum(score <= -LINE_EVIDENCE for score in web),
    }
    return answer


if __name__ == "__main__":
    flags = read_flags(
        __doc__, corpora=(CORPORA, "their folder"), write=(False, "make the table instead")
    )
    if flags.write:
        write_table(pathlib.Path(malay.__file__).with_name(malay.TABLE))
    else:
        print_json(measure(flags.corpora))
