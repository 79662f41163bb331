"""Fields of a config that belong to the evaluation of a run while it trains."""

from __future__ import annotations

from ml_collections import ConfigDict


def set_evaluation_defaults(c: ConfigDict) -> None:
    """Adds the fields `evaluation`, with their defaults."""
    c.evaluation = ConfigDict(
        {
            # Tasks at the ends of stages, comma-separated, such as
            # "bits_per_byte,belebele:cloze,xcopa@validation,mmlu:5", with format, split or shots;
            # "seqio:NAME" is one in SeqIO's registry. A "?" behind a name leaves the task out where
            # there is no data for it. Empty: no evaluation.
            "tasks": "bits_per_byte?,pick_translation?,translation?",
            # Folder with the files of benchmarks; needed if `tasks` names a benchmark.
            "data_dir": "",
            # Whether benchmarks with generated answers are asked in the model's chat template.
            "chat": False,
            # Most tokens of a generated answer of a benchmark; 0: the benchmark's own number.
            "max_new_tokens": 0,
            # Codes of languages, comma-separated; empty: all that the corpus has.
            "languages": "",
            # Shots of tasks on held-out data.
            "shots": 2,
            # Shots of benchmarks whose task does not state them; -1: the paper's numbers.
            "benchmark_shots": -1,
            # Most seconds of an evaluation, which leaves out a share of every task; 0: no limit.
            "max_seconds": 0.0,
            # Most items of a language and subject, by task (any may be added); "all": other tasks.
            "examples": {"pick_translation": 32, "translation": 8},
            # Which of `tasks` run every `every` steps as well.
            "every_tasks": "bits_per_byte?",
            # Steps between two evaluations; 0: only at the ends of stages.
            "every": 160,
            # What the model writes: at every evaluation it continues the same prompts greedily, and
            # samples/STEP.json in the workdir has its texts. Proxies of a sweep have none by
            # default.
            "samples": {
                # Most prompts; 0: no samples.
                "prompts": 10,
                # Most tokens of a text.
                "tokens": 48,
                # JSONL file of {"language": "kk", "prompt": "..."}; empty: the built-in prompts of
                # evaluation/samples.py in languages of the corpus. With `chat` a prompt is a user
                # message.
                "file": "",
            },
            # Whether the model of init_from is evaluated before the first step.
            "at_start": True,
            # Most tokens of an item that the model reads; longer prompts are cut on the left.
            "max_length": 1024,
            # Most tokens of a batch, padding included, on all chips together.
            "tokens_per_batch": 8192,
            # Speculative decoding: tokens that each step of generation drafts from its text.
            "drafts": 0,
        }
    )
