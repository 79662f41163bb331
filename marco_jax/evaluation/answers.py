"""Compares generated answers with references: F1 and exact match of spans, and numbers."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import string
import sys
import unicodedata
from collections.abc import Mapping, Sequence

# Scripts without spaces between words: Chinese characters, kana, Thai, Lao, Burmese, Khmer.
_UNSPACED = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
# The range that MLQA's evaluation script treats as Chinese.
_MLQA_CHINESE = re.compile("[\u4e00-\u9fa5]")

_ENGLISH = r"\b(a|an|the)\b"
_ARABIC = r"(?:^|\s)ال"


@dataclasses.dataclass(frozen=True)
class SpanRules:
    """How a benchmark's evaluation script normalises answers before it compares spans.

    `articles` are patterns by language, whose matches are removed; `segmented` names languages in
    which every Chinese character is a word.
    """

    articles: Mapping[str, str]
    segmented: tuple[str, ...] = ()


# TyDi QA as lm-evaluation-harness scores it; MLQA's evaluation script.
SPAN_RULES = {
    "tydiqa": SpanRules({"en": _ENGLISH, "ar": _ARABIC}),
    "mlqa": SpanRules(
        {
            "en": _ENGLISH,
            "ar": _ARABIC,
            "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
            "vi": r"\b(của|là|cái|chiếc|những)\b",
            "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
        },
        segmented=("zh",),
    ),
}


@functools.cache
def _punctuation() -> dict[int, None]:
    every = (c for c in range(sys.maxunicode) if unicodedata.category(chr(c)).startswith("P"))
    return dict.fromkeys([*every, *map(ord, string.punctuation)])


def words(text: str, language: str, rules: SpanRules, *, segmented: bool = False) -> list[str]:
    """Splits an answer into the words that are compared: lower case, no punctuation or articles.

    `segmented` splits every script without spaces into characters, in any language.
    """
    text = text.lower().translate(_punctuation())
    if language in rules.articles:
        text = re.sub(rules.articles[language], " ", text)
    if segmented:
        text = _UNSPACED.sub(lambda match: f" {match[0]} ", text)
    elif language in rules.segmented:
        text = _MLQA_CHINESE.sub(lambda match: f" {match[0]} ", text)
    return text.split()


def f1(
    answer: str,
    references: Sequence[str],
    language: str,
    rules: SpanRules,
    *,
    segmented: bool = False,
) -> float:
    """F1 of words (harmonic mean of precision and recall), against the nearest reference."""
    given = words(answer, language, rules, segmented=segmented)

    def against(reference: str) -> float:
        expected = words(reference, language, rules, segmented=segmented)
        common = sum((collections.Counter(given) & collections.Counter(expected)).values())
        if not common:
            return 0.0
        precision, recall = common / len(given), common / len(expected)
        return 2 * precision * recall / (precision + recall)

    return max(map(against, references))


def exact_match(answer: str, references: Sequence[str], language: str, rules: SpanRules) -> float:
    """1 if the words equal those of a reference, else 0."""
    given = words(answer, language, rules)
    return float(any(given == words(reference, language, rules) for reference in references))


def spans(answer: str) -> list[str]:
    """Candidate spans in a wordy answer: all of it, its first line, quotations, text after a colon.

    F1 of the best candidate forgives "The answer is: X." and X in quotes. It is an upper bound
    for models that do not answer in the expected form.
    """
    lines = [line for line in answer.strip().splitlines() if line.strip()]
    first = lines[0] if lines else ""
    found = [answer, first]
    found += re.findall(r"[\"“«„「『]([^\"”»“」』]+)[\"”»“」』]", answer)
    found += [first.rpartition(mark)[2] for mark in (":", "：") if mark in first]
    found += [re.split(r"[.。।؟?!！？]\s*", first, maxsplit=1)[0]]
    return list(dict.fromkeys(span.strip() for span in found if span.strip())) or [""]


_INVALID = "[invalid]"
_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def last_number(text: str) -> str:
    """The last number in a text, as lm-evaluation-harness's flexible-extract finds it."""
    matches = list(_NUMBER.finditer(text))
    return matches[-1][0].strip() if matches else _INVALID


def number_in(text: str, sentence: str) -> str:
    """The number in a sentence such as "The answer is {}", as in the harness's strict-match."""
    before, _, after = sentence.partition("{}")
    match = re.search(rf"{re.escape(before)}(-?[0-9.,]+){re.escape(after)}", text)
    return match[1].strip() if match else _INVALID


def same_number(answer: str, references: Sequence[str]) -> float:
    """1 if the answer equals a reference but for case and ASCII punctuation, else 0."""
    drop = str.maketrans("", "", string.punctuation)

    def fold(text: str) -> str:
        return text.lower().translate(drop)

    return float(any(fold(answer) == fold(reference) for reference in references))
