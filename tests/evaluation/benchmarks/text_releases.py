"""Small releases of benchmarks about texts: the same made items in every layout."""

from tests.evaluation.benchmarks.releases import Release, Rows, jsonl, plain_tsv, squad, table

_xcopa = [
    {
        "premise": f'Er sagte "{n}".',
        "choice1": f"A {n}",
        "choice2": f"B {n}",
        "question": "cause",
        "label": n % 2,
        "idx": n,
        "changed": False,
    }
    for n in (1, 2, 3)
]
_stories = [
    {"InputStoryid": f"id-{n}"}
    | {f"InputSentence{i}": f'S"{i}{n}.' for i in range(1, 5)}
    | {f"RandomFifthSentenceQuiz{i}": f"E{i}{n}." for i in (1, 2)}
    | {"AnswerRightEnding": 1 + n % 2}
    for n in (1, 2, 3)
]
_story_names = ("story_id", *(f"input_sentence_{i}" for i in range(1, 5)))
_story_names += ("sentence_quiz1", "sentence_quiz2", "answer_right_ending")
_nli = [
    {"premise": f'"P" {n}', "hypothesis": f'He "{n}', "label": ("entailment", "neutral")[n % 2]}
    for n in (1, 2, 3)
]
_nli_hub = [row | {"label": ("entailment", "neutral").index(row["label"])} for row in _nli]
_nli_all = [
    {
        "premise": {"de": row["premise"], "en": "x"},
        "hypothesis": {"language": ["en", "de"], "translation": ["y", row["hypothesis"]]},
        "label": row["label"],
    }
    for row in _nli_hub
]
_paws = [
    {"sentence1": f'"P" and {n} .', "sentence2": f'He said "{n} .', "label": n % 2} for n in (1, 2)
]
_paws_own = [{"id": n, **row} for n, row in enumerate(_paws, 1)]
_bele = [
    {
        "link": "l",
        "question_number": n,
        "flores_passage": f'P "{n}".',
        "question": f"Q{n}? ",
        **{f"mc_answer{i}": f"a{i}" for i in range(1, 5)},
        "correct_answer_num": str(1 + n),
        "dialect": "kaz_Cyrl",
    }
    for n in (1, 2)
]

RANKED = [
    Release(
        "xcopa",
        "et",
        asks='Er sagte "1" sest',
        answer=(1,),
        authors={f"data/et/{split}.et.jsonl": jsonl(_xcopa) for split in ("val", "test")},
        hub={("et", split): _xcopa for split in ("validation", "test")},
    ),
    Release(
        "xstorycloze",
        "my",
        asks='S"11. S"21. S"31. S"41.',
        answer=(1,),
        authors={
            f"spring2016.val.my.tsv.split_20_80_{split}.tsv": plain_tsv(_stories)
            for split in ("train", "eval")
        },
        hub={
            ("my", split): [dict(zip(_story_names, row.values(), strict=True)) for row in _stories]
            for split in ("train", "eval")
        },
    ),
    Release(
        "xnli",
        "de",
        asks="",
        answer=(1,),
        authors={f"{split}-de.tsv": plain_tsv(_nli, header=False) for split in ("train", "dev")},
        hub={("de", split): _nli_hub for split in ("train", "validation")},
        tfds=("xnli", {"validation": _nli_all}),
    ),
    Release(
        "xnli",
        "de",
        asks="",
        answer=(1,),
        authors={
            "XNLI-MT-1.0/multinli/multinli.train.de.tsv": plain_tsv(
                [
                    {"premise": row["premise"], "hypo": row["hypothesis"], "label": "contradictory"}
                    for row in _nli
                ]
            ),
            "XNLI-1.0/xnli.dev.tsv": plain_tsv(
                [
                    {
                        "language": language,
                        "gold_label": row["label"],
                        "sentence1": row["premise"],
                        "sentence2": row["hypothesis"],
                    }
                    for language in ("en", "de")
                    for row in _nli
                ]
            ),
        },
        hub={
            ("all_languages", "train"): [row | {"label": 2} for row in _nli_all],
            ("all_languages", "validation"): _nli_all,
        },
    ),
    Release(
        "pawsx",
        "de",
        asks="",
        answer=(1,),
        authors={f"{s}-de.tsv": table(_paws, "\t", header=False) for s in ("train", "test")},
        hub={("de", split): _paws_own for split in ("train", "validation", "test")},
        tfds=("paws_x_wiki/de", {"train": _paws, "test": _paws}),
    ),
    *(
        Release(
            "pawsx",
            "de",
            asks="",
            answer=(1,),
            authors={
                f"x-final/de/{name}.tsv": text for name in ("translated_train", "dev_2k", "test_2k")
            },
        )
        for text in (plain_tsv(_paws_own), table(_paws_own, "\t"))
    ),
    Release(
        "belebele",
        "kk",
        asks='P "1".\nQuestion: Q1? \n A. a1\n B. a2\n C. a3\n D. a4\nAnswer:',
        answer=(1,),
        authors={"data/kaz_Cyrl.jsonl": jsonl(_bele)},
        hub={("kaz_Cyrl", "test"): _bele},
    ),
]

_spans = [
    {
        "id": f"swahili--{n}",
        "title": "T",
        "context": f'C "{n}" x',
        "question": f"Q{n}?",
        "answers": {"text": ["x"], "answer_start": [6]},
    }
    for n in (1, 2)
]
_bengali = [row | {"id": f"bengali--{n}"} for n, row in enumerate(_spans)]
_gsm = [
    {
        "question": f'How "{n}"?',
        "answer": None,
        "answer_number": 1000 + n,
        "equation_solution": None,
    }
    for n in (1, 2)
]
_exemplars = {
    str(n): {"q": f"Frage: {n}?", "a": f"Schritt-für-Schritt-Antwort: Die Antwort lautet {a}."}
    for n, a in enumerate((11, 29), 1)
}
_gsm_shots = [
    {"question": shot["q"], "answer": shot["a"], "answer_number": number, "equation_solution": ""}
    for shot, number in zip(_exemplars.values(), (11, 29), strict=True)
]
_mif = [
    {
        "key": 1,
        "prompt": 'Жаз "а".',
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
]
_tydiqa = dict(asks='Muktadha: C "1" x\n\nSwali: Q1?\n\nJibu:', answer=("x",))

WRITTEN = [
    Release(
        "tydiqa",
        "sw",
        **_tydiqa,
        authors={
            "tydiqa-goldp-v1.1-train.json": squad(_bengali + _spans),
            "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-swahili.json": squad(_spans),
            "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-bengali.json": squad(_bengali),
        },
        hub={("secondary_task", split): _bengali + _spans for split in ("train", "validation")},
        tfds=("tydi_qa/goldp", {split: _bengali + _spans for split in ("train", "validation")}),
    ),
    *(
        Release(
            "tydiqa",
            "sw",
            **_tydiqa,
            authors={
                path.replace("SPLIT", split): squad(_spans if "sw." in path else _bengali + _spans)
                for split in ("train", "dev")
            },
        )
        for path in (
            "tydiqa-goldp-v1.1-SPLIT/tydiqa.goldp.sw.SPLIT.json",
            "tydiqa-goldp-v1.1-SPLIT/tydiqa.sw.SPLIT.json",
            "tydiqa-goldp-v1.1-SPLIT.json",
        )
    ),
    Release(
        "mlqa",
        "de",
        asks='Context: C "1" x\n\nQuestion: Q1?\n\nAnswer:',
        answer=("x",),
        authors={
            f"MLQA_V1/{split}/{split}-context-de-question-de.json": squad(_spans)
            for split in ("dev", "test")
        },
        hub={("mlqa.de.de", split): _spans for split in ("validation", "test")},
        tfds=("mlqa/de", {split: _spans for split in ("validation", "test")}),
    ),
    Release(
        "mgsm",
        "de",
        asks='Frage: How "1"?\nAntwort:',
        answer=("1001",),
        authors={
            "exemplars.py": f"MGSM_EXEMPLARS = {{'de': {_exemplars}}}\n",
            "mgsm_de.tsv": 'How "1"?\t1001\nHow "2"?\t1002\n',
        },
        hub={("de", "train"): _gsm_shots, ("de", "test"): _gsm},
    ),
    Release(
        "marco_bench_mif",
        "kk",
        asks='Жаз "а".',
        answer=('Жаз "а".',),
        authors={"Marco-Bench-MIF/data/kk.jsonl": jsonl(_mif)},
        shots=0,
    ),
]


def _sentences(language: str) -> list[str]:
    return [f'{language} "{n}" sentence.' for n in range(1, 4)]


_SPLITS = {"dev": "validation", "devtest": "test"}
_kk, _zh = _sentences("kk"), _sentences("zh")
_flores_asks = dict(
    asks='Kazakh sentence: kk "1" sentence.\nChinese sentence:', answer=('zh "1" sentence.',)
)


def _plus(code: str, texts: list[str]) -> Rows:
    language, script = code.split("_")
    return [
        {"id": n, "iso_639_3": language, "iso_15924": script, "text": text, "domain": "wikinews"}
        for n, text in enumerate(texts)
    ]


_newstest = {
    f"{folder}/{stem}-deen-{side}.sgm": "<srcset>\n<doc>\n<p>\n"
    + "".join(f'<seg id="{n}">{text}</seg>\n' for n, text in enumerate(texts, 1))
    + "</p>\n</doc>\n</srcset>\n"
    for folder, stem in (("dev", "newstest2015"), ("test", "newstest2016"))
    for side, texts in (("src.de", _kk), ("ref.en", _zh))
}
_wmt = [{"de": de, "en": en} for de, en in zip(_kk, _zh, strict=True)]


def _sentence_files(path, chinese):
    """Files with a sentence a line; `chinese` is their code of that language."""
    return {
        path.format(split=split, code=code): "\n".join(texts) + "\n"
        for split in _SPLITS
        for code, texts in (("kaz_Cyrl", _kk), (chinese, _zh))
    }


TRANSLATION = [
    Release(
        "flores",
        "kk-zh",
        **_flores_asks,
        authors=_sentence_files("flores200_dataset/{split}/{code}.{split}", "zho_Hans"),
        hub={
            (code, split): [{"id": n, "sentence": text} for n, text in enumerate(texts, 1)]
            for split in _SPLITS
            for code, texts in (("kaz_Cyrl", _kk), ("zho_Hans", _zh))
        },
    ),
    Release(
        "flores",
        "kk-zh",
        **_flores_asks,
        hub={
            ("all", split): [
                {"id": n, "sentence_kaz_Cyrl": kk, "sentence_zho_Hans": zh}
                for n, (kk, zh) in enumerate(zip(_kk, _zh, strict=True), 1)
            ]
            for split in _SPLITS
        },
    ),
    Release(
        "flores_plus",
        "kk-zh",
        **_flores_asks,
        authors=_sentence_files("floresp-v2.0-rc.3/{split}/{split}.{code}", "cmn_Hans"),
        hub={
            (code, split): _plus(code, texts)
            for split in _SPLITS
            for code, texts in (("kaz_Cyrl", _kk), ("cmn_Hans", _zh))
        },
    ),
    Release(
        "flores_plus",
        "kk-zh",
        **_flores_asks,
        authors={
            f"{split}/{code}.jsonl": jsonl(_plus(code, texts))
            for split in _SPLITS
            for code, texts in (("kaz_Cyrl", _kk), ("cmn_Hans", _zh))
        },
        hub={
            ("", split): _plus("kaz_Cyrl", _kk) + _plus("cmn_Hans", _zh) + _plus("cmn_Hant", _kk)
            for split in _SPLITS
        },
    ),
    Release(
        "flores_passages",
        "kk-zh",
        **_flores_asks,
        authors={
            f"{code}.jsonl": jsonl(_plus(code, texts))
            for code, texts in (("kaz_Cyrl", _kk), ("zho_Hans", _zh))
        },
    ),
    Release(
        "wmt16",
        "de-en",
        asks='German phrase: kk "1" sentence.\nEnglish phrase:',
        answer=('zh "1" sentence.',),
        authors=_newstest,
        hub={
            ("de-en", split): [{"translation": row} for row in _wmt]
            for split in ("validation", "test")
        },
        tfds=("wmt16_translate/de-en", {split: _wmt for split in ("validation", "test")}),
    ),
]
