"""INCLUDE (arXiv 2411.19799), exams of many regions, and SIB-200 (arXiv 2309.07445), topics."""

from marco_jax.evaluation.benchmarks.spec import (
    LETTERS,
    Benchmark,
    Format,
    Gold,
    Options,
    Text,
    hugging_face,
    local_files,
    merged,
)
from marco_jax.evaluation.benchmarks.tables.translation import FLORES

_DOMAINS = {
    "A": "Applied Science",
    "B": "Business & Commerce",
    "D": "Driving License",
    "E": "Health oriented education",
    "G": "General knowledge",
    "H": "Arts & Humanities",
    "L": "Marine License",
    "M": "Medical License",
    "P": "Professional certification",
    "S": "Social Science",
    "T": "STEM",
}

# Each language's code, the dataset's name of it, and the domains that it has questions of.
_INCLUDE_LANGUAGES = """
    sq Albanian HBEST
    ar Arabic HBDGST
    hy Armenian HDST
    az Azerbaijani AHBEST
    eu Basque P
    be Belarusian HST
    bn Bengali HGPT
    bg Bulgarian HST
    zh Chinese AHBDEPST
    hr Croatian HST
    nl Dutch AHEST
    et Estonian AHEST
    fi Finnish AHEST
    fr French HDEST
    ka Georgian H
    de German DST
    el Greek HBEMPST
    he Hebrew HD
    hi Hindi AHDGEPST
    hu Hungarian AST
    id Indonesian AHPST
    it Italian AHEPST
    ja Japanese DMP
    kk Kazakh H
    ko Korean PS
    lt Lithuanian HBPST
    ms Malay HBS
    ml Malayalam HGELST
    ne Nepali DP
    mk North Macedonian HBST
    fa Persian HDPST
    pl Polish PST
    pt Portuguese AHBEST
    ru Russian AHBDELST
    sr Serbian HST
    es Spanish HEST
    tl Tagalog HD
    ta Tamil GT
    te Telugu AHST
    tr Turkish HBST
    uk Ukrainian HST
    ur Urdu HET
    uz Uzbek HMST
    vi Vietnamese HST
"""
_INCLUDE = {
    code: (" ".join(name), tuple(_DOMAINS[letter] for letter in domains))
    for code, *name, domains in map(str.split, _INCLUDE_LANGUAGES.strip().splitlines())
}

INCLUDE = Benchmark(
    name="include",
    about="CohereLabs/include-base-44: LANGUAGE/{validation,test}-*.parquet with a column domain",
    languages=tuple(_INCLUDE),
    codes={code: name for code, (name, _) in _INCLUDE.items()},
    sources=hugging_face("{code}", "validation test", where={"domain": "{part}"}),
    parts={code: domains for code, (_, domains) in _INCLUDE.items()},
    shots=5,
    texts={"question": Text(("question",), edits=("strip",))},
    options=Options((("option_a", "option_b", "option_c", "option_d"), "choices")),
    gold=(Gold(("answer",)),),
    formats={
        # lm-evaluation-harness's format: nothing separates description and question, and a space
        # precedes the last option. Its shots come from the test split.
        "harness": Format(
            context=(
                "{question}\nA. {option_texts[0]}\nB. {option_texts[1]}\nC. {option_texts[2]}\n "
                "D. {option_texts[3]}\nAnswer:"
            ),
            choices=LETTERS,
            description="The following is multiple-choice question about {part}.",
            pool=("test",),
            excludes_item=False,
            shots=0,
        ),
        "letter": Format(
            context="{question}\n{options}\nAnswer:",
            choices=LETTERS,
            description=(
                "The following are multiple choice questions (with answers) about {part}.\n\n"
            ),
            sampler="first_n",
            up_to=True,
            # The few examples of the validation split are not of all domains.
            pool=("validation", "test"),
        ),
    },
)

_TOPICS = (
    *("science/technology", "travel", "politics", "sports", "health", "entertainment"),
    "geography",
)

SIB200 = Benchmark(
    name="sib200",
    question_id=("index_id",),
    about="SIB-200 (dadelani/sib-200, Davlan/sib200): CODE/{train,dev,test}.tsv",
    languages=tuple(FLORES),
    codes=FLORES,
    open_codes=True,
    sources=merged(
        # Written by pandas, so that texts with quotes are quoted.
        local_files(
            *(
                f"{folder}{{code}}/{{split}}.tsv"
                for folder in ("", "data/annotated/", "annotated/", "data/")
            ),
            splits="train validation=dev test",
            quotes="csv",
        ),
        hugging_face("{code}"),
    ),
    texts={"text": Text(("text",))},
    gold=(Gold(("category",), words=_TOPICS),),
    formats={
        # The first of lm-evaluation-harness's five prompts (AfroBench).
        "harness": Format(
            context=(
                "Given the categories science/technology, travel, politics, sports, health, "
                "entertainment, or geography; what category does the text: '{text}' belong to: \n\n"
            ),
            choices=_TOPICS,
            pool=("validation",),
        )
    },
)

BENCHMARKS = (INCLUDE, SIB200)
