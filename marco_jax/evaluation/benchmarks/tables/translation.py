"""FLORES-200, FLORES+, whole paragraphs of it, and WMT16; codes of languages."""

import dataclasses

from marco_jax.evaluation.benchmarks.spec import (
    Benchmark,
    Format,
    Sources,
    Text,
    hugging_face,
    local_files,
    merged,
    tfds_folder,
)

# FLORES-200 codes (language and script) of the 29 languages.
_CODES = """
    en=eng_Latn zh=zho_Hans ar=arb_Arab de=deu_Latn es=spa_Latn fr=fra_Latn ko=kor_Hang
    ja=jpn_Jpan pt=por_Latn tr=tur_Latn bn=ben_Beng he=heb_Hebr id=ind_Latn it=ita_Latn
    ms=zsm_Latn nl=nld_Latn pl=pol_Latn ru=rus_Cyrl th=tha_Thai uk=ukr_Cyrl ur=urd_Arab
    vi=vie_Latn cs=ces_Latn el=ell_Grek hu=hun_Latn kk=kaz_Cyrl ro=ron_Latn az=azj_Latn
    ne=npi_Deva
"""
FLORES = dict(code.split("=") for code in _CODES.split())

# Names of benchmark languages outside the 29.
OTHER_NAMES = {"fi": "Finnish"}

_TEXTS = {"source": Text(("source",)), "target": Text(("target",))}

_HARNESS = Format(
    context="{source_language} sentence: {source}\n{target_language} sentence:",
    target="{target}",
    # The harness's FLORES tasks put a shot's translation directly after the colon.
    delimiter="",
    pool=("validation",),
    stop=("\n",),
    metrics=("bleu", "chrf++", "spbleu", "language_rate"),
)
_AUTHORS = dataclasses.replace(
    _HARNESS,
    context=(
        "Please translate the following text from {source_language} to {target_language}:\n"
        "{source}\n"
    ),
    sampler="shuffled_42",
    max_new_tokens=512,
)


def _sentence_files(*paths: str) -> Sources:
    """Sources of files with a sentence a line; in `paths`, CODE is a side of the pair."""
    return merged(
        *(
            local_files(
                path.replace("CODE", "{source}"),
                splits="validation=dev test=devtest",
                target_path=path.replace("CODE", "{target}"),
                form="sentences",
            )
            for path in paths
        )
    )


_PLUS_FILES = ("{split}/{split}.CODE", "floresp-v2.0*/{split}/{split}.CODE")

FLORES_ANY = Benchmark(
    name="flores",
    question_id=("id",),
    folder="flores200",
    about="FLORES-200: {dev,devtest}/CODE.{dev,devtest}, one sentence a line, any pair",
    languages=tuple(FLORES),
    codes=FLORES,
    pairs="any",
    sources=merged(
        _sentence_files(
            *("{split}/CODE.{split}", "flores200_dataset/{split}/CODE.{split}"), *_PLUS_FILES
        ),
        hugging_face("all", "validation=dev test=devtest"),
        hugging_face("{source}-{target}", "validation=dev test=devtest"),
        hugging_face("{source}", "validation=dev test=devtest", target_config="{target}"),
    ),
    shots=1,
    texts=_TEXTS,
    references=("target",),
    formats={"harness": _HARNESS, "authors": dataclasses.replace(_AUTHORS, shots=5)},
)

# FLORES+ has another code of Mandarin.
_PLUS_CODES = FLORES | {"zh": "cmn_Hans"}

FLORES_PLUS = dataclasses.replace(
    FLORES_ANY,
    name="flores_plus",
    folder="flores_plus",
    about="FLORES+: {dev,devtest}/CODE.parquet with id and text, or {dev,devtest}.CODE",
    codes=_PLUS_CODES,
    sources=merged(
        _sentence_files(*_PLUS_FILES),
        *(
            local_files(
                f"{{split}}/{{source}}.{form}",
                splits="validation=dev test=devtest",
                target_path=f"{{split}}/{{target}}.{form}",
            )
            for form in ("parquet", "jsonl")
        ),
        hugging_face("{source}", "validation=dev test=devtest", target_config="{target}"),
        # One file with all languages.
        hugging_face(
            "",
            "validation=dev test=devtest",
            where={"iso_639_3": "{source_639}", "iso_15924": "{source_15924}"},
            target_config="",
        ),
    ),
)

FLORES_PASSAGES = dataclasses.replace(
    FLORES_ANY,
    name="flores_passages",
    folder="flores_passages",
    about="whole FLORES-200 paragraphs: CODE.jsonl with id and text; no split to take shots from",
    sources=local_files("{source}.jsonl", splits="test", target_path="{target}.jsonl"),
    formats={
        "harness": dataclasses.replace(_HARNESS, pool=("test",), max_new_tokens=512),
        "authors": dataclasses.replace(_AUTHORS, pool=("test",)),
    },
)


def _directions(benchmark: Benchmark) -> tuple[Benchmark, ...]:
    """Makes three benchmarks of one: any pair, from English, and into English."""
    others = tuple(code for code in benchmark.languages if code != "en")
    one_sided = [
        dataclasses.replace(
            benchmark, name=f"{benchmark.name}_{pairs}", pairs=pairs, languages=others
        )
        for pairs in ("from_en", "to_en")
    ]
    return benchmark, *one_sided


WMT16 = Benchmark(
    name="wmt16",
    about="WMT16 news: {dev,test}/newstest20{15,16}-XXYY-{src.XX,ref.YY}.sgm",
    languages=("en", "cs", "de", "fi", "ro", "ru", "tr"),
    pairs="any",
    sources=merged(
        # Files are named by direction; newstest sets exist in both.
        *(
            local_files(
                f"{stem}-{{source}}{{target}}-src.{{source}}.sgm",
                splits=split,
                target_path=f"{stem}-{{source}}{{target}}-ref.{{target}}.sgm",
            )
            for split, stem in (
                *(("validation", "newstest2015"), ("validation", "dev/newstest2015")),
                # Romanian and Turkish were added in 2016.
                *(("validation", "newsdev2016"), ("validation", "dev/newsdev2016")),
                *(("test", "newstest2016"), ("test", "test/newstest2016")),
            )
        ),
        hugging_face("{source}-{target}", "validation test"),
        hugging_face("{target}-{source}", "validation test"),
        tfds_folder("wmt16_translate/{source}-{target}/*", "validation test"),
        tfds_folder("wmt16_translate/{target}-{source}/*", "validation test"),
    ),
    shots=1,
    texts=_TEXTS,
    references=("target",),
    formats={
        "harness": dataclasses.replace(
            _HARNESS,
            context="{source_language} phrase: {source}\n{target_language} phrase:",
            # The harness's targets start with another space.
            target=" {target}",
            delimiter=" ",
        ),
        "authors": _AUTHORS,
    },
)

BENCHMARKS = tuple(
    direction
    for benchmark in (FLORES_ANY, FLORES_PLUS, FLORES_PASSAGES, WMT16)
    for direction in _directions(benchmark)
)
