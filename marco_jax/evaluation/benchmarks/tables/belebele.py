"""Belebele (arXiv 2308.16884): reading comprehension in 122 languages."""

from __future__ import annotations

from marco_jax.evaluation.benchmarks.spec import (
    LETTERS,
    TEXTS,
    Benchmark,
    Format,
    Gold,
    Options,
    RowSource,
    Text,
    hugging_face,
    merged,
)
from marco_jax.evaluation.benchmarks.tables.codes import FLORES

BELEBELE = Benchmark(
    name="belebele",
    folder="belebele",
    about="facebookresearch/belebele: CODE.jsonl, 900 questions a language",
    languages=tuple(FLORES),
    codes=FLORES,
    open_codes=True,
    sources=merged(
        {"test": (RowSource("{code}.jsonl"), RowSource("data/{code}.jsonl"))},
        hugging_face("{code}", {"test": "test"}),
    ),
    splits=("test",),
    shots=1,
    texts={
        "passage": Text(("flores_passage", "passage")),
        "question": Text(("question",), edits=("strip",)),
    },
    options=Options((("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"), "choices")),
    gold=(Gold(("correct_answer_num",), first=1), Gold(("answer",))),
    formats={
        # LightEval's format, which the paper authors' later harness (Marco-LLM-eval) uses without
        # shots. Published files differ in the order of lines, so shots are chosen by content.
        "letter": Format(
            context="{passage}\nQuestion: {question}\n{options}\nAnswer:",
            option=" {letter}. {text}",
            choices=LETTERS,
            sampler="by_content",
            metrics=("accuracy",),
        ),
        # lm-evaluation-harness's format; its shots are the first lines of the test file.
        "harness": Format(
            context="P: {passage}\nQ: {question}\n{options}\nAnswer:",
            option="{letter}: {text}",
            choices=LETTERS,
            sampler="first_n",
            metrics=("accuracy", "accuracy_chars"),
        ),
        "cloze": Format(
            context="{passage}\nQuestion: {question}\nAnswer:",
            choices=TEXTS,
            sampler="by_content",
            metrics=("accuracy_norm", "accuracy_chars", "accuracy", "accuracy_pmi"),
        ),
    },
)

BENCHMARKS = (BELEBELE,)
