"""Scores beside lm-evaluation-harness with its Hugging Face backend: same files, same answers.

    python -m benchmarks.parity --data=BENCHMARKS --models=random,demo

Three sides answer the same tasks on the same exported model in float32, task by task: the harness
with its own backend, the harness over our adapter, and our prompts and metrics as `marco eval` runs
them. A row of the printed JSON is a model, a task and a number of shots: the largest difference of
a summed log-probability from the harness's own, whether all predictions (for generation: all texts)
are equal, and the metrics of each side. With `--exact`, the harness runs the model in float64 as
well, and the row has each side's distance from that: a sum of hundreds in float32 is rounded by
more than 1e-4, the harness's own too. Nothing is timed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import harness_tasks, smollm2
from benchmarks.common import print_json, read_flags
from benchmarks.harness_tasks import LocalTask, build_task

HARNESS, ADAPTER, OURS, EXACT = "harness", "adapter", "marco eval", "float64"
# Tokens that all sides read at most; few-shot prompts of the smallest tokenizers are cut.
MAX_LENGTH = 2048
SHOTS = (0, 5)

Scores = list[list[float]]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a side says of a task.

    Attributes:
        scores: summed log-probabilities of the choices, an item after the other.
        texts: generated ones.
        metrics: of the task, by our names.
    """

    scores: Scores
    texts: list[str]
    metrics: dict[str, float]

    @property
    def predictions(self) -> list[int]:
        """The likeliest choice of each item; of equals the first."""
        return [int(np.argmax(scores)) for scores in self.scores]


def choice_tasks(data: pathlib.Path) -> list[LocalTask]:
    """Tasks that rank choices: sentences, stories, inference, exams, reading."""
    return [
        *(harness_tasks.xcopa(data, "et"), harness_tasks.xcopa(data, "zh")),
        *(harness_tasks.xstorycloze(data, "es"), harness_tasks.xnli(data, "tr")),
        *(harness_tasks.mmlu(data, "astronomy", form) for form in ("harness", "continuation")),
        harness_tasks.cmmlu(data, "agronomy"),
        harness_tasks.belebele(data, "en", "eng_Latn"),
        harness_tasks.belebele(data, "kk", "kaz_Cyrl"),
    ]


def generation_tasks(data: pathlib.Path) -> list[LocalTask]:
    """Tasks whose answers are written."""
    return [
        # The published development files come without answers.
        harness_tasks.tydiqa(data, "train"),
        harness_tasks.mgsm(data, "en"),
        harness_tasks.mgsm(data, "de", "native_cot"),
    ]


class Sides:
    """One exported model as the three sides open it."""

    def __init__(self, directory: pathlib.Path, batch_size: int = 4, exact: bool = False) -> None:
        """Takes a Hugging Face directory as `marco export` writes it.

        Args:
            directory: of the model.
            batch_size: of the harness's own backend.
            exact: also ask its backend with float64 weights and products. Norms and rotations
                stay in float32, where transformers computes them whatever the weights are.
        """
        import torch
        import transformers
        from lm_eval.models.huggingface import HFLM

        from marco_jax.decoding.engine import Engine
        from marco_jax.evaluation.lm_eval_adapter import EngineLM
        from marco_jax.weights.models import load_model

        loaded = load_model(directory)
        self._params = loaded.params
        self._engine = Engine(loaded.config, loaded.tokenizer, max_length=MAX_LENGTH)

        def theirs(dtype: torch.dtype) -> HFLM:
            model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
            # The harness's greedy answers follow generation_config.json in these: published
            # Qwen2.5-Instruct punishes repetitions, which changes what a benchmark measures.
            model.generation_config.repetition_penalty = 1.0
            model.generation_config.eos_token_id = list(self._engine.end_ids)
            return HFLM(
                model,
                tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(directory),
                batch_size=batch_size,
                max_length=MAX_LENGTH,
                # It would begin a text without a context with bos_token where there is one, which
                # no document of ours begins with.
                prefix_token_id=loaded.tokenizer.eos_id,
            )

        adapter = EngineLM(self._engine, loaded.params)
        self._runners = {HARNESS: theirs(torch.float32), ADAPTER: adapter}
        if exact:
            self._runners[EXACT] = theirs(torch.float64)

    def ask(
        self, task: LocalTask, shots: int, items: int, data: pathlib.Path
    ) -> dict[str, Answers]:
        """What each side says of the first `items` of a task."""
        answers = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, model in self._runners.items():
                answers[name] = _ask_harness(model, task, shots, items, pathlib.Path(folder))
            files = task.link_files(data, pathlib.Path(folder) / "files")
            choices = [len(scores) for scores in answers[HARNESS].scores]
            answers[OURS] = self._ask_evaluator(task, shots, items, files, choices)
        return answers

    def _ask_evaluator(
        self, task: LocalTask, shots: int, items: int, files: pathlib.Path, choices: list[int]
    ) -> Answers:
        """Our answers; `choices` is how many each item has."""
        from marco_jax.evaluation.evaluator import Evaluator

        recorded = _Recorded(self._engine)
        options = {"data_dir": str(files), "languages": [task.language]}
        options |= {"benchmark_shots": shots, "examples": items}
        evaluator = Evaluator(recorded, None, [task.name], **options)
        results = evaluator.run(self._params).results
        metrics = {row.metric: row.value for row in results if row.language == task.language}
        # Some metrics ask about the choices alone as well, after all items.
        scores = (score.logprob for score in recorded.scores)
        return Answers(
            [list(itertools.islice(scores, count)) for count in choices],
            [answer.text for answer in recorded.generations],
            {name: metrics[name] for name in task.metrics},
        )


class _Recorded:
    """An engine that keeps its answers in the order asked."""

    def __init__(self, engine: Any) -> None:
        self.tokenizer, self.max_length = engine.tokenizer, engine.max_length
        self.scores: list[Any] = []
        self.generations: list[Any] = []
        self.score = functools.partial(self._ask, engine.score, self.scores)
        self.generate = functools.partial(self._ask, engine.generate, self.generations)

    def _ask(self, method: Any, kept: list[Any], params: Any, requests: Any, **_: Any) -> list[Any]:
        answers = method(params, requests)
        kept += answers
        return answers


def _ask_harness(
    model: Any, task: LocalTask, shots: int, items: int, folder: pathlib.Path
) -> Answers:
    import lm_eval

    built = build_task(task.path, task.splits, shots, folder, **task.changes)
    name = built.config.task
    # simple_evaluate would read all task files of the package first.
    found = lm_eval.evaluate(model, {name: built}, limit=items, bootstrap_iters=0)
    # Every filter of the answers has samples of its own, all of the same answers.
    samples = {sample["doc_id"]: sample["resps"] for sample in found["samples"][name]}
    answers = [samples[number] for number in sorted(samples)]
    ranks = built.OUTPUT_TYPE == "multiple_choice"
    return Answers(
        [[float(answer[0][0]) for answer in item] for item in answers] if ranks else [],
        [] if ranks else [item[0][0] for item in answers],
        {ours: found["results"][name][theirs] for ours, theirs in task.metrics.items()},
    )


def compare(
    answers: Mapping[str, Answers], model: str, task: LocalTask, shots: int
) -> dict[str, Any]:
    """A row of the table: each side beside the harness with its own backend."""
    theirs = answers[HARNESS]
    row: dict[str, Any] = {
        "model": model,
        "task": f"{task.name} {task.path.rpartition('/')[2].removesuffix('.yaml')}",
        "shots": shots,
        "items": len(theirs.scores or theirs.texts),
    }
    for side in (ADAPTER, OURS):
        ours = answers[side]
        row[side] = {"equal_metrics": theirs.metrics == ours.metrics}
        if theirs.scores:
            row[side]["max_difference"] = _distance(theirs, ours)
            row[side]["equal_predictions"] = theirs.predictions == ours.predictions
        else:
            row[side]["equal_texts"] = theirs.texts == ours.texts
            for pair in zip(theirs.texts, ours.texts, strict=True):
                if pair[0] != pair[1]:
                    row[side].setdefault("first_different", pair)
    if theirs.scores and EXACT in answers:
        row["distance_from_float64"] = {
            side: _distance(answers[EXACT], answers[side]) for side in (HARNESS, ADAPTER, OURS)
        }
    return row | {"metrics": {side: found.metrics for side, found in answers.items()}}


def _distance(first: Answers, second: Answers) -> float:
    """The largest difference of a summed log-probability."""
    pairs = zip(first.scores, second.scores, strict=True)
    return float(max(np.abs(np.subtract(*pair)).max() for pair in pairs))


def save_random(
    directory: pathlib.Path, texts: Sequence[str], vocab_size: int = 4096, seed: int = 0
) -> None:
    """A tiny Qwen2 with random weights, whose tokenizer is trained on some texts.

    Of some seeds the likeliest two tokens come so near each other on the way that rounding alone
    decides between them, on every side: such a model says nothing of parity.
    """
    import jax

    from marco_jax.model.qwen2 import init_params
    from marco_jax.model.qwen2_config import PRESETS
    from marco_jax.tokenizers.tokenizer import load_tokenizer, train_sentencepiece
    from marco_jax.weights.huggingface import save_huggingface

    sizes = {"vocab_size": vocab_size, "max_position_embeddings": 4096}
    config = dataclasses.replace(PRESETS["tiny"], **sizes, initializer_range=0.05)
    with tempfile.TemporaryDirectory() as folder:
        train_sentencepiece(texts, vocab_size, folder)
        # A random model emits broken UTF-8, of which libraries make different texts: both sides
        # read tokenizer.json with the same one.
        tokenizer = load_tokenizer(pathlib.Path(folder) / "tokenizer.json")
    params = init_params(config, seed=seed)
    keys = iter(jax.random.split(jax.random.key(seed + 1), len(jax.tree.leaves(params))))
    # Biases begin at 0 and norms at 1: a swap of them would not show.
    params = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape), params)
    save_huggingface(directory, config, params, tokenizer)


def save_demo(directory: pathlib.Path, steps: int = 300) -> None:
    """The demo's run at a tiny size, some steps of it, as `marco export` writes it."""
    from marco_jax.__main__ import main as marco

    config = pathlib.Path(__file__).resolve().parent.parent / "configs/demo.py"
    fields = f"""steps={steps} batch.length=128 evaluation.tasks= checkpoint.every=0
        model.hidden_size=64 model.intermediate_size=176 model.num_hidden_layers=2
        model.num_attention_heads=2 model.num_key_value_heads=1""".split()
    with tempfile.TemporaryDirectory() as workdir:
        train = ["train", f"--config={config}", f"--workdir={workdir}"]
        train += [f"--config.{field}" for field in fields]
        for command in (train, ["export", f"--model={workdir}", f"--out={directory}"]):
            if marco(command):
                raise RuntimeError(f"marco {command[0]} failed: see above")


def texts_of(tasks: Sequence[LocalTask]) -> list[str]:
    """All texts of the rows of some tasks, to learn a vocabulary from."""
    rows = [row for task in tasks for rows in task.splits.values() for row in rows[:300]]
    return [value for row in rows for value in row.values() if isinstance(value, str)]


def main() -> None:
    """Prints the rows as JSON."""
    args = read_flags(
        __doc__,
        data=(pathlib.Path, "the benchmarks' files"),
        models=(("random", "demo", "smollm2"), "what to score with"),
        items=(20, "of each task that ranks choices"),
        written=(4, "and of each that generates"),
        exact=(False, "measure from float64 as well"),
    )
    os.environ["JAX_PLATFORMS"], os.environ["HF_HUB_OFFLINE"] = "cpu", "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    choices, written = choice_tasks(args.data), generation_tasks(args.data)
    save = {
        "random": lambda directory: save_random(directory, texts_of([*choices, *written])),
        "demo": save_demo,
        "smollm2": smollm2.save_qwen2,
    }
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            directory = pathlib.Path(folder) / name
            save[name](directory)
            sides = Sides(directory, exact=args.exact)
            for task, shots in itertools.product([*choices, *written], SHOTS):
                items = args.items if task in choices else args.written
                print_json(compare(sides.ask(task, shots, items, args.data), name, task, shots))


if __name__ == "__main__":
    main()
