"""Marco-Bench-MIF (arXiv 2507.11882): verifiable instructions in 30 languages, IFEval style.

`marco_jax.evaluation.instructions` checks answers by `instruction_id_list` and `kwargs`, both in
`Prompt.fields`. Prompts are user messages: chat models should be evaluated in their chat template
(`marco eval --chat`).
"""

from __future__ import annotations

from marco_jax.evaluation.benchmarks.spec import (
    Benchmark,
    Format,
    Text,
    hugging_face,
    local_files,
    merged,
)

_LANGUAGES = """
    ar bn cs de el en es fr he hu id it ja kk ko ms ne nl pl pt ro ru sw th tr uk ur vi yo zh
"""

MARCO_BENCH_MIF = Benchmark(
    name="marco_bench_mif",
    about="AIDC-AI/Marco-LLM Marco-Bench-MIF: data/LL.jsonl, or LL_local.jsonl and LL_mt.jsonl",
    languages=tuple(_LANGUAGES.split()),
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

BENCHMARKS = (MARCO_BENCH_MIF,)
