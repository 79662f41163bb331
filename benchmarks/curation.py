"""How well `marco curate` tells good pages from bad ones, on a constructed sample of dirty pages.

    python -m benchmarks.curation --corpora=../shared/corpora --out=DIR

The sample has no labels. They are made here from what else is known of it: the pages were put
together from lines of the clean corpora beside it, so that a page's lines tell its language, what
was done to it, and which pages are copies of one another. The rules of the pipeline are not asked.
Printed, as JSON: what is kept of each class, how many defects go, how many kept pages are good, how
many good pages are kept, groups of copies that keep exactly one, personal data left; beside the
figures of a pipeline of 60 lines (trafilatura, py3langid, twelve rules, MinHash at 0.7).
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import pathlib
import re
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.ngrams import normalized_words

GOOD = ("clean", "personal", "html_page", "html_real", "boilerplate_lines", "markdown")
BASELINE = {
    "clean_lost_of_645": 7,
    "html_real_kept_of_24": 13,
    "wrong_language_kept_of_182": 0,
    "mixed_kept_of_52": 3,
    "boilerplate_only_kept_of_40": 3,
    "contaminated_kept_of_60": 11,
    "link_list_kept_of_40": 13,
    "teasers_kept_of_20": 17,
    "mojibake_kept_of_90": 30,
    "duplicate_groups_right_of_318": 278,
}
PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.]+|\b(?:198\.51\.100|203\.0\.113|192\.0\.2)\.\d+|//\w+:\w+@"
    r"|\b[A-Z]{2}\d\d(?: [A-Z0-9]{4}){3,}|\b4111 ?1111|\+\d[\d -]{8,}"
)
_CODE_OF = {"arb": "ar", "cmn": "zh", "zh-hant": "zh", "ind": "id", "zsm": "ms"}


class Evidence:
    """The lines of the clean corpora with the languages they stand in, and their words."""

    def __init__(self, corpora: pathlib.Path) -> None:
        """Reads all but the dirty sample."""
        self.lines: dict[str, set[str]] = collections.defaultdict(set)
        self.words: set[str] = set()
        for code, line in _corpus_lines(corpora):
            key = " ".join(normalized_words(line))
            if len(key) > 8:
                self.lines[key].add(_CODE_OF.get(code, code))
                self.words.update(key.split())

    def languages(self, text: str) -> dict[str, float]:
        """The share of a text's characters in lines that are known, by language, and of all."""
        total, shares = 0, collections.Counter()
        for line in text.split("\n"):
            key = " ".join(normalized_words(line))
            total += len(key)
            for code in self.lines.get(key, ()):
                shares[code] += len(key)
            shares[""] += len(key) if key in self.lines else 0
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
    for path in corpora.glob("*/docs/*.jsonl"):
        for row in map(json.loads, path.open(encoding="utf-8")):
            for line in row["text"].split("\n"):
                yield row.get("lang") or path.stem, line
    for path in corpora.glob("*/parallel/*.tsv"):
        found = re.match(r"([a-z]+)-([a-z]+)", path.stem)
        for line in path.open(encoding="utf-8"):
            yield from zip(found.groups(), line.rstrip("\n").split("\t"), strict=False)


class Labels:
    """What each page of the sample is, and which pages are copies of one another."""

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
            lines = [line.strip() for line in row["text"].split("\n")]
            for line in set(lines):
                if 0 < len(line) < 60:
                    pages[line].add(row["text"])
        known = self._evidence.lines
        return {
            line
            for line, found in pages.items()
            if len(found) > 3 and " ".join(normalized_words(line)) not in known
        }

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
            return "clean" if row["lang_hint"] == "th" else "no_punctuation"
        items = [len(g & grams(text)) / max(1, len(g)) for g in self._items]
        if max(items) > 0.7:
            return "contaminated"
        return self._language_label(text, lines, claimed, shares)

    def _language_label(
        self, text: str, lines: list[str], claimed: str, shares: dict[str, float]
    ) -> str:
        mine = shares.get(claimed, 0.0)
        others = max((s for code, s in shares.items() if code not in ("", claimed)), default=0.0)
        if text.startswith("---\n") and "lang:" in text[:200]:
            return "untranslated" if others > mine else "clean"
        if shares.get("", 0) > 0.5 and others > 0.5 and mine < 0.2:
            return "wrong_language"
        if shares.get("", 0) > 0.5 and others > 0.3 and shares[""] - mine > 0.25:
            return "mixed"
        if text.lstrip("*\n ").startswith(("#", "[")) or "](" in text:
            return "markdown"
        if PERSONAL.search(text):
            return "personal"
        if any(line in self._templates for line in lines):
            return "boilerplate_lines"
        return "clean"

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
                shared.update((a, b) for i, b in enumerate(numbers) for a in numbers[:i])
        parents = list(range(len(good)))

        def find(node: int) -> int:
            while parents[node] != node:
                node = parents[node]
            return node

        for (one, two), count in shared.items():
            if count < 3 or good[one]["lang_hint"] != good[two]["lang_hint"]:
                continue
            both, sizes = len(sets[one] & sets[two]), (len(sets[one]), len(sets[two]))
            if both > 0.5 * (sum(sizes) - both) or both > 0.85 * min(sizes):
                parents[find(one)] = find(two)
        groups = collections.defaultdict(set)
        for number, row in enumerate(good):
            groups[find(number)].add(row["id"])
        return [group for group in groups.values() if len(group) > 1]

    def _body(self, text: str) -> str:
        lines = text.split("\n")
        return "\n".join(line for line in lines if line.strip() not in self._templates)


def _made_of(text: str) -> str:
    """The class of a page that is no prose on the face of it."""
    import ftfy.badness

    lines = [line for line in text.split("\n") if line.strip()]
    words = text.split()
    visible = sum(map(len, words))
    whole = text.replace("\ufffd", "")
    if len(text) - len(whole) > 0.005 * len(text) and ftfy.badness.badness(whole) < 0.01 * len(
        text
    ):
        return "replacement"
    if ftfy.badness.badness(text) >= max(3, 0.004 * len(text)):
        return "mojibake"
    if visible < (35 if re.search("[぀-鿿가-힯]", text) else 100):
        return "short"
    if sum(bool(re.match(r"\d{4}-\d\d-\d\d \S+ [A-Z]+ ", line)) for line in lines) > len(lines) / 2:
        return "log"
    if re.fullmatch(r"[A-Za-z0-9+/=\s]+", text) and visible > 12 * len(words):
        return "base64"
    if sum(map(str.isdigit, text)) > 0.5 * visible:
        return "table"
    if len(re.findall(r"[{};()=]", text)) > 0.05 * len(text):
        return "code"
    if len(words) > 60 and len(set(words)) < 0.25 * min(len(words), 200):
        return "spam" if len(set(words)) < 40 else ""
    if sum("](" in line for line in lines) > 0.4 * len(lines):
        return "link_list"
    return "teasers" if text.count("...") > 4 and text.count(" … ") > 2 else ""


def grams(text: str) -> frozenset[str]:
    """The different runs of five letters of a text, without case and punctuation."""
    folded = " ".join(normalized_words(text))
    return frozenset(folded[at : at + 5] for at in range(len(folded) - 4))


def measure(rows: list[dict[str, Any]], labels: Labels, kept: dict[str, str], evidence: Evidence):
    """All figures, from the texts of pages that were kept, by id."""
    classes = collections.defaultdict(lambda: [0, 0])
    for row in rows:
        entry = classes[labels.of[row["id"]]]
        entry[0] += 1
        entry[1] += row["id"] in kept
    grouped = {key for group in labels.groups for key in group}
    counts = [len(group & kept.keys()) for group in labels.groups]
    good = [row["id"] for row in rows if labels.of[row["id"]] in GOOD]
    single = [key for key in good if key not in grouped]
    repaired = sum(
        labels.of[key] == "mojibake" and evidence.languages(text).get("", 0) > 0.9
        for key, text in kept.items()
    )
    bad = {name: pair for name, pair in classes.items() if name not in GOOD}
    planted = sum(pair[0] for pair in bad.values()) + sum(len(g) - 1 for g in labels.groups)
    left = sum(pair[1] for pair in bad.values()) + sum(max(0, n - 1) for n in counts)
    lost = [key for key in single if key not in kept]
    wanted = len(single) + len(labels.groups)
    remaining = [key for key in kept if labels.of[key] == "personal" and PERSONAL.search(kept[key])]
    return {
        "documents": len(rows),
        "kept": len(kept),
        "defects_removed": round(1 - (left - repaired) / planted, 4),
        "defects_removed_repaired_counts_as_left": round(1 - left / planted, 4),
        "kept_that_are_good": round(1 - (left - repaired) / len(kept), 4),
        "good_kept": round(1 - (len(lost) + sum(n == 0 for n in counts)) / wanted, 4),
        "good_lost": len(lost),
        "duplicate_groups": {
            "groups": len(counts),
            "exactly_one": sum(n == 1 for n in counts),
            "none": sum(n == 0 for n in counts),
            "more": sum(n > 1 for n in counts),
        },
        "mojibake_repaired": repaired,
        "personal_data_left_in": len(remaining),
        "classes": {
            name: {"documents": total, "kept": held, "good": name in GOOD}
            for name, (total, held) in sorted(classes.items())
        },
        "baseline": BASELINE,
        "lost": sorted(lost),
    }


def clean_documents(corpora: pathlib.Path, work: pathlib.Path) -> dict[str, Any]:
    """How many of the corpora's own clean pages are kept."""
    total = {"read": 0, "kept": 0}
    reasons: collections.Counter[str] = collections.Counter()
    for path in sorted(corpora.glob("*/docs/*.jsonl")):
        rows = work / "clean.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for number, row in enumerate(map(json.loads, path.open(encoding="utf-8"))):
                file.write(json.dumps({"id": str(number), "text": row["text"]}) + "\n")
        out = work / f"{path.parts[-3]}.{path.stem}"
        report = curate((str(rows),), out, curation_config())
        for name in total:
            total[name] += report["total"][name]
        for entry in report["languages"].values():
            reasons.update(entry["rejected"])
    return {**total, "share": round(total["kept"] / total["read"], 4), "reasons": dict(reasons)}


def main() -> None:
    """Curates, measures, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    parser.add_argument("--clean", action="store_true", help="also the corpora's clean pages")
    args = parser.parse_args()
    folder = args.corpora / "dirty_web_constructed"
    path = folder / "dirty_web_constructed.jsonl"
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    items = [json.loads(line) for line in (folder / "eval_items.jsonl").open(encoding="utf-8")]
    evidence = Evidence(args.corpora)
    labels = Labels(rows, evidence, [item["question"] for item in items])
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        config = curation_config()
        config.benchmarks = str(folder / "eval_items.jsonl")
        curate((str(path),), work / "out", config)
        kept = {}
        for file in (work / "out" / "docs").glob("*.jsonl.gz"):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                kept |= {row["id"]: row["text"] for row in map(json.loads, lines)}
        result = measure(rows, labels, kept, evidence)
        if args.clean:
            result["clean_documents"] = clean_documents(args.corpora, work)
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
