"""Benchmarks that rank continuations: XCOPA, XStoryCloze, XNLI, PAWS-X.

Formats and words follow lm-evaluation-harness 0.4.13.
"""

from marco_jax.evaluation.benchmarks.spec import (
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
    tfds_folder,
)


def _words(names: tuple[str, ...], **words: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Words for templates by language, from each language's words in the order of `names`."""
    return {code: dict(zip(names, own, strict=True)) for code, own in words.items()}


XCOPA = Benchmark(
    name="xcopa",
    question_id=("idx",),
    about="cambridgeltl/xcopa: data/LL/{val,test}.LL.jsonl; English is COPA itself",
    languages=("en", "et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
    sources=merged(
        local_files(
            "{split}.{language}.jsonl",
            "{language}/{split}.{language}.jsonl",
            "data/{language}/{split}.{language}.jsonl",
            splits="validation=val test",
        ),
        local_files("copa_{split}-{language}.jsonl", splits="validation=val train"),
        hugging_face("{language}", "validation test"),
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
    words=_words(
        ("cause", "effect"),
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
        )
    },
)

XSTORYCLOZE = Benchmark(
    name="xstorycloze",
    question_id=(ROW_NUMBER,),
    about="XStoryCloze of XGLM: spring2016.val.LL.tsv.split_20_80_{train,eval}.tsv",
    languages=("ar", "en", "es", "eu", "hi", "id", "my", "ru", "sw", "te", "zh"),
    sources=merged(
        local_files(
            "spring2016.val.{language}.tsv.split_20_80_{split}.tsv", splits="train validation=eval"
        ),
        hugging_face("{language}", "train validation=eval"),
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
        )
    },
)


_LABELS = ("entailment", "neutral", "contradiction")
_XNLI_WORDS = _words(
    ("right", *_LABELS),
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
    question_id=(ROW_NUMBER,),
    about="XNLI in the layout of XTREME: {train,dev,test}-LL.tsv without a header",
    languages=tuple(_XNLI_WORDS),
    sources=merged(
        local_files(
            *("{split}-{language}.tsv", "{split}.{language}.tsv"),
            splits="train validation=dev test",
            columns=("premise", "hypothesis", "label"),
        ),
        local_files(
            *("xnli.{split}.tsv", "XNLI-1.0/xnli.{split}.tsv"),
            splits="validation=dev test",
            where={"language": "{language}"},
        ),
        local_files(
            *(
                f"{folder}multinli.train.{{language}}.tsv"
                for folder in ("", "XNLI-MT-1.0/multinli/")
            ),
            splits="train",
        ),
        tfds_folder("xnli/*", "validation test"),
        hugging_face("{language}"),
        hugging_face("all_languages"),
    ),
    splits=("validation", "test"),
    texts={
        "premise": Text(("premise.{language}", "premise", "sentence1")),
        "hypothesis": Text(("hypothesis.{language}", "hypothesis", "sentence2", "hypo")),
    },
    # The training files say "contradictory".
    gold=(
        Gold(("label", "gold_label"), words=_LABELS, aliases={"contradictory": "contradiction"}),
    ),
    words=_XNLI_WORDS,
    formats={
        "harness": Format(
            choices=tuple(
                f"{{premise}}, {{right}}? {{{label}}}, {{hypothesis}}" for label in _LABELS
            ),
            excludes_item=True,
        )
    },
)

_PAWSX_FOLDERS = ("", "x-final/")
_PAWSX_TRAIN = ("train_2k.tsv", "translated_train.tsv", "train.tsv")

PAWSX = Benchmark(
    name="pawsx",
    question_id=("id",),
    about="PAWS-X: XTREME's {train,dev,test}-LL.tsv, or x-final/LL/*_2k.tsv with a header",
    languages=("de", "en", "es", "fr", "ja", "ko", "zh"),
    sources=merged(
        # XTREME's script writes these with Python's csv module.
        local_files(
            "{split}-{language}.tsv",
            splits="train validation=dev test",
            columns=("sentence1", "sentence2", "label"),
            quotes="csv",
        ),
        # Of the authors' own files, TFDS takes quotes for CSV's and the hub's script for text.
        local_files(
            *(f"{folder}{{language}}/{name}" for folder in _PAWSX_FOLDERS for name in _PAWSX_TRAIN),
            splits="train",
            quotes="either",
        ),
        local_files(
            *(
                f"{folder}{{language}}/{{split}}{size}.tsv"
                for folder in _PAWSX_FOLDERS
                for size in ("_2k", "")
            ),
            splits="validation=dev test",
            quotes="either",
        ),
        tfds_folder("paws_x_wiki/{language}/*"),
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
    words=_words(
        ("right", "no", "yes"),
        de=("richtig", "Nein", "Ja"),
        en=("right", "No", "Yes"),
        es=("verdad", "No", "Sí"),
        fr=("n'est-ce pas", "Non", "Oui"),
        ja=("ですね", "いいえ", "はい"),
        ko=("맞죠", "아니요", "예"),
        zh=("对吧", "不是", "是"),
    ),
    formats={
        "harness": Format(
            choices=tuple(
                f"{{sentence1}}, {{right}}? {{{answer}}}, {{sentence2}}" for answer in ("no", "yes")
            ),
            delimiter="",
        )
    },
)

BENCHMARKS = (XCOPA, XSTORYCLOZE, XNLI, PAWSX)
