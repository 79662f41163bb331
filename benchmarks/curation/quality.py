"""How well curation tells good pages from bad ones, on a constructed sample of dirty pages.

    python -m benchmarks.curation.quality [--corpora=DIR]

The pages were put together from lines of the clean corpora. labels.json has the class of each page,
told from the lines that it shares with those corpora and from its characters, not from the
pipeline's rules, and the groups of good pages that are copies of one another; a number is a page's
id, and a page without a class is clean. Measured: what is kept of each class, how many defects go
(a repaired page of mojibake is one that went), how many kept pages are good, how many good pages
are kept, groups of copies of which exactly one is kept, and personal data left in. There is nothing
beside it.
"""

from __future__ import annotations

import collections
import gzip
import json
import logging
import pathlib
import re
import sys
import tempfile
import zlib
from typing import Any

from benchmarks.common import print_json, read_flags
from benchmarks.curation.readers import CORPORA, ITEMS, SAMPLE, clean_documents, lines, rows
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.ngrams import normalized_words

GOOD = ("clean", "personal", "html_page", "html_real", "boilerplate_lines", "markdown")
PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.]+|\b(?:198\.51\.100|203\.0\.113|192\.0\.2)\.\d+|//\w+:\w+@"
    r"|\b[A-Z]{2}\d\d(?: [A-Z0-9]{4}){3,}|\b4111 ?1111|\+\d[\d -]{8,}"
)


def read_labels(sample: pathlib.Path) -> tuple[dict[str, str], list[set[str]]]:
    """The class of every page, and the groups of copies.

    Raises:
        SystemExit: the sample is not the one that was labelled.
    """
    labels = json.loads(pathlib.Path(__file__).with_name("labels.json").read_text())
    if zlib.crc32(sample.read_bytes()) != labels["crc32"]:
        sys.exit(f"{sample} is not the sample that labels.json is of")
    classes = dict.fromkeys((row["id"] for row in rows(sample)), "clean")
    for name, numbers in labels["classes"].items():
        classes |= {f"d{number:05d}": name for number in numbers}
    return classes, [{f"d{number:05d}" for number in group} for group in labels["copies"]]


def repaired(corpora: pathlib.Path, pages: list[str]) -> int:
    """How many of these pages are now lines of the clean corpora, by nine tenths of their words."""
    texts = [line for path in corpora.glob("*/mono/*.txt") for line in lines(path)]
    texts += [line for _, text in clean_documents(corpora) for line in text.split("\n")]
    known = {tuple(normalized_words(line)) for line in texts}

    def share(text: str) -> float:
        found = [tuple(normalized_words(line)) for line in text.split("\n")]
        return sum(len(line) for line in found if line in known) / sum(map(len, found))

    return sum(share(text) > 0.9 for text in pages)


def curated(corpora: pathlib.Path) -> dict[str, str]:
    """The texts of the pages that curation keeps, by id."""
    with tempfile.TemporaryDirectory() as folder:
        config, out = curation_config(), pathlib.Path(folder) / "out"
        config.benchmarks = str(corpora / ITEMS)
        curate((str(corpora / SAMPLE),), out, config)
        files = [gzip.decompress(path.read_bytes()) for path in (out / "docs").glob("*.jsonl.gz")]
    kept = [json.loads(line) for file in files for line in file.splitlines()]
    return {row["id"]: row["text"] for row in kept}


def measure(corpora: pathlib.Path) -> dict[str, Any]:
    """Curates the sample and compares it with the labels."""
    classes, groups = read_labels(corpora / SAMPLE)
    kept = curated(corpora)
    total = collections.Counter(classes.values())
    held = collections.Counter(classes[key] for key in kept)
    copies = [len(group & kept.keys()) for group in groups]
    grouped = set().union(*groups)
    single = [key for key, name in classes.items() if name in GOOD and key not in grouped]
    lost = sum(key not in kept for key in single)
    bad = [name for name in total if name not in GOOD]
    defects = sum(total[name] for name in bad) + sum(len(group) - 1 for group in groups)
    mended = repaired(corpora, [kept[key] for key in kept if classes[key] == "mojibake"])
    left = sum(held[name] for name in bad) + sum(max(0, count - 1) for count in copies) - mended
    personal = [text for key, text in kept.items() if classes[key] == "personal"]
    return {
        "kept": len(kept),
        "defects_removed": round(1 - left / defects, 4),
        "mojibake_repaired": mended,
        "kept_that_are_good": round(1 - left / len(kept), 4),
        "good_kept": round(1 - (lost + copies.count(0)) / (len(single) + len(copies)), 4),
        "groups_of_copies": len(copies),
        "groups_of_which_one_is_kept": copies.count(1),
        "personal_data_left_in": sum(bool(PERSONAL.search(text)) for text in personal),
        "kept_of_class": {name: f"{held[name]} of {total[name]}" for name in sorted(total)},
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print_json(measure(read_flags(__doc__, corpora=(CORPORA, "their folder")).corpora))
