"""What was kept and what was thrown away, by language and reason."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

from marco_jax.curation.cascade import LEAST_IN_SCRIPT
from marco_jax.curation.curation_config import bits_by_language
from marco_jax.curation.rules import EVERY
from marco_jax.curation.tally import Tally, value_of

# In the order in which documents meet them.
STAGES = (
    *("url", "extraction", "boilerplate", "damaged", "length", "machine_text", "language"),
    *("letters", "links", "repetition", "sentences", "stop_words", "perplexity", "pairs"),
    *("duplicates", "host", "benchmarks"),
)
SIZES = ("documents", "bytes", "tokens")


def bounds_of(name: str, language: str, settings: Mapping[str, Any]) -> tuple[float, float]:
    """Between which numbers a score of a language's documents must lie."""
    for rule in EVERY:
        if rule.reason == name:
            return rule.bounds(language)
    bits = bits_by_language(settings["most_bits_per_byte"])
    return {
        "script": (LEAST_IN_SCRIPT, math.inf),
        "mixed": (0.0, settings["foreign_lines"]),
        "bits a byte": (0.0, bits.get(language, bits.get("", math.inf))),
        "similarity": (settings["pair_similarity"], math.inf),
    }.get(name, (0.0, math.inf))


def report_of(tally: Tally, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The report; an empty stage is what was kept."""
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
    funnel = _funnel(_together(list(languages.values())))
    for entry in languages.values():
        entry["funnel"] = _funnel(entry)
        del entry["lost"]
    return {
        "total": {**total, "unreadable": sum(tally.faults.values())},
        "unreadable": dict(sorted(tally.faults.items())),
        "funnel": funnel,
        "languages": languages,
        "cluster_sizes": dict(sorted(clusters.items(), key=lambda item: int(item[0]))),
        "histograms": _histograms(tally, settings),
        "samples": samples,
    }


def _together(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What all languages kept and lost."""
    whole: dict[str, Any] = {name: sum(e[name] for e in entries) for name in ("kept", *SIZES[1:])}
    whole["lost"] = {}
    for entry in entries:
        for stage, lost in entry["lost"].items():
            sums = whole["lost"].setdefault(stage, dict.fromkeys(SIZES, 0))
            for name in SIZES:
                sums[name] += lost[name]
    return whole


def _funnel(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """What is left after each stage, from all that was read; idle stages are not named."""
    left = {"documents": entry["kept"], "bytes": entry["bytes"], "tokens": entry["tokens"]}
    stages = sorted(entry["lost"], key=lambda stage: STAGES.index(stage) if stage in STAGES else 99)
    rows = []
    for stage in reversed(stages):
        rows.append({"after": stage, **left})
        left = {name: left[name] + entry["lost"][stage][name] for name in SIZES}
    return [{"after": "input", **left}, *reversed(rows)]


def _histograms(tally: Tally, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By language and rule: the least value of each class, its count, and the rule's bounds."""
    found = []
    for key, counts in sorted(tally.histograms.items()):
        language, name = key.split("\t")
        low, high = bounds_of(name, language, settings)
        classes = sorted((int(number), count) for number, count in counts.items())
        found.append(
            {
                "language": language,
                "rule": name,
                "least": low if low else None,
                "most": None if math.isinf(high) else high,
                "counts": [[round(value_of(name, n), 4), count] for n, count in classes],
            }
        )
    return found
