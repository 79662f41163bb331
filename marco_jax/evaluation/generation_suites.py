"""Generation tasks: encodes prompts and computes metrics of the generated answers."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.evaluation import answers as compare
from marco_jax.evaluation import math_answers, metrics
from marco_jax.evaluation.instructions import Instruction, follows, follows_loosely
from marco_jax.evaluation.outcomes import Measured, Outcomes, item_key
from marco_jax.evaluation.suites import Suite
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt with its reference answers (corpus metrics use the first) or its instructions.

    `part`, `key` and `question` are as in `suites.ChoiceItem`.
    """

    prompt: str
    references: tuple[str, ...]
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 96
    instructions: tuple[Instruction, ...] = ()
    part: str = ""
    key: str = ""
    question: str = ""


@dataclasses.dataclass(frozen=True)
class Judge:
    """How the answers of a task are compared with references.

    Attributes:
        metrics: names of ANSWER_METRICS or INSTRUCTION_METRICS, or metrics of all answers together:
            chrf++, bleu, spbleu, language_rate.
        language: language of the answers.
        rules: a key of `answers.SPAN_RULES`, for metrics of spans.
        sentence: the sentence that holds a number, such as "The answer is {}".
    """

    metrics: tuple[str, ...]
    language: str = ""
    rules: str = ""
    sentence: str = ""


AnswerMetric = Callable[[str, Sequence[str], Judge], float]


def _f1(answer: str, references: Sequence[str], judge: Judge, *, segmented: bool = False) -> float:
    rules = compare.SPAN_RULES[judge.rules]
    return compare.f1(answer, references, judge.language, rules, segmented=segmented)


def _f1_extracted(answer: str, references: Sequence[str], judge: Judge) -> float:
    return max(_f1(span, references, judge) for span in compare.spans(answer))


def _exact_match(answer: str, references: Sequence[str], judge: Judge) -> float:
    if not judge.rules:
        return compare.same_number(answer, references)
    rules = compare.SPAN_RULES[judge.rules]
    return compare.exact_match(answer, references, judge.language, rules)


# Metrics of one answer; the task's value is their mean.
ANSWER_METRICS: Mapping[str, AnswerMetric] = {
    # lm-evaluation-harness's f1 and exact_match of TyDi QA and MLQA.
    "f1": _f1,
    "exact_match": _exact_match,
    # F1 in which each character of Chinese, Japanese, Thai and similar scripts is a word.
    "f1_segmented": functools.partial(_f1, segmented=True),
    # F1 of the best span in a wordy answer: an upper bound.
    "f1_extracted": _f1_extracted,
    # lm-evaluation-harness's exact_match after flexible-extract and strict-match.
    "exact_match_flexible": lambda answer, references, judge: compare.same_number(
        compare.last_number(answer), references
    ),
    "exact_match_strict": lambda answer, references, judge: compare.same_number(
        compare.number_in(answer, judge.sentence), references
    ),
    # lm-evaluation-harness's acc of AGIEval's generation tasks.
    "math_accuracy": lambda answer, references, judge: float(
        any(math_answers.same_answer(answer, reference) for reference in references)
    ),
}

# Shares of prompts whose instructions are all followed, and of instructions that are followed,
# under lm-evaluation-harness's names.
INSTRUCTION_METRICS: Mapping[str, Callable[[Instruction, str], bool]] = {
    "prompt_level_strict_acc": follows,
    "prompt_level_loose_acc": follows_loosely,
    "inst_level_strict_acc": follows,
    "inst_level_loose_acc": follows_loosely,
}


@dataclasses.dataclass(frozen=True)
class GenerationSuite(Suite):
    """A generation task in a language: greedy answers are compared with references."""

    generates: ClassVar[bool] = True
    requests: Sequence[GenerateRequest]
    questions: Sequence[Question]
    judge: Judge

    @classmethod
    def build(
        cls, tokenizer: Tokenizer, questions: Sequence[Question], judge: Judge
    ) -> GenerationSuite:
        """Encodes prompts."""
        requests = [
            GenerateRequest(
                tokenizer.encode(question.prompt) or [tokenizer.eos_id],
                question.max_new_tokens,
                stop=question.stop,
            )
            for question in questions
        ]
        if "spbleu" in judge.metrics and not metrics.spbleu_model().exists():
            kept = tuple(name for name in judge.metrics if name != "spbleu")
            judge = dataclasses.replace(judge, metrics=kept)
            _warn_no_spbleu()
        return cls(requests, questions, judge)

    @property
    def examples(self) -> int:
        """Number of questions."""
        return len(self.questions)

    @property
    def parts(self) -> Sequence[str]:
        """The part (subject) of each question; empty if there are none."""
        parts = [question.part for question in self.questions]
        return parts if any(parts) else ()

    def take(self, rows: Sequence[int]) -> GenerationSuite:
        """See Suite."""
        requests, questions = (
            [own[row] for row in rows] for own in (self.requests, self.questions)
        )
        return GenerationSuite(requests, questions, self.judge)

    def outcomes(self, answers: Sequence[Generation]) -> Outcomes:
        """What each answer contributes to the metrics that the judge names."""
        texts = [answer.text.strip() for answer in answers]
        questions = [question.question for question in self.questions]
        return Outcomes(
            [one.key or item_key(one.prompt, one.references) for one in self.questions],
            {name: self._measure(name, texts) for name in self.judge.metrics},
            self.parts,
            questions=questions if any(questions) else (),
        )

    def _measure(self, name: str, texts: Sequence[str]) -> Measured:
        if name in ANSWER_METRICS:
            metric = ANSWER_METRICS[name]
            pairs = zip(texts, self.questions, strict=True)
            return Measured.mean([metric(text, one.references, self.judge) for text, one in pairs])
        if name in INSTRUCTION_METRICS:
            rule = INSTRUCTION_METRICS[name]
            followed = [
                [rule(instruction, text) for instruction in question.instructions]
                for text, question in zip(texts, self.questions, strict=True)
            ]
            if name.startswith("prompt_level"):
                return Measured.mean([float(all(own)) for own in followed])
            return Measured.ratio([sum(own) for own in followed], [len(own) for own in followed])
        if name == "language_rate":
            language = self.judge.language
            return Measured.mean([float(metrics.is_in_language(text, language)) for text in texts])
        firsts = [question.references[0] for question in self.questions]
        scorer = metrics.CHRF if name == "chrf++" else metrics.BLEU + self._tokenizer(name)
        counts = metrics.corpus_counts(scorer, texts, firsts)
        return Measured(scorer, counts.astype(np.float64))

    def _tokenizer(self, name: str) -> str:
        if name == "spbleu":
            return "flores200"
        return metrics.BLEU_TOKENIZERS.get(self.judge.language, metrics.DEFAULT_BLEU_TOKENIZER)


@functools.cache
def _warn_no_spbleu() -> None:
    _log.warning(
        "spbleu is skipped (use chrf++): sacrebleu's model is not at %s, copy "
        "flores200sacrebleuspm there (sacrebleu downloads it if it has a network)",
        metrics.spbleu_model(),
    )
