"""How a written answer is compared with right ones: spans, numbers and mathematics."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import string
import sys
import unicodedata
from collections.abc import Mapping, Sequence

# Scripts that put no spaces between words: Chinese characters, kana, Thai, Lao, Burmese, Khmer.
_UNSPACED = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
# The range that MLQA's own script takes for Chinese.
_MLQA_CHINESE = re.compile("[\u4e00-\u9fa5]")

_ENGLISH = r"\b(a|an|the)\b"
_ARABIC = r"(?:^|\s)ال"


@dataclasses.dataclass(frozen=True)
class SpanRules:
    """What a benchmark's own script leaves out before it compares spans.

    Attributes:
        articles: by language, a pattern of words that do not count.
        segmented: languages in which every Chinese character is a word.
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
    """The words of an answer that count: lower case, no punctuation, no articles.

    `segmented` makes words of the characters of every script without spaces, in any language.
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
    """Harmonic mean of precision and recall of words, against the nearest reference."""
    given = words(answer, language, rules, segmented=segmented)

    def against(reference: str) -> float:
        right = words(reference, language, rules, segmented=segmented)
        common = sum((collections.Counter(given) & collections.Counter(right)).values())
        if not common:
            return 0.0
        precision, recall = common / len(given), common / len(right)
        return 2 * precision * recall / (precision + recall)

    return max(map(against, references))


def exact_match(answer: str, references: Sequence[str], language: str, rules: SpanRules) -> float:
    """1 where the words are those of a reference, else 0."""
    given = words(answer, language, rules)
    return float(any(given == words(reference, language, rules) for reference in references))


def spans(answer: str) -> list[str]:
    """Where in a wordy answer the span may stand: all of it, a line, a quotation, after a colon.

    For a variant of F1 that forgives "The answer is: X." and X in quotes; as the best of these
    counts, it is an upper bound for models that do not keep to the form.
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
    """The last number of a text, as lm-evaluation-harness's flexible-extract finds it."""
    matches = list(_NUMBER.finditer(text))
    return matches[-1][0].strip() if matches else _INVALID


def number_in(text: str, sentence: str) -> str:
    """The number where a sentence such as "The answer is {}" has its braces (strict-match)."""
    before, _, after = sentence.partition("{}")
    match = re.search(rf"{re.escape(before)}(-?[0-9.,]+){re.escape(after)}", text)
    return match[1].strip() if match else _INVALID


def same_number(answer: str, references: Sequence[str]) -> float:
    """1 where two texts differ in case and ASCII punctuation at most, else 0."""
    drop = str.maketrans("", "", string.punctuation)

    def fold(text: str) -> str:
        return text.lower().translate(drop)

    return float(any(fold(answer) == fold(reference) for reference in references))
