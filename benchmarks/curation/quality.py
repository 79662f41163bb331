"""How well curation tells good pages from bad ones, on a constructed sample of dirty pages.

The sample has no labels; labels.py makes them without the pipeline's rules. Measured: what is kept
of each class, how many defects go, how many kept pages are good, how many good pages are kept,
groups of copies of which exactly one is kept, and personal data left; beside the numbers of a
pipeline of 60 lines (trafilatura, py3langid, twelve rules, MinHash at 0.7).
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import pathlib
import tempfile
from typing import Any

from benchmarks.curation.labels import GOOD, PERSONAL, Evidence, Labels
from benchmarks.curation.readers import benchmark_items, dirty_pages, rows
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config

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


def compare(labels: Labels, kept: dict[str, str], evidence: Evidence) -> dict[str, Any]:
    """All numbers, from the texts of the pages that were kept, by id."""
    total = collections.Counter(labels.of.values())
    held = collections.Counter(labels.of[key] for key in kept)
    copies = [len(group & kept.keys()) for group in labels.groups]
    grouped = set().union(*labels.groups)
    single = [key for key, name in labels.of.items() if name in GOOD and key not in grouped]
    lost = sorted(key for key in single if key not in kept)
    repaired = sum(
        labels.of[key] == "mojibake" and evidence.languages(text).get("", 0) > 0.9
        for key, text in kept.items()
    )
    bad = [name for name in total if name not in GOOD]
    planted = sum(total[name] for name in bad) + sum(len(group) - 1 for group in labels.groups)
    left = sum(held[name] for name in bad) + sum(max(0, count - 1) for count in copies)
    wanted = len(single) + len(copies)
    personal = [text for key, text in kept.items() if labels.of[key] == "personal"]
    return {
        "documents": len(labels.of),
        "kept": len(kept),
        "defects_removed": round(1 - (left - repaired) / planted, 4),
        "defects_removed_repaired_counts_as_left": round(1 - left / planted, 4),
        "kept_that_are_good": round(1 - (left - repaired) / len(kept), 4),
        "good_kept": round(1 - (len(lost) + copies.count(0)) / wanted, 4),
        "good_lost": len(lost),
        "duplicate_groups": {
            "groups": len(copies),
            "exactly_one": copies.count(1),
            "none": copies.count(0),
            "more": sum(count > 1 for count in copies),
        },
        "mojibake_repaired": repaired,
        "personal_data_left_in": sum(bool(PERSONAL.search(text)) for text in personal),
        "classes": {
            name: {"documents": total[name], "kept": held[name], "good": name in GOOD}
            for name in sorted(total)
        },
        "baseline": BASELINE,
        "lost": lost,
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Curates the sample and compares it with the labels."""
    items = benchmark_items(args.corpora)
    evidence = Evidence(args.corpora)
    questions = [item["question"] for item in rows(items)]
    labels = Labels(rows(dirty_pages(args.corpora)), evidence, questions)
    kept: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        config = curation_config()
        config.benchmarks = str(items)
        curate((str(dirty_pages(args.corpora)),), work / "out", config)
        for path in (work / "out" / "docs").glob("*.jsonl.gz"):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                kept |= {row["id"]: row["text"] for row in map(json.loads, lines)}
    return compare(labels, kept, evidence)
