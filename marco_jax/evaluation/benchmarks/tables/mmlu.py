"""MMLU and its variants: CMMLU, C-Eval, JMMLU, MMMLU, X-MMLU (okapi), Global-MMLU.

Formats follow lm-evaluation-harness 0.4.13; it has no JMMLU, so the Japanese prompt is our own.
"""

from __future__ import annotations

import dataclasses

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
from marco_jax.evaluation.benchmarks.tables import subjects

_DESCRIPTION = "The following are multiple choice questions (with answers) about {subject}.\n\n"
_BOTH = ("accuracy", "accuracy_chars")

_ENGLISH = Format(
    context="{question}\n{options}\nAnswer:",
    choices=LETTERS,
    description=_DESCRIPTION,
    sampler="first_n",
    pool=("dev",),
)
_CHINESE = dataclasses.replace(
    _ENGLISH,
    context="{question}\n{options}\n答案：",
    description="以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n",
    metrics=_BOTH,
)

_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_LETTER_COLUMNS = ("A", "B", "C", "D")
_OPTION_COLUMNS = ("option_a", "option_b", "option_c", "option_d")
_QUESTION = {"question": Text(("question", "Question", "instruction"), edits=("strip",))}

MMLU = Benchmark(
    name="mmlu",
    folder="mmlu",
    about="hendrycks/test: {dev,val,test}/SUBJECT_{dev,val,test}.csv, with or without a header",
    languages=("en",),
    sources=merged(
        {
            split: (
                RowSource(f"{name}/{{part}}_{name}.csv", columns=_COLUMNS, header="question"),
                RowSource(f"data/{name}/{{part}}_{name}.csv", columns=_COLUMNS, header="question"),
            )
            for split, name in (("dev", "dev"), ("validation", "val"), ("test", "test"))
        },
        hugging_face("{part}", {"dev": "dev", "validation": "validation", "test": "test"}),
        hugging_face(
            "all",
            {"dev": "dev", "validation": "validation", "test": "test"},
            where={"subject": "{part}"},
        ),
    ),
    splits=("test",),
    shots=5,
    parts={"": subjects.MMLU},
    texts=_QUESTION,
    options=Options((("choice0", "choice1", "choice2", "choice3"), _LETTER_COLUMNS, "choices")),
    gold=(Gold(("answer",)),),
    formats={
        "harness": _ENGLISH,
        "continuation": Format(
            context="Question: {question}\nAnswer:",
            choices=TEXTS,
            sampler="first_n",
            pool=("dev",),
            metrics=("accuracy", "accuracy_chars", "accuracy_norm", "accuracy_pmi"),
        ),
    },
)

CMMLU = Benchmark(
    name="cmmlu",
    folder="cmmlu",
    about="haonan-li/CMMLU: {dev,test}/SUBJECT.csv",
    languages=("zh",),
    sources=merged(
        {
            split: (RowSource(f"{split}/{{part}}.csv"), RowSource(f"data/{split}/{{part}}.csv"))
            for split in ("dev", "test")
        },
        hugging_face("{part}", {"dev": "dev", "test": "test"}),
    ),
    splits=("test",),
    shots=5,
    parts={"": tuple(subjects.CMMLU)},
    part_names=subjects.CMMLU,
    texts=_QUESTION,
    options=Options((_LETTER_COLUMNS,)),
    gold=(Gold(("Answer",)),),
    formats={"harness": _CHINESE},
)

CEVAL = Benchmark(
    name="ceval",
    folder="ceval",
    about="hkust-nlp/ceval ceval-exam.zip: {dev,val}/SUBJECT_{dev,val}.csv; test has no answers",
    languages=("zh",),
    sources=merged(
        {
            split: (
                RowSource(f"{name}/{{part}}_{name}.csv"),
                RowSource(f"formal_ceval/{name}/{{part}}_{name}.csv"),
                RowSource(f"ceval-exam/{name}/{{part}}_{name}.csv"),
            )
            for split, name in (("dev", "dev"), ("validation", "val"))
        },
        hugging_face("{part}", {"dev": "dev", "validation": "val"}),
    ),
    splits=("validation",),
    shots=5,
    parts={"": tuple(subjects.CEVAL)},
    part_names=subjects.CEVAL,
    texts=_QUESTION,
    options=Options((_LETTER_COLUMNS,)),
    gold=(Gold(("answer",)),),
    formats={
        "harness": dataclasses.replace(
            _CHINESE,
            description="以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n",
        )
    },
)

JMMLU = Benchmark(
    name="jmmlu",
    folder="jmmlu",
    about="nlp-waseda/JMMLU: {JMMLU,JMMLU_NC_ND}/SUBJECT.csv without a header; no dev split",
    languages=("ja",),
    sources={
        "test": tuple(
            RowSource(f"{folder}{{part}}.csv", columns=_COLUMNS, header="question")
            for folder in ("", "JMMLU/", "JMMLU_NC_ND/", "test/")
        )
    },
    splits=("test",),
    shots=5,
    parts={"": subjects.JMMLU},
    texts=_QUESTION,
    options=Options((_LETTER_COLUMNS,)),
    gold=(Gold(("answer",)),),
    formats={
        "letter": Format(
            context="{question}\n{options}\n答え:",
            choices=LETTERS,
            sampler="by_content",
            pool=("test",),
            metrics=_BOTH,
        )
    },
)

# By language: the name of OpenAI's file, and the language's name in prompts.
_MMMLU = {
    "ar": ("AR-XY", "Arabic"),
    "bn": ("BN-BD", "Bengali"),
    "de": ("DE-DE", "German"),
    "es": ("ES-LA", "Spanish"),
    "fr": ("FR-FR", "French"),
    "hi": ("HI-IN", "Hindi"),
    "id": ("ID-ID", "Indonesian"),
    "it": ("IT-IT", "Italian"),
    "ja": ("JA-JP", "Japanese"),
    "ko": ("KO-KR", "Korean"),
    "pt": ("PT-BR", "Brazilian Portuguese"),
    "sw": ("SW-KE", "Swahili"),
    "yo": ("YO-NG", "Yoruba"),
    "zh": ("ZH-CN", "Simplified Chinese"),
}

MMMLU = Benchmark(
    name="mmmlu",
    folder="mmmlu",
    about="openai/MMMLU: mmlu_XX-YY.csv with Question, A-D, Answer, Subject",
    languages=tuple(_MMMLU),
    codes={code: name for code, (name, _) in _MMMLU.items()},
    words={code: {"language": shown} for code, (_, shown) in _MMMLU.items()},
    sources=merged(
        {
            "test": (
                RowSource("mmlu_{code}.csv", where={"Subject": "{part}"}),
                RowSource("test/mmlu_{code}.csv", where={"Subject": "{part}"}),
            )
        },
        hugging_face("{code}", {"test": "test"}, where={"Subject": "{part}"}),
    ),
    splits=("test",),
    shots=5,
    parts={"": subjects.MMLU},
    texts=_QUESTION,
    options=Options((_LETTER_COLUMNS,)),
    gold=(Gold(("Answer",)),),
    formats={
        "harness": dataclasses.replace(
            _ENGLISH,
            description=_DESCRIPTION.replace("{subject}", "{subject} ({language})"),
            pool=("test",),
            metrics=_BOTH,
        )
    },
)

_OKAPI = """
    ar bn ca da de en es eu fr gu hi hr hu hy id is it kn ml mr nb ne nl pt ro ru sk sr sv ta te uk
    vi zh
"""

XMMLU = Benchmark(
    name="xmmlu",
    folder="xmmlu",
    about="okapi's m_mmlu (nlp-uoregon/mlmm-evaluation): LL_{train,val,test}.json",
    languages=tuple(_OKAPI.split()),
    sources=merged(
        {
            split: (
                RowSource(f"{{language}}_{name}.json"),
                RowSource(f"data/{{language}}/{name}.jsonl"),
                RowSource(f"{{language}}/{name}.jsonl"),
            )
            for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        },
        hugging_face("{language}", {"train": "train", "validation": "val", "test": "test"}),
    ),
    splits=("test", "validation"),
    paper_split="validation",
    shots=5,
    texts=_QUESTION,
    options=Options((_OPTION_COLUMNS,)),
    gold=(Gold(("answer",)),),
    formats={"harness": dataclasses.replace(_ENGLISH, description="", pool=("train",))},
)

_GLOBAL = """
    am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn
    so sr sv sw te tr uk vi yo zh
"""

GLOBAL_MMLU = Benchmark(
    name="global_mmlu",
    folder="global_mmlu",
    about="CohereLabs/Global-MMLU: LL/{dev,test}-*.parquet with a column subject",
    languages=tuple(_GLOBAL.split()),
    sources=hugging_face("{language}", {"dev": "dev", "test": "test"}, where={"subject": "{part}"}),
    splits=("test",),
    shots=5,
    parts={"": subjects.MMLU},
    texts=_QUESTION,
    options=Options((_OPTION_COLUMNS,)),
    gold=(Gold(("answer",)),),
    formats={"harness": dataclasses.replace(_ENGLISH, description="")},
)

BENCHMARKS = (MMLU, CMMLU, CEVAL, JMMLU, MMMLU, XMMLU, GLOBAL_MMLU)
