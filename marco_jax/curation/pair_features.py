"""Measures what two sentences share on the surface: length, punctuation, numbers, names, letters.

No measurement needs to know the languages: names are compared by consonants across scripts, and
the usual lengths and letters of both columns are taken from the pairs themselves.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from marco_jax.curation.pair_rules import numbers_of, unmatched
from marco_jax.curation.transliteration import consonants
from marco_jax.ngrams import CHARACTERS, normalized_words

_ENDS = re.compile(r"[.!?。！？।॥؟۔።։…]+(?=\s|$|[\"'”’»」』)])|[。！？]")
_FINAL = re.compile(r"[.。।۔።։…]|([!！])|([?？؟;])|([:：])|([,，、،])")
_CLOSING = "\"'”’»」』)]* "
_MARKS = ("([{（「『", '"“”«»„', ":：", ",，、،", "?？؟", "!！", "%％٪", "-–—", "/\\|<>=_*#@&$€")
# So many letter groups of each column are remembered.
GROUPS = 4000
# Minimum share of a side's letters in the script of its column.
OWN_SCRIPT = 0.2
# Scripts of Japanese count as one.
_WRITTEN_TOGETHER = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}
FEATURES = (
    "length", "length squared", "log ratio", "shorter", "longer", "ends", "fewer ends", "final",
    "marks", "numbers", "source numbers", "target numbers", "same words", "names", "lost names",
    "related", "source letters", "target letters", "source column", "target column", "size",
)  # fmt: skip


@dataclasses.dataclass
class Columns:
    """Usual lengths and letters of the two columns of a file of pairs.

    `ratio` is target characters per source character, `spread` the deviation of length differences
    per root of length, `logs` (median, deviation) of the log-ratio, and `letters` the logarithms of
    the shares of letter groups in each column. `scripts` are the scripts of most of their letters.
    """

    languages: tuple[str, str]
    ratio: float = 1.0
    spread: float = 2.5
    logs: tuple[float, float] = (0.0, 0.4)
    letters: tuple[dict[str, float], dict[str, float]] = dataclasses.field(
        default_factory=lambda: ({}, {})
    )

    scripts: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]], languages: tuple[str, str]) -> Columns:
        """Measures pairs, of which some may be wrong."""
        if not pairs:
            return cls(languages)
        sizes = np.array([[max(1, len(side)) for side in pair] for pair in pairs], np.float64)
        logs = np.log(sizes[:, 1] / sizes[:, 0])
        middle = float(np.median(logs))
        ratio = math.exp(middle)
        apart = (sizes[:, 1] - ratio * sizes[:, 0]) / np.sqrt(sizes[:, 1] + ratio * sizes[:, 0])
        # Median deviations, since some pairs are wrong; 1.48 of them are a normal's deviation.
        spread = max(0.5, 1.48 * float(np.median(np.abs(apart))))
        deviation = max(0.1, 1.48 * float(np.median(np.abs(logs - middle))))
        letters = [_shares(pair[side] for pair in pairs) for side in (0, 1)]
        scripts = tuple(_main_script(pair[side] for pair in pairs) for side in (0, 1))
        return cls(languages, ratio, spread, (middle, deviation), tuple(letters), scripts)

    def measure(self, source: str, target: str) -> np.ndarray:
        """float64 [len(FEATURES)]: the measurements of a pair."""
        sizes = max(1, len(source)), max(1, len(target))
        expected = self.ratio * sizes[0]
        length = (sizes[1] - expected) / (self.spread * math.sqrt(sizes[1] + expected))
        log = (math.log(sizes[1] / sizes[0]) - self.logs[0]) / self.logs[1]
        ends = len(_ENDS.findall(target)) - len(_ENDS.findall(source))
        marks = sum(
            min(2, abs(sum(map(source.count, group)) - sum(map(target.count, group))))
            for group in _MARKS
        )
        same, ours, theirs = unmatched(numbers_of(source), numbers_of(target))
        likeness = [self._likeness(side, text) for side, text in enumerate((source, target))]
        return np.array(
            [
                min(4.0, abs(length)),
                min(16.0, length * length),
                min(4.0, abs(log)),
                min(4.0, max(0.0, -length)),
                min(4.0, max(0.0, length)),
                min(3.0, max(0, ends)),
                min(3.0, max(0, -ends)),
                _final(source) == _final(target),
                marks / math.sqrt(2 + marks),
                min(3, same),
                min(3, len(ours)),
                min(3, len(theirs)),
                *self._names(source, target),
                *(own for own, _ in likeness),
                *(own - other for own, other in likeness),
                math.log(sizes[0] + sizes[1]),
            ],
            np.float64,
        )

    def in_other_script(self, source: str, target: str) -> bool:
        """Whether a side has letters, and hardly any in the script of its column.

        Columns in the same script are not told apart.
        """
        if self.scripts[0] == self.scripts[1]:
            return False
        for text, script in zip((source, target), self.scripts, strict=True):
            found = _scripts([text])
            if found.total() > 2 and found[script] < OWN_SCRIPT * found.total():
                return True
        return False

    def _names(self, source: str, target: str) -> tuple[float, float, float, float]:
        """Shared words, shared and lost names, and the share of words with related consonants."""
        words = [normalized_words(side)[:60] for side in (source, target)]
        same = len({w for w in words[0] if len(w) > 2} & set(words[1]))
        sounds = [[consonants(word) for word in side] for side in words]
        joined = ["".join(side) for side in sounds]
        starts = [{sound[:4] for sound in side if len(sound) > 2} for side in sounds]
        found = lost = 0
        for side, text in enumerate((source, target)):
            for word in _capitalized(text):
                sound = consonants(word)[:4]
                if len(sound) > 2:
                    run = self.languages[1 - side] in CHARACTERS and sound in joined[1 - side]
                    hit = sound in starts[1 - side] or run
                    found, lost = found + hit, lost + (not hit)
        smaller = min(len(starts[0]), len(starts[1]))
        related = len(starts[0] & starts[1]) / (1 + smaller)
        return min(4.0, same), min(4.0, found), min(4.0, lost), related

    def _likeness(self, side: int, text: str) -> tuple[float, float]:
        """Mean logarithm of the letter groups' shares in the side's column and in the other."""
        groups = _groups(text)[:300]
        tables = self.letters[side], self.letters[1 - side]
        own, other = (
            sum(table.get(group, _RARE) for group in groups) / max(1, len(groups))
            for table in tables
        )
        return max(-16.0, own), max(-16.0, other)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        values = dataclasses.asdict(self)
        return {
            **values,
            "languages": list(self.languages),
            "logs": list(self.logs),
            "letters": [dict(side) for side in self.letters],
            "scripts": list(self.scripts),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Columns:
        """The columns that `to_json` described."""
        names = ("languages", "logs", "letters", "scripts")
        languages, logs, letters, scripts = (tuple(values[name]) for name in names)
        return cls(languages, values["ratio"], values["spread"], logs, letters, scripts)


# Logarithm of the share of letter groups that are not remembered.
_RARE = -13.0


def _main_script(texts: Iterable[str]) -> str:
    found = _scripts(texts)
    return min(found, key=lambda script: (-found[script], script), default="")


def _scripts(texts: Iterable[str]) -> collections.Counter[str]:
    """Numbers of letters by script."""
    found: collections.Counter[str] = collections.Counter()
    for text in texts:
        found.update(script for script in map(_script, text) if script)
    return found


@functools.lru_cache(maxsize=1 << 14)
def _script(char: str) -> str:
    """The script of a letter, by the first word of its Unicode name; "" for other characters."""
    if not char.isalpha():
        return ""
    script = unicodedata.name(char, "").partition(" ")[0]
    return _WRITTEN_TOGETHER.get(script, script)


def _groups(text: str) -> list[str]:
    """Groups of letters: three of an alphabet, or two where a character is a syllable or a word."""
    joined = f" {' '.join(normalized_words(text))} "
    size = 2 if any("\u2e80" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af" for c in joined) else 3
    return [joined[at : at + size] for at in range(len(joined) - size + 1)]


def _shares(texts: Iterable[str]) -> dict[str, float]:
    count: collections.Counter[str] = collections.Counter()
    for text in texts:
        count.update(_groups(text))
    total = max(1, count.total())
    common = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:GROUPS]
    return {
        group: round(max(_RARE, math.log(n / total)), 2) for group, n in sorted(common) if n > 1
    }


def _final(text: str) -> int:
    """The kind of a text's last mark, 0 for none."""
    found = _FINAL.fullmatch(text.rstrip(_CLOSING)[-1:])
    return 0 if not found else (found.lastindex or 0) + 1


def _capitalized(text: str) -> list[str]:
    """Words with a capital inside a sentence, which are often names."""
    words = text.split()
    return [
        word.strip("\"'.,:;!?()«»“”„")
        for before, word in zip(words, words[1:], strict=False)
        if word[:1].isupper() and before[-1] not in ".!?:…"
    ]
