"""Labels of the pages of the dirty sample, from what else is known of it.

The pages were put together from lines of the clean corpora beside it, so that a page's lines tell
its language, what was done to it, and which pages are copies of one another. The rules of the
pipeline are not asked.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import ftfy.badness
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.curation.readers import clean_documents
from marco_jax.ngrams import normalized_words

GOOD = ("clean", "personal", "html_page", "html_real", "boilerplate_lines", "markdown")
PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.]+|\b(?:198\.51\.100|203\.0\.113|192\.0\.2)\.\d+|//\w+:\w+@"
    r"|\b[A-Z]{2}\d\d(?: [A-Z0-9]{4}){3,}|\b4111 ?1111|\+\d[\d -]{8,}"
)
_CODE_OF = {"arb": "ar", "cmn": "zh", "zh-hant": "zh", "ind": "id", "zsm": "ms"}


def folded(text: str) -> str:
    """A text without case and punctuation."""
    return " ".join(normalized_words(text))


def grams(text: str) -> frozenset[str]:
    """The different runs of five letters of a folded text."""
    text = folded(text)
    return frozenset(text[at : at + 5] for at in range(len(text) - 4))


class Evidence:
    """The lines of the clean corpora with the languages they are in, and their words."""

    def __init__(self, corpora: pathlib.Path) -> None:
        """Reads all but the dirty sample."""
        self.lines: dict[str, set[str]] = collections.defaultdict(set)
        self.words: set[str] = set()
        for code, line in _corpus_lines(corpora):
            key = folded(line)
            if len(key) > 8:
                self.lines[key].add(_CODE_OF.get(code, code))
                self.words.update(key.split())

    def languages(self, text: str) -> dict[str, float]:
        """The share of a text's characters in lines that are known, by language; "" is of any."""
        total, shares = 0, collections.Counter()
        for key in map(folded, text.split("\n")):
            total += len(key)
            for code in (*self.lines.get(key, ()), *([""] if key in self.lines else [])):
                shares[code] += len(key)
        return {code: count / max(1, total) for code, count in shares.items()}

    def unknown_words(self, text: str) -> float:
        """The share of words that no clean text has."""
        words = normalized_words(text)
        return sum(word not in self.words for word in words) / max(1, len(words))


def _corpus_lines(corpora: pathlib.Path) -> Iterator[tuple[str, str]]:
    for path in corpora.glob("*/mono/*.txt"):
        if path.parts[-3] != "udhr":
            for line in path.open(encoding="utf-8"):
                yield path.stem, line
    for document in clean_documents(corpora):
        for line in document.text.split("\n"):
            yield document.language, line
    for path in corpora.glob("*/parallel/*.tsv"):
        found = re.match(r"([a-z]+)-([a-z]+)", path.stem)
        for line in path.open(encoding="utf-8"):
            yield from zip(found.groups(), line.rstrip("\n").split("\t"), strict=False)


class Labels:
    """What each page of the sample is (`of`), and which good pages are copies (`groups`)."""

    def __init__(self, rows: list[dict[str, Any]], evidence: Evidence, items: list[str]) -> None:
        """Labels all pages."""
        self._evidence = evidence
        self._items = [grams(item) for item in items]
        self._templates = self._repeated_lines(rows)
        self.of = {row["id"]: self._label(row) for row in rows}
        self.groups = self._groups(rows)

    def _repeated_lines(self, rows: list[dict[str, Any]]) -> set[str]:
        """Short lines that no corpus has and many different pages do."""
        pages = collections.defaultdict(set)
        for row in rows:
            for line in {line.strip() for line in row["text"].split("\n")}:
                if 0 < len(line) < 60 and folded(line) not in self._evidence.lines:
                    pages[line].add(row["text"])
        return {line for line, found in pages.items() if len(found) > 3}

    def _label(self, row: dict[str, Any]) -> str:
        text, claimed = row["text"], row["lang_hint"]
        if row.get("html"):
            return "html_real" if "help.example" in row["url"] else "html_page"
        if made := _made_of(text):
            return made
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if all(line in self._templates for line in lines):
            return "boilerplate_only"
        if re.search("casino|porn|adult|warez|slot-|viagra|pharma", row["url"].split("/")[2]):
            return "bad_address"
        shares = self._evidence.languages(text)
        if len(zlib.compress(text.encode())) < 0.13 * len(text.encode()):
            return "repeats"
        spaced = not re.search("[฀-๿぀-鿿]", text)
        if spaced and shares.get("", 0) < 0.5 and self._evidence.unknown_words(text) > 0.7:
            return "gibberish"
        if len(lines) == 1 and len(text) > 250 and not re.search(r"[.,!?;。、।،؟:۔]", text):
            return "clean" if claimed == "th" else "no_punctuation"
        if max(len(item & grams(text)) / max(1, len(item)) for item in self._items) > 0.7:
            return "contaminated"
        return self._language_label(text, claimed, shares) or self._good_label(text, lines)

    def _language_label(self, text: str, claimed: str, shares: dict[str, float]) -> str:
        known, mine = shares.get("", 0.0), shares.get(claimed, 0.0)
        others = max((s for code, s in shares.items() if code not in ("", claimed)), default=0.0)
        if text.startswith("---\n") and "lang:" in text[:200]:
            return "untranslated" if others > mine else "clean"
        if known > 0.5 and others > 0.5 and mine < 0.2:
            return "wrong_language"
        return "mixed" if known > 0.5 and others > 0.3 and known - mine > 0.25 else ""

    def _good_label(self, text: str, lines: list[str]) -> str:
        if text.lstrip("*\n ").startswith(("#", "[")) or "](" in text:
            return "markdown"
        if PERSONAL.search(text):
            return "personal"
        return "boilerplate_lines" if any(line in self._templates for line in lines) else "clean"

    def _groups(self, rows: list[dict[str, Any]]) -> list[set[str]]:
        """Good pages that are copies: exact Jaccard similarity, or a part of another's grams."""
        good = [row for row in rows if self.of[row["id"]] in GOOD and not row.get("html")]
        sets = [grams(self._body(row["text"])) for row in good]
        by_gram = collections.defaultdict(list)
        for number, found in enumerate(sets):
            for gram in found:
                if zlib.crc32(gram.encode()) % 16 == 0:
                    by_gram[gram].append(number)
        shared: collections.Counter[tuple[int, int]] = collections.Counter()
        for numbers in by_gram.values():
            if len(numbers) < 60:
                shared.update(itertools.combinations(numbers, 2))
        edges = []
        for (one, two), count in shared.items():
            if count < 3 or good[one]["lang_hint"] != good[two]["lang_hint"]:
                continue
            both, sizes = len(sets[one] & sets[two]), (len(sets[one]), len(sets[two]))
            if both > 0.5 * (sum(sizes) - both) or both > 0.85 * min(sizes):
                edges.append((one, two))
        ends = np.array(edges, np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(edges)), tuple(ends)), shape=(len(good), len(good)))
        groups = collections.defaultdict(set)
        for row, group in zip(good, connected_components(graph, directed=False)[1], strict=True):
            groups[int(group)].add(row["id"])
        return [group for group in groups.values() if len(group) > 1]

    def _body(self, text: str) -> str:
        lines = text.split("\n")
        return "\n".join(line for line in lines if line.strip() not in self._templates)


def _made_of(text: str) -> str:
    """The class of a page that is not prose on the face of it; empty for others."""
    lines = [line for line in text.split("\n") if line.strip()]
    words = text.split()
    visible, size, different = sum(map(len, words)), len(text), len(set(words))
    whole = text.replace("\ufffd", "")
    dated = sum(bool(re.match(r"\d{4}-\d\d-\d\d \S+ [A-Z]+ ", line)) for line in lines)
    if size - len(whole) > 0.005 * size and ftfy.badness.badness(whole) < 0.01 * size:
        return "replacement"
    if ftfy.badness.badness(text) >= max(3, 0.004 * size):
        return "mojibake"
    if visible < (35 if re.search("[぀-鿿가-힯]", text) else 100):
        return "short"
    if dated > len(lines) / 2:
        return "log"
    if re.fullmatch(r"[A-Za-z0-9+/=\s]+", text) and visible > 12 * len(words):
        return "base64"
    if sum(map(str.isdigit, text)) > 0.5 * visible:
        return "table"
    if len(re.findall(r"[{};()=]", text)) > 0.05 * size:
        return "code"
    if len(words) > 60 and different < 0.25 * min(len(words), 200):
        return "spam" if different < 40 else ""
    if sum("](" in line for line in lines) > 0.4 * len(lines):
        return "link_list"
    return "teasers" if text.count("...") > 4 and text.count(" … ") > 2 else ""
