"""Marco-Bench-MIF (arXiv 2507.11882): verifiable instructions in 30 languages, IFEval style.

Only prompts, and whether answers are in the language of the prompt. Whether an answer follows its
instructions is not judged: no maintained package on PyPI checks IFEval's instructions by itself.
`Prompt.fields` holds `instruction_id_list` and `kwargs` for a checker of one's own.
"""

from __future__ import annotations

from marco_jax.evaluation.benchmarks.spec import (
    Benchmark,
    Format,
    Source,
    Text,
    hugging_face,
    merged,
)

_LANGUAGES = """
    ar bn cs de el en es fr he hu id it ja kk ko ms ne nl pl pt ro ru sw th tr uk ur vi yo zh
"""

MARCO_BENCH_MIF = Benchmark(
    name="marco_bench_mif",
    folder="marco_bench_mif",
    about="AIDC-AI/Marco-LLM Marco-Bench-MIF: data/LL.jsonl, or LL_local.jsonl and LL_mt.jsonl",
    languages=tuple(_LANGUAGES.split()),
    sources=merged(
        {
            "test": tuple(
                Source(f"{folder}{{language}}{kind}.jsonl")
                for folder in ("", "data/", "Marco-Bench-MIF/data/")
                for kind in ("", "_local", "_mt")
            )
        },
        hugging_face("{language}", {"test": "test"}),
    ),
    splits=("test",),
    texts={"prompt": Text(("prompt",))},
    # A response has no right answer; the prompt stands in so that its language is known.
    references=("prompt",),
    formats={"plain": Format(context="{prompt}", max_new_tokens=1280, metrics=("language_rate",))},
)

BENCHMARKS = (MARCO_BENCH_MIF,)
