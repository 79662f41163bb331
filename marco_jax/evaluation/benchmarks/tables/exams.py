"""AGIEval (arXiv 2304.06364) and ARC (arXiv 1803.05457)."""

import dataclasses

from marco_jax.evaluation.benchmarks.spec import (
    LETTERS,
    TEXTS,
    Benchmark,
    Format,
    Gold,
    Options,
    Text,
    hugging_face,
    local_files,
    merged,
    tfds_folder,
)

_AGIEVAL_PARTS = {
    "en": """
        aqua-rat gaokao-english logiqa-en lsat-ar lsat-lr lsat-rc sat-en sat-en-without-passage
        sat-math
    """,
    "zh": """
        gaokao-biology gaokao-chemistry gaokao-chinese gaokao-geography gaokao-history
        gaokao-mathqa gaokao-physics jec-qa-ca jec-qa-kd logiqa-zh
    """,
}

AGIEVAL = Benchmark(
    name="agieval",
    about="ruixiangcui/AGIEval: data/{v1_1,v1}/PART.jsonl and data/few_shot_prompts.csv",
    languages=("en", "zh"),
    parts={language: tuple(parts.split()) for language, parts in _AGIEVAL_PARTS.items()},
    sources=merged(
        local_files(
            *("{part}.jsonl", "data/v1_1/{part}.jsonl", "data/v1/{part}.jsonl"), splits="test"
        ),
        local_files(
            *("few_shot_prompts.csv", "data/few_shot_prompts.csv", "data/v1/few_shot_prompts.csv"),
            splits="samples",
            form="agieval_shots",
            where={"part": "{part}"},
        ),
        hugging_face("{part}", "test"),
    ),
    shots=5,
    texts={"passage": Text(("passage",), may_be_empty=True), "question": Text(("question",))},
    # Some geography samples have their options in one text. AGIEval's loader shows it as it is, and
    # takes it for four options, or five in English.
    options=Options(("options",), joined={"en": 5, "zh": 4}),
    # jec-qa has empty labels, and punctuation between letters.
    gold=(Gold(("label",), several=True, leaves_out=True),),
    words={
        "en": {
            "opening": "Here are the answers for the problems in the exam.",
            "problem": "Problem",
            "choose": "Choose from the following options:",
            "cue": "The answer is therefore",
            "asked": "Q: ",
            "choices": "Answer Choices: ",
            "among": "A: Among A through ",
            "which": ", the answer is",
            "ask": "A: The answer is",
        },
        "zh": {
            "opening": "以下是考试中各个问题的答案。",
            "problem": "问题",
            "choose": "从以下选项中选择:",
            "cue": "答案是",
            "asked": "问题：",
            "choices": "选项：",
            "among": "答案：从A到",
            "which": ", 我们应选择",
            "ask": "答案：",
        },
    },
    formats={
        # AGIEval's format: its samples as shots, another context without shots. The letter after
        # its cue is scored instead of a generated answer.
        "official": Format(
            description="{opening}\n",
            context="{problem} {number}.   {passage} {question}\n{choose}    {options}\n{cue}",
            zero_shot_context=(
                "{passage}{asked}{question} {choices}{options}\n{among}{last_letter}{which}"
            ),
            option="{text}",
            option_delimiter=" ",
            choices=LETTERS,
            # AGIEval prints a list of several right letters as Python does.
            target="{stated_answer}",
            sampler="first_n",
            up_to=True,  # Some parts have only three samples.
            pool=("samples",),
        ),
        # lm-evaluation-harness's zero-shot format: options are written out. Shots would come from
        # the test file, and could include the item itself.
        "harness": Format(
            context="{passage}{asked}{question} {choices}{options}\n{among}{last_letter}{which}",
            option="{text}",
            option_delimiter=" ",
            choices=TEXTS,
            pool=("test",),
            excludes_item=False,
            metrics=("accuracy", "accuracy_chars"),
            shots=0,
        ),
    },
)

AGIEVAL_CLOZE = dataclasses.replace(
    AGIEVAL,
    name="agieval_cloze",
    about="the two parts of AGIEval whose answers are generated",
    parts={"en": ("math",), "zh": ("gaokao-mathcloze",)},
    options=None,
    gold=(),
    references=("answer",),
    formats={
        "official": Format(
            description="{opening}\n",
            context="{problem} {number}.   {question}\n{cue}",
            zero_shot_context="{passage}{asked}{question}\n{ask}",
            target="{reference}",
            sampler="first_n",
            up_to=True,  # Some parts have only three samples.
            pool=("samples",),
            stop=("\n",),
            max_new_tokens=64,
            metrics=("math_accuracy",),
        ),
        "harness": Format(
            context="{passage}{asked}{question}\n{ask}",
            target="{reference}",
            pool=("test",),
            excludes_item=False,
            stop=("Q:",),
            max_new_tokens=32,
            metrics=("math_accuracy",),
            shots=0,
        ),
    },
)


def _arc(name: str, config: str) -> Benchmark:
    return Benchmark(
        name=name,
        folder="arc",
        about=f"ARC-V1-Feb2018: {config}/{config}-{{Train,Dev,Test}}.jsonl",
        languages=("en",),
        sources=merged(
            local_files(
                f"{config}-{{split}}.jsonl",
                f"{config}/{config}-{{split}}.jsonl",
                f"ARC-V1-Feb2018-2/{config}/{config}-{{split}}.jsonl",
                splits="train=Train validation=Dev test=Test",
            ),
            hugging_face(config),
            tfds_folder(f"ai2_arc/{config}/*"),
        ),
        shots=25,
        texts={"question": Text(("question.stem", "question"))},
        options=Options(("question.choices.text", "choices.text")),
        gold=(
            Gold(("answerKey",), labels="question.choices.label"),
            Gold(("answerKey",), labels="choices.label"),
        ),
        formats={
            "harness": Format(
                context="Question: {question}\nAnswer:",
                choices=TEXTS,
                metrics=("accuracy", "accuracy_chars", "accuracy_norm", "accuracy_pmi"),
            )
        },
    )


ARC_CHALLENGE = _arc("arc_challenge", "ARC-Challenge")
ARC_EASY = _arc("arc_easy", "ARC-Easy")

BENCHMARKS = (AGIEVAL, AGIEVAL_CLOZE, ARC_CHALLENGE, ARC_EASY)
