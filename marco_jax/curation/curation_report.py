"""Makes the curation report: kept and rejected documents by language and reason."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

from marco_jax.curation.cascade import MIN_SCRIPT_SHARE
from marco_jax.curation.curation_config import bits_by_language
from marco_jax.curation.rules import ALL_RULES
from marco_jax.curation.tally import Tally, bin_start

# In the order in which documents pass them.
STAGES = (
    *("url", "extraction", "boilerplate", "damaged", "length", "machine_text", "language"),
    *("letters", "links", "repetition", "sentences", "stop_words", "perplexity", "pairs"),
    *("duplicates", "host", "benchmarks"),
)
SIZES = ("documents", "bytes", "tokens")


def bounds_of(name: str, language: str, settings: Mapping[str, Any]) -> tuple[float, float]:
    """The minimum and maximum that a score of a language's documents may have."""
    for rule in ALL_RULES:
        if rule.reason == name:
            return rule.bounds(language)
    bits = bits_by_language(settings["most_bits_per_byte"])
    return {
        "script": (MIN_SCRIPT_SHARE, math.inf),
        "mixed": (0.0, settings["foreign_lines"]),
        "bits a byte": (0.0, bits.get(language, bits.get("", math.inf))),
        "similarity": (settings["pair_similarity"], math.inf),
    }.get(name, (0.0, math.inf))


def report_of(tally: Tally, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the report from the counts of all workers."""
    languages: dict[str, dict[str, Any]] = {}
    samples: list[dict[str, str]] = []
    clusters: collections.Counter[str] = collections.Counter()
    total = {"read": 0, "kept": 0, "kept_bytes": 0, "masked": 0}
    for key in sorted(tally.fates):
        fate = tally.fates[key]
        language, stage, reason = key.split("\t")
        empty = {"read": 0, "kept": 0, "bytes": 0, "tokens": 0, "rejected": {}, "lost": {}}
        entry = languages.setdefault(language, empty)
        entry["read"] += fate["documents"]
        total["read"] += fate["documents"]
        if stage:
            entry["rejected"][f"{stage}: {reason}"] = fate["documents"]
            lost = entry["lost"].setdefault(stage, dict.fromkeys(SIZES, 0))
            for name in SIZES:
                lost[name] += fate[name]
        else:
            entry["kept"] += fate["documents"]
            entry["bytes"] += fate["bytes"]
            entry["tokens"] += fate["tokens"]
            total["kept"] += fate["documents"]
            total["kept_bytes"] += fate["bytes"]
            total["masked"] += fate["masked"]
            clusters.update(fate["clusters"])
        name = f"{stage}: {reason}" if stage else "kept"
        for _, document, text in fate["sample"]:
            samples.append({"language": language, "fate": name, "id": document, "text": text})
    funnel = _funnel(_summed(list(languages.values())))
    for entry in languages.values():
        entry["funnel"] = _funnel(entry)
        del entry["lost"]
    return {
        "total": {**total, "unreadable": sum(tally.faults.values())},
        "unreadable": dict(sorted(tally.faults.items())),
        # Of documents that were not UTF-8.
        "charsets": dict(sorted(tally.charsets.items())),
        "funnel": funnel,
        "languages": languages,
        "cluster_sizes": dict(sorted(clusters.items(), key=lambda item: int(item[0]))),
        "histograms": _histograms(tally, settings),
        "samples": samples,
    }


def _summed(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of kept and lost documents over all languages."""
    whole: dict[str, Any] = {name: sum(e[name] for e in entries) for name in ("kept", *SIZES[1:])}
    whole["lost"] = {}
    for entry in entries:
        for stage, lost in entry["lost"].items():
            sums = whole["lost"].setdefault(stage, dict.fromkeys(SIZES, 0))
            for name in SIZES:
                sums[name] += lost[name]
    return whole


def _funnel(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Documents, bytes and tokens left after each stage that rejected any."""
    left = {"documents": entry["kept"], "bytes": entry["bytes"], "tokens": entry["tokens"]}
    stages = sorted(entry["lost"], key=lambda stage: STAGES.index(stage) if stage in STAGES else 99)
    rows = []
    for stage in reversed(stages):
        rows.append({"after": stage, **left})
        left = {name: left[name] + entry["lost"][stage][name] for name in SIZES}
    return [{"after": "input", **left}, *reversed(rows)]


def _histograms(tally: Tally, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By language and rule: the lower edge and count of each bin, and the rule's bounds."""
    found = []
    for key, counts in sorted(tally.histograms.items()):
        language, name = key.split("\t")
        low, high = bounds_of(name, language, settings)
        bins = sorted((int(number), count) for number, count in counts.items())
        found.append(
            {
                "language": language,
                "rule": name,
                "least": low if low else None,
                "most": None if math.isinf(high) else high,
                "counts": [[round(bin_start(name, n), 4), count] for n, count in bins],
            }
        )
    return found
