"""Benchmarks that rank continuations: XCOPA, XStoryCloze, XNLI, PAWS-X.

Formats and words follow lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from marco_jax.evaluation.benchmarks.spec import (
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


def _causes(**words: tuple[str, str]) -> dict[str, dict[str, str]]:
    return {code: {"cause": cause, "effect": effect} for code, (cause, effect) in words.items()}


XCOPA = Benchmark(
    name="xcopa",
    folder="xcopa",
    about="cambridgeltl/xcopa: data/LL/{val,test}.LL.jsonl; English is COPA itself",
    languages=("en", "et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
    sources=merged(
        {
            "validation": (
                RowSource("val.{language}.jsonl"),
                RowSource("{language}/val.{language}.jsonl"),
                RowSource("data/{language}/val.{language}.jsonl"),
                RowSource("copa_val-{language}.jsonl"),
            ),
            "test": (
                RowSource("test.{language}.jsonl"),
                RowSource("{language}/test.{language}.jsonl"),
                RowSource("data/{language}/test.{language}.jsonl"),
            ),
            "train": (RowSource("copa_train-{language}.jsonl"),),
        },
        hugging_face("{language}", {"validation": "validation", "test": "test"}),
    ),
    splits=("test", "validation"),
    paper_split="validation",
    shots=5,
    texts={
        "premise": Text(("premise",), edits=("strip", "drop_last")),
        "question": Text(("question",)),
    },
    options=Options((("choice1", "choice2"),), edits=("lower_first",)),
    gold=(Gold(("label",)),),
    word_by="question",
    words=_causes(
        en=("because", "therefore"),
        et=("sest", "seetõttu"),
        ht=("poukisa", "donk sa"),
        id=("karena", "maka"),
        it=("perché", "quindi"),
        qu=("imataq", "chaymi"),
        sw=("kwa sababu", "kwa hiyo"),
        ta=("காரணமாக", "எனவே"),
        th=("เพราะ", "ดังนั้น"),
        tr=("çünkü", "bu yüzden"),
        vi=("bởi vì", "vì vậy"),
        zh=("因为", "所以"),
    ),
    formats={
        "harness": Format(
            context="{premise} {word}",
            choices=TEXTS,
            pool=("validation",),
            metrics=("accuracy", "accuracy_pmi"),
        ),
    },
)

XSTORYCLOZE = Benchmark(
    name="xstorycloze",
    folder="xstorycloze",
    about="XStoryCloze of XGLM: spring2016.val.LL.tsv.split_20_80_{train,eval}.tsv",
    languages=("ar", "en", "es", "eu", "hi", "id", "my", "ru", "sw", "te", "zh"),
    sources=merged(
        {
            "train": (RowSource("spring2016.val.{language}.tsv.split_20_80_train.tsv"),),
            "validation": (RowSource("spring2016.val.{language}.tsv.split_20_80_eval.tsv"),),
        },
        hugging_face("{language}", {"train": "train", "validation": "eval"}),
    ),
    splits=("validation",),
    shots=5,
    texts={
        f"sentence_{n}": Text((f"InputSentence{n}", f"input_sentence_{n}")) for n in range(1, 5)
    },
    options=Options(
        (
            ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"),
            ("sentence_quiz1", "sentence_quiz2"),
        )
    ),
    gold=(Gold(("AnswerRightEnding", "answer_right_ending"), first=1),),
    formats={
        "harness": Format(
            context="{sentence_1} {sentence_2} {sentence_3} {sentence_4}",
            choices=TEXTS,
            excludes_item=True,
            metrics=("accuracy", "accuracy_pmi"),
        ),
    },
)


def _claims(**words: tuple[str, str, str, str]) -> dict[str, dict[str, str]]:
    names = ("right", "entailment", "neutral", "contradiction")
    return {code: dict(zip(names, values, strict=True)) for code, values in words.items()}


_XNLI_WORDS = _claims(
    ar=("صحيح", "نعم", "لذا", "رقم"),
    bg=("правилно", "да", "така", "не"),
    de=("richtig", "Ja", "Auch", "Nein"),
    el=("σωστός", "Ναί", "Έτσι", "όχι"),
    en=("right", "Yes", "Also", "No"),
    es=("correcto", "Sí", "Asi que", "No"),
    fr=("correct", "Oui", "Aussi", "Non"),
    hi=("सही", "हाँ", "इसलिए", "नहीं"),
    ru=("правильно", "Да", "Так", "Нет"),
    sw=("sahihi", "Ndiyo", "Hivyo", "Hapana"),
    th=("ถูกต้อง", "ใช่", "ดังนั้น", "ไม่"),
    tr=("doğru", "Evet", "Böylece", "Hayır"),
    ur=("صحیح", "جی ہاں", "اس لئے", "نہیں"),
    vi=("đúng", "Vâng", "Vì vậy", "Không"),
    zh=("正确", "是的", "所以", "不是的"),
)

XNLI = Benchmark(
    name="xnli",
    folder="xnli",
    about="XNLI in the layout of XTREME: {train,dev,test}-LL.tsv without a header",
    languages=tuple(_XNLI_WORDS),
    sources=merged(
        {
            split: (
                RowSource(f"{name}-{{language}}.tsv", columns=("premise", "hypothesis", "label")),
                RowSource(f"{name}.{{language}}.tsv", columns=("premise", "hypothesis", "label")),
            )
            for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        {
            split: (
                RowSource(f"xnli.{name}.tsv", where={"language": "{language}"}),
                RowSource(f"XNLI-1.0/xnli.{name}.tsv", where={"language": "{language}"}),
            )
            for split, name in (("validation", "dev"), ("test", "test"))
        },
        hugging_face("{language}"),
    ),
    splits=("validation", "test"),
    texts={
        "premise": Text(("premise", "sentence1")),
        "hypothesis": Text(("hypothesis", "sentence2")),
    },
    gold=(Gold(("label", "gold_label"), words=("entailment", "neutral", "contradiction")),),
    words=_XNLI_WORDS,
    formats={
        "harness": Format(
            context="",
            choices=tuple(
                f"{{premise}}, {{right}}? {{{label}}}, {{hypothesis}}"
                for label in ("entailment", "neutral", "contradiction")
            ),
            excludes_item=True,
            metrics=("accuracy",),
        ),
    },
)

PAWSX = Benchmark(
    name="pawsx",
    folder="pawsx",
    about="PAWS-X: XTREME's {train,dev,test}-LL.tsv, or x-final/LL/*_2k.tsv with a header",
    languages=("de", "en", "es", "fr", "ja", "ko", "zh"),
    sources=merged(
        {
            split: (
                RowSource(f"{name}-{{language}}.tsv", columns=("sentence1", "sentence2", "label")),
                *(
                    RowSource(f"{folder}{{language}}/{original}.tsv")
                    for folder in ("", "x-final/")
                    for original in (f"{name}_2k", "translated_train" if name == "train" else name)
                ),
                RowSource("paws_x_wiki/{language}/*", form="tfds", split=split),
            )
            for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        hugging_face("{language}"),
    ),
    splits=("test", "validation"),
    texts={
        "sentence1": Text(
            ("sentence1",), edits=("detokenize", "strip", "drop_final_mark"), skips_blank=True
        ),
        "sentence2": Text(
            ("sentence2",), edits=("detokenize", "strip", "lower_first"), skips_blank=True
        ),
    },
    # In these three languages the harness takes texts unedited, with blank sentences; so do we.
    # Sentences that were not translated are "NS" in the files and kept.
    texts_in={
        code: {name: Text((name,), may_be_empty=True) for name in ("sentence1", "sentence2")}
        for code in ("ja", "ko", "zh")
    },
    gold=(Gold(("label",)),),
    words={
        code: {"right": right, "no": no, "yes": yes}
        for code, right, no, yes in (
            ("de", "richtig", "Nein", "Ja"),
            ("en", "right", "No", "Yes"),
            ("es", "verdad", "No", "Sí"),
            ("fr", "n'est-ce pas", "Non", "Oui"),
            ("ja", "ですね", "いいえ", "はい"),
            ("ko", "맞죠", "아니요", "예"),
            ("zh", "对吧", "不是", "是"),
        )
    },
    formats={
        "harness": Format(
            context="",
            choices=tuple(
                f"{{sentence1}}, {{right}}? {{{answer}}}, {{sentence2}}" for answer in ("no", "yes")
            ),
            delimiter="",
            metrics=("accuracy",),
        ),
    },
)

BENCHMARKS = (XCOPA, XSTORYCLOZE, XNLI, PAWSX)
