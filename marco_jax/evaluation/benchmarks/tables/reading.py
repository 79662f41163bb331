"""Generation benchmarks TyDiQA-GoldP, MLQA and MGSM, in formats of lm-evaluation-harness 0.4.13."""

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

# By language: its name in question ids, and the words for context, question and answer.
_TYDIQA = {
    "ar": ("arabic", "السياق", "السؤال", "الإجابة"),
    "bn": ("bengali", "প্রসঙ্গ", "প্রশ্ন", "উত্তর"),
    "en": ("english", "Context", "Question", "Answer"),
    "fi": ("finnish", "Konteksti", "Kysymys", "Vastaus"),
    "id": ("indonesian", "Konteks", "Pertanyaan", "Jawaban"),
    "ko": ("korean", "맥락", "질문", "답변"),
    "ru": ("russian", "Контекст", "Вопрос", "Ответ"),
    "sw": ("swahili", "Muktadha", "Swali", "Jibu"),
    "te": ("telugu", "సందర్భం", "ప్రశ్న", "సమాధానం"),
}
_SPAN_TEXTS = {"passage": Text(("context",)), "question": Text(("question",))}

TYDIQA = Benchmark(
    name="tydiqa",
    folder="tydiqa_goldp",
    about="TyDi QA gold passage: tydiqa-goldp-v1.1-{train,dev}.json, or XTREME's file a language",
    languages=tuple(_TYDIQA),
    codes={code: name for code, (name, *_) in _TYDIQA.items()},
    words={
        code: {"context_word": context, "question_word": question, "answer_word": answer}
        for code, (_, context, question, answer) in _TYDIQA.items()
    },
    sources=merged(
        {
            split: (
                RowSource(f"tydiqa.goldp.{{language}}.{name}.json", form="squad"),
                RowSource(f"tydiqa-goldp-v1.1-{name}.json", form="squad", where={"id": "{code}-*"}),
                RowSource(f"tydiqa-goldp-v1.1-{name}/{{code}}-{name}.json", form="squad"),
            )
            for split, name in (("train", "train"), ("validation", "dev"))
        },
        hugging_face(
            "secondary_task",
            {"train": "train", "validation": "validation"},
            where={"id": "{code}-*"},
        ),
        {
            split: (
                RowSource("tydi_qa/goldp/*", form="tfds", split=split, where={"id": "{code}-*"}),
            )
            for split in ("train", "validation")
        },
    ),
    splits=("validation",),
    shots=1,
    texts=_SPAN_TEXTS,
    references=("answers.text",),
    formats={
        "harness": Format(
            context=("{context_word}: {passage}\n\n{question_word}: {question}\n\n{answer_word}:"),
            target="{reference}",
            pool=("train", "validation"),
            stop=("\n",),
            metrics=("f1", "exact_match", "f1_segmented", "f1_extracted"),
            span_rules="tydiqa",
        )
    },
)

_MLQA = ("ar", "de", "en", "es", "hi", "vi", "zh")

MLQA = Benchmark(
    name="mlqa",
    folder="mlqa",
    about="MLQA_V1: {dev,test}/{dev,test}-context-LL-question-LL.json",
    languages=_MLQA,
    pairs="context",
    sources=merged(
        {
            split: tuple(
                RowSource(
                    f"{folder}{name}-context-{{source}}-question-{{target}}.json", form="squad"
                )
                for folder in ("", f"{name}/", f"MLQA_V1/{name}/")
            )
            for split, name in (("validation", "dev"), ("test", "test"))
        },
        hugging_face("mlqa.{source}.{target}", {"validation": "validation", "test": "test"}),
        {
            split: (RowSource("mlqa/{language}/*", form="tfds", split=split),)
            for split in ("validation", "test")
        },
    ),
    splits=("test", "validation"),
    texts=_SPAN_TEXTS,
    references=("answers.text",),
    formats={
        "harness": Format(
            context="Context: {passage}\n\nQuestion: {question}\n\nAnswer:",
            target="{reference}",
            pool=("validation",),
            stop=("\n",),
            metrics=("f1", "exact_match", "f1_segmented", "f1_extracted"),
            span_rules="mlqa",
        )
    },
)

# By language: the words before a question, a plain answer and a step-by-step answer, and the
# sentence in which the steps state the number.
_MGSM = {
    "bn": ("প্রশ্ন:", "Answer:", "ধাপে ধাপে উত্তর:", "The answer is {}"),
    "de": ("Frage:", "Antwort:", "Schritt-für-Schritt-Antwort:", "Die Antwort lautet {}"),
    "en": ("Question:", "Answer:", "Step-by-Step Answer:", "The answer is {}"),
    "es": ("Pregunta:", "Respuesta:", "Respuesta paso a paso:", "La respuesta es {}"),
    "fr": ("Question :", "Réponse :", "Réponse étape par étape :", "La réponse est {}"),
    "ja": ("問題：", "Answer:", "ステップごとの答え:", "答えは{}です。"),
    "ru": ("Задача:", "Answer:", "Пошаговоерешение:", "Ответ — {}"),
    "sw": ("Swali:", "Answer:", "Jibu la Hatua kwa Hatua:", "Jibu ni {}"),
    "te": ("ప్రశ్న:", "Answer:", "దశలవారీగా సమాధానం:", "సమాధానం {}"),
    "th": ("โจทย์:", "Answer:", "คำตอบทีละขั้นตอน:", "คำตอบคือ {}"),
    "zh": ("问题：", "Answer:", "逐步解答:", "答案是 {}。"),
}
_MGSM_FORMAT = Format(
    context="",
    pool=("train",),
    stop=("{question_word}", "</s>", "<|im_end|>"),
    max_new_tokens=256,
)

MGSM = Benchmark(
    name="mgsm",
    folder="mgsm",
    about="google-research/url-nlp mgsm: mgsm_LL.tsv and exemplars.py (or the same as .json)",
    languages=tuple(_MGSM),
    words={
        code: {
            "question_word": question,
            "answer_word": answer,
            "steps_word": steps,
            "answer_sentence": sentence,
        }
        for code, (question, answer, steps, sentence) in _MGSM.items()
    },
    sources=merged(
        {
            "train": tuple(
                RowSource(name, form="exemplars", where={"language": "{language}"})
                for name in ("exemplars.json", "exemplars.py")
            ),
            "test": (RowSource("mgsm_{language}.tsv", columns=("question", "answer_number")),),
        },
        hugging_face("{language}", {"train": "train", "test": "test"}),
    ),
    splits=("test",),
    shots=8,
    texts={
        "question": Text(("question",)),
        # The examples' answers start with the words for "step by step"; like the harness, remove
        # as many characters as its spelling of them has.
        "steps": Text(("answer",), edits=("drop_word:steps_word",), may_be_empty=True),
    },
    references=("answer_number",),
    formats={
        "direct": dataclasses.replace(
            _MGSM_FORMAT,
            context="{question_word} {question}\n{answer_word}",
            shot_context="{question}\n{answer_word}",
            target="{reference}",
            delimiter="",
            metrics=("exact_match_flexible", "exact_match"),
        ),
        "native_cot": dataclasses.replace(
            _MGSM_FORMAT,
            context="{question_word} {question}\n{steps_word}",
            shot_context="{question}\n{steps_word}",
            target="{steps}",
            metrics=("exact_match_flexible", "exact_match_strict"),
        ),
    },
)

BENCHMARKS = (TYDIQA, MLQA, MGSM)
