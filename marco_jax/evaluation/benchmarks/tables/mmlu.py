"""MMLU and its variants: CMMLU, C-Eval, JMMLU, MMMLU, X-MMLU (okapi), Global-MMLU, MMLU-ProX.

Formats follow lm-evaluation-harness 0.4.13; it has no JMMLU, so the Japanese prompt is our own, and
so is the prompt of MMLU-ProX (arXiv 2503.10497), whose answers it generates.
"""

import dataclasses
import functools

from marco_jax.evaluation.benchmarks.spec import (
    LETTERS,
    ROW_NUMBER,
    TEXTS,
    Benchmark,
    Format,
    Gold,
    Options,
    Text,
    hugging_face,
    local_files,
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

# The family: questions with lettered options, answers that are letters or numbers, five shots.
_exam = functools.partial(
    Benchmark,
    shots=5,
    texts={"question": Text(("question", "Question", "instruction"), edits=("strip",))},
    options=Options((_LETTER_COLUMNS,)),
    gold=(Gold(("answer",)),),
)

MMLU = _exam(
    name="mmlu",
    about="hendrycks/test: {dev,val,test}/SUBJECT_{dev,val,test}.csv, with or without a header",
    languages=("en",),
    sources=merged(
        local_files(
            "{split}/{part}_{split}.csv",
            "data/{split}/{part}_{split}.csv",
            splits="dev validation=val test",
            columns=_COLUMNS,
            header="question",
        ),
        hugging_face("{part}", "dev validation test"),
        hugging_face("all", "dev validation test", where={"subject": "{part}"}),
    ),
    parts={"": subjects.MMLU},
    options=Options((("choice0", "choice1", "choice2", "choice3"), _LETTER_COLUMNS, "choices")),
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

CMMLU = _exam(
    name="cmmlu",
    about="haonan-li/CMMLU: {dev,test}/SUBJECT.csv",
    languages=("zh",),
    sources=merged(
        local_files("{split}/{part}.csv", "data/{split}/{part}.csv", splits="dev test"),
        hugging_face("{part}", "dev test"),
    ),
    part_names=subjects.CMMLU,
    gold=(Gold(("Answer",)),),
    formats={"harness": _CHINESE},
)

CEVAL = _exam(
    name="ceval",
    about="hkust-nlp/ceval ceval-exam.zip: {dev,val}/SUBJECT_{dev,val}.csv; test has no answers",
    languages=("zh",),
    sources=merged(
        local_files(
            "{split}/{part}_{split}.csv",
            "formal_ceval/{split}/{part}_{split}.csv",
            "ceval-exam/{split}/{part}_{split}.csv",
            splits="dev validation=val",
        ),
        hugging_face("{part}", "dev validation=val"),
    ),
    splits=("validation",),
    part_names=subjects.CEVAL,
    formats={
        "harness": dataclasses.replace(
            _CHINESE, description="以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n"
        )
    },
)

JMMLU = _exam(
    name="jmmlu",
    about="nlp-waseda/JMMLU: {JMMLU,JMMLU_NC_ND}/SUBJECT.csv without a header; no dev split",
    languages=("ja",),
    sources=merged(
        local_files(
            *("{part}.csv", "JMMLU/{part}.csv", "JMMLU_NC_ND/{part}.csv", "test/{part}.csv"),
            splits="test",
            columns=_COLUMNS,
            header="question",
        ),
        hugging_face("{part}", "test"),
    ),
    parts={"": subjects.JMMLU},
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

MMMLU = _exam(
    name="mmmlu",
    question_id=(ROW_NUMBER,),
    about="openai/MMMLU: mmlu_XX-YY.csv with Question, A-D, Answer, Subject",
    languages=tuple(_MMMLU),
    codes={code: name for code, (name, _) in _MMMLU.items()},
    words={code: {"language": shown} for code, (_, shown) in _MMMLU.items()},
    sources=merged(
        local_files(
            *("mmlu_{code}.csv", "test/mmlu_{code}.csv"), splits="test", where={"Subject": "{part}"}
        ),
        hugging_face("{config}", "test", where={"Subject": "{part}"}),
        hugging_face("{code}", "test", where={"Subject": "{part}"}),
    ),
    parts={"": subjects.MMLU},
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

XMMLU = _exam(
    name="xmmlu",
    question_id=("id",),
    about="okapi's m_mmlu (nlp-uoregon/mlmm-evaluation): LL_{train,val,test}.json",
    languages=tuple(_OKAPI.split()),
    sources=merged(
        local_files(
            "{language}_{split}.json",
            "m_mmlu/{language}_{split}.json",
            "datasets/m_mmlu/{language}_{split}.json",
            "data/{language}/{split}.jsonl",
            "{language}/{split}.jsonl",
            splits="train validation=val test",
        ),
        hugging_face("{language}", "train validation=val test"),
    ),
    splits=("test", "validation"),
    paper_split="validation",
    options=Options((_OPTION_COLUMNS,)),
    formats={"harness": dataclasses.replace(_ENGLISH, description="", pool=("train",))},
)

_GLOBAL = """
    am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn
    so sr sv sw te tr uk vi yo zh
"""

GLOBAL_MMLU = _exam(
    name="global_mmlu",
    question_id=("sample_id",),
    about="CohereLabs/Global-MMLU: LL/{dev,test}-*.parquet with a column subject",
    languages=tuple(_GLOBAL.split()),
    sources=hugging_face("{language}", "dev test", where={"subject": "{part}"}),
    parts={"": subjects.MMLU},
    options=Options((_OPTION_COLUMNS,)),
    formats={"harness": dataclasses.replace(_ENGLISH, description="")},
)

_GLOBAL_LITE = """
    ar bn de en es fr hi id it ja ko my pt sw yo zh
"""

# Its harness task has random shots, of the same category.
GLOBAL_MMLU_LITE = dataclasses.replace(
    GLOBAL_MMLU,
    name="global_mmlu_lite",
    folder="global_mmlu_lite",
    about="CohereLabs/Global-MMLU-Lite: LL/{dev,test}-*.parquet with a column subject_category",
    languages=tuple(_GLOBAL_LITE.split()),
    sources=hugging_face("{language}", "dev test", where={"subject_category": "{part}"}),
    parts={"": ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences")},
    formats={"harness": dataclasses.replace(_ENGLISH, description="", sampler="random")},
)

_PROX = """
    af ar bn cs de en es fr hi hu id it ja ko mr ne pt ru sr sw te th uk ur vi wo yo zh zu
"""

MMLU_PROX = _exam(
    name="mmlu_prox",
    question_id=("question_id",),
    about="li-lab/MMLU-ProX: LL/{validation,test}-*.parquet, up to ten options, column category",
    languages=tuple(_PROX.split()),
    sources=hugging_face("{language}", "validation test", where={"category": "{part}"}),
    parts={"": subjects.MMLU_PROX},
    options=Options((tuple(f"option_{n}" for n in range(10)),), up_to=True),
    formats={
        # The harness has answers generated after five worked solutions; we score letters.
        "letter": dataclasses.replace(_ENGLISH, pool=("validation",)),
    },
)

MMLU_PROX_LITE = dataclasses.replace(
    MMLU_PROX,
    name="mmlu_prox_lite",
    folder="mmlu_prox_lite",
    about=MMLU_PROX.about.replace("li-lab/MMLU-ProX:", "li-lab/MMLU-ProX-Lite:"),
)

BENCHMARKS = (
    *(MMLU, CMMLU, CEVAL, JMMLU, MMMLU, XMMLU),
    *(GLOBAL_MMLU, GLOBAL_MMLU_LITE, MMLU_PROX, MMLU_PROX_LITE),
)
