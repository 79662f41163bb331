"""Reading and generation: Belebele, TyDiQA-GoldP, MLQA, MGSM and Marco-Bench-MIF.

Belebele is arXiv 2308.16884. Formats of TyDiQA-GoldP, MLQA and MGSM follow lm-evaluation-harness
0.4.13. Marco-Bench-MIF (arXiv 2507.11882) has verifiable instructions in 30 languages, IFEval
style: `marco_jax.evaluation.instructions` checks answers by `instruction_id_list` and `kwargs`,
both in `Prompt.fields`. Its prompts are user messages: chat models should be evaluated in their
chat template (`marco eval --chat`).
"""

import dataclasses

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
    tfds_folder,
)
from marco_jax.evaluation.benchmarks.tables.translation import FLORES

BELEBELE = Benchmark(
    name="belebele",
    question_id=("link", "question_number"),
    about="facebookresearch/belebele: CODE.jsonl, 900 questions a language",
    languages=tuple(FLORES),
    codes=FLORES,
    open_codes=True,
    sources=merged(
        local_files(*("{code}.jsonl", "data/{code}.jsonl", "Belebele/{code}.jsonl"), splits="test"),
        hugging_face("{code}", "test"),
    ),
    shots=1,
    texts={
        "passage": Text(("flores_passage", "passage")),
        "question": Text(("question",)),
    },
    options=Options((("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"), "choices")),
    gold=(Gold(("correct_answer_num",), first=1), Gold(("answer",))),
    formats={
        # LightEval's format, which the paper authors' later harness (Marco-LLM-eval) uses without
        # shots; it keeps spaces around questions. Published files differ in the order of lines, so
        # shots are chosen by content.
        "letter": Format(
            context="{passage}\nQuestion: {question}\n{options}\nAnswer:",
            option=" {letter}. {text}",
            choices=LETTERS,
            sampler="by_content",
        ),
        # lm-evaluation-harness's format; its shots are the first lines of the test file.
        "harness": Format(
            context="P: {passage}\nQ: {question}\n{options}\nAnswer:",
            edits={"question": ("strip",)},
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
_SPAN_FORMAT = Format(
    context="Context: {passage}\n\nQuestion: {question}\n\nAnswer:",
    target="{reference}",
    pool=("validation",),
    stop=("\n",),
    metrics=("f1", "exact_match", "f1_segmented", "f1_extracted"),
    span_rules="mlqa",
)

TYDIQA = Benchmark(
    name="tydiqa",
    folder="tydiqa_goldp",
    about="TyDi QA gold passage: tydiqa-goldp-v1.1-{train,dev}.json, or a file a language",
    languages=tuple(_TYDIQA),
    codes={code: name for code, (name, *_) in _TYDIQA.items()},
    words={
        code: {"context_word": context, "question_word": question, "answer_word": answer}
        for code, (_, context, question, answer) in _TYDIQA.items()
    },
    sources=merged(
        *(
            local_files(
                path,
                f"tydiqa-goldp-v1.1-{{split}}/{path}",
                splits="train validation=dev",
                form="squad",
                where=where,
            )
            for path, where in (
                # XTREME splits the training file, and renames the authors' files a language, which
                # are published for dev alone. Its first version had shorter names.
                ("tydiqa.goldp.{language}.{split}.json", {}),
                ("tydiqa.{language}.{split}.json", {}),
                ("tydiqa-goldp-{split}-{code}.json", {}),
                ("tydiqa-goldp-v1.1-{split}.json", {"id": "{code}-*"}),
            )
        ),
        hugging_face("secondary_task", "train validation", where={"id": "{code}-*"}),
        tfds_folder("tydi_qa/goldp/*", "train validation", where={"id": "{code}-*"}),
    ),
    splits=("validation",),
    shots=1,
    texts=_SPAN_TEXTS,
    references=("answers.text",),
    formats={
        "harness": dataclasses.replace(
            _SPAN_FORMAT,
            context="{context_word}: {passage}\n\n{question_word}: {question}\n\n{answer_word}:",
            pool=("train", "validation"),
            span_rules="tydiqa",
        )
    },
)

MLQA = Benchmark(
    name="mlqa",
    question_id=("id",),
    about="MLQA_V1: {dev,test}/{dev,test}-context-LL-question-LL.json",
    languages=("ar", "de", "en", "es", "hi", "vi", "zh"),
    pairs="context",
    sources=merged(
        local_files(
            "{split}-context-{source}-question-{target}.json",
            "{split}/{split}-context-{source}-question-{target}.json",
            "MLQA_V1/{split}/{split}-context-{source}-question-{target}.json",
            splits="validation=dev test",
            form="squad",
        ),
        hugging_face("mlqa.{source}.{target}", "validation test"),
        tfds_folder("mlqa/{language}/*", "validation test"),
    ),
    splits=("test", "validation"),
    texts=_SPAN_TEXTS,
    references=("answers.text",),
    formats={"harness": _SPAN_FORMAT},
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
_MGSM_FORMAT = Format(pool=("train",), stop=("{question_word}", "</s>", "<|im_end|>"))
_MGSM_WORDS = ("question_word", "answer_word", "steps_word", "answer_sentence")

MGSM = Benchmark(
    name="mgsm",
    question_id=(ROW_NUMBER,),
    about="google-research/url-nlp mgsm: mgsm_LL.tsv and exemplars.py (or the same as .json)",
    languages=tuple(_MGSM),
    words={code: dict(zip(_MGSM_WORDS, words, strict=True)) for code, words in _MGSM.items()},
    sources=merged(
        local_files(
            *("exemplars.json", "exemplars.py"),
            splits="train",
            form="exemplars",
            where={"language": "{language}"},
        ),
        local_files("mgsm_{language}.tsv", splits="test", columns=("question", "answer_number")),
        hugging_face("{language}", "train test"),
    ),
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

_MIF_LANGUAGES = """
    ar bn cs de el en es fr he hu id it ja kk ko ms ne nl pl pt ro ru sw th tr uk ur vi yo zh
"""

MARCO_BENCH_MIF = Benchmark(
    name="marco_bench_mif",
    question_id=("key",),
    about="AIDC-AI/Marco-LLM Marco-Bench-MIF: data/LL.jsonl, or LL_local.jsonl and LL_mt.jsonl",
    languages=tuple(_MIF_LANGUAGES.split()),
    sources=merged(
        local_files(
            *(
                f"{folder}{{language}}{kind}.jsonl"
                for folder in ("", "data/", "Marco-Bench-MIF/data/")
                for kind in ("", "_local", "_mt")
            ),
            splits="test",
        ),
        hugging_face("{language}", "test"),
    ),
    texts={"prompt": Text(("prompt",))},
    # There is no reference answer; the prompt is used so that the language is known.
    references=("prompt",),
    formats={
        "plain": Format(
            context="{prompt}",
            max_new_tokens=1280,
            metrics=(
                "prompt_level_strict_acc",
                "inst_level_strict_acc",
                "prompt_level_loose_acc",
                "inst_level_loose_acc",
                "language_rate",
            ),
        )
    },
)

BENCHMARKS = (BELEBELE, TYDIQA, MLQA, MGSM, MARCO_BENCH_MIF)
