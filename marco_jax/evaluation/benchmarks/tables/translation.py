"""FLORES-200, whole paragraphs of it, and WMT16."""

from __future__ import annotations

import dataclasses

from marco_jax.evaluation.benchmarks.spec import (
    Benchmark,
    Format,
    RowSource,
    Text,
    hugging_face,
    merged,
)
from marco_jax.evaluation.benchmarks.tables.codes import FLORES

_TEXTS = {"source": Text(("source",)), "target": Text(("target",))}
_METRICS = ("bleu", "chrf++", "spbleu", "language_rate")

_HARNESS = Format(
    context="{source_language} sentence: {source}\n{target_language} sentence:",
    target="{target}",
    # The harness's FLORES tasks put a shot's translation directly after the colon.
    delimiter="",
    pool=("validation",),
    stop=("\n",),
    metrics=_METRICS,
)
_AUTHORS = Format(
    context=(
        "Please translate the following text from {source_language} to {target_language}:\n"
        "{source}\n"
    ),
    target="{target}",
    delimiter="",
    sampler="shuffled_42",
    pool=("validation",),
    stop=("\n",),
    max_new_tokens=512,
    metrics=_METRICS,
)


def _sentence_files(split: str) -> tuple[RowSource, ...]:
    patterns = (
        f"{split}/{{0}}.{split}",
        f"flores200_dataset/{split}/{{0}}.{split}",
        f"{split}/{split}.{{0}}",
        f"floresp-v2.0/{split}/{split}.{{0}}",
    )
    return tuple(
        RowSource(
            pattern.format("{source}"), target_path=pattern.format("{target}"), form="sentences"
        )
        for pattern in patterns
    )


FLORES_ANY = Benchmark(
    name="flores",
    folder="flores200",
    about="FLORES-200: {dev,devtest}/CODE.{dev,devtest}, one sentence a line, any pair",
    languages=tuple(FLORES),
    codes=FLORES,
    pairs="any",
    sources=merged(
        {"validation": _sentence_files("dev"), "test": _sentence_files("devtest")},
        hugging_face("all", {"validation": "dev", "test": "devtest"}),
        hugging_face("{source}-{target}", {"validation": "dev", "test": "devtest"}),
    ),
    splits=("test",),
    shots=1,
    texts=_TEXTS,
    references=("target",),
    formats={
        "harness": _HARNESS,
        "authors": dataclasses.replace(_AUTHORS, shots=5),
    },
)

FLORES_PASSAGES = dataclasses.replace(
    FLORES_ANY,
    name="flores_passages",
    folder="flores_passages",
    about="whole FLORES-200 paragraphs: CODE.jsonl with id and text; no split to take shots from",
    sources={"test": (RowSource("{source}.jsonl", target_path="{target}.jsonl"),)},
    formats={
        "harness": dataclasses.replace(_HARNESS, pool=("test",), max_new_tokens=512),
        "authors": dataclasses.replace(_AUTHORS, pool=("test",)),
    },
)


def _directions(benchmark: Benchmark) -> tuple[Benchmark, ...]:
    """Makes three benchmarks of one: any pair, from English, and into English."""
    others = tuple(code for code in benchmark.languages if code != "en")
    return (
        benchmark,
        dataclasses.replace(
            benchmark, name=f"{benchmark.name}_from_en", pairs="from_en", languages=others
        ),
        dataclasses.replace(
            benchmark, name=f"{benchmark.name}_to_en", pairs="to_en", languages=others
        ),
    )


def _wmt16_sgm(split: str, stem: str) -> tuple[RowSource, ...]:
    # Files are named by direction; newstest sets exist in both.
    return tuple(
        RowSource(
            f"{folder}{stem}-{pair}-src.{{source}}.sgm",
            target_path=f"{folder}{stem}-{pair}-ref.{{target}}.sgm",
        )
        for folder in ("", f"{split}/")
        for pair in ("{source}{target}",)
    )


WMT16 = Benchmark(
    name="wmt16",
    folder="wmt16",
    about="WMT16 news: {dev,test}/newstest20{15,16}-XXYY-{src.XX,ref.YY}.sgm",
    languages=("en", "cs", "de", "fi", "ro", "ru", "tr"),
    pairs="any",
    sources=merged(
        {
            "validation": (
                *_wmt16_sgm("dev", "newstest2015"),
                # Romanian and Turkish were added in 2016.
                *_wmt16_sgm("dev", "newsdev2016"),
            ),
            "test": _wmt16_sgm("test", "newstest2016"),
        },
        *(
            hugging_face(pair, {"validation": "validation", "test": "test"})
            for pair in ("{source}-{target}", "{target}-{source}")
        ),
        {
            split: tuple(
                RowSource(f"wmt16_translate/{pair}/*", form="tfds", split=split)
                for pair in ("{source}-{target}", "{target}-{source}")
            )
            for split in ("validation", "test")
        },
    ),
    splits=("test",),
    shots=1,
    texts=_TEXTS,
    references=("target",),
    formats={
        "harness": Format(
            context="{source_language} phrase: {source}\n{target_language} phrase:",
            # The harness's targets start with another space.
            target=" {target}",
            pool=("validation",),
            stop=("\n",),
            metrics=_METRICS,
        ),
        "authors": _AUTHORS,
    },
)

BENCHMARKS = (*_directions(FLORES_ANY), *_directions(FLORES_PASSAGES), *_directions(WMT16))
