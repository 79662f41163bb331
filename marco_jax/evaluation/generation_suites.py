"""Generation tasks: encodes prompts and computes metrics of the generated answers."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.evaluation import answers as compare
from marco_jax.evaluation import math_answers, metrics
from marco_jax.evaluation.instructions import Instruction, follows, follows_loosely
from marco_jax.evaluation.metrics import Estimate
from marco_jax.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt with its reference answers (corpus metrics use the first) or its instructions."""

    prompt: str
    references: tuple[str, ...]
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 96
    instructions: tuple[Instruction, ...] = ()


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
class GenerationSuite:
    """A generation task in a language: greedy answers are compared with references."""

    generates: ClassVar[bool] = True
    requests: Sequence[GenerateRequest]
    questions: Sequence[Question]
    judge: Judge
    seed: int = 0

    @classmethod
    def build(
        cls, tokenizer: Tokenizer, questions: Sequence[Question], judge: Judge, *, seed: int = 0
    ) -> GenerationSuite:
        """Encodes prompts; `seed` seeds the bootstrap of the standard errors."""
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
        return cls(requests, questions, judge, seed)

    @property
    def examples(self) -> int:
        """Number of questions."""
        return len(self.questions)

    def estimates(self, answers: Sequence[Generation]) -> dict[str, Estimate]:
        """The metrics that the judge names, with standard errors."""
        texts = [answer.text.strip() for answer in answers]
        return {name: self._estimate(name, texts) for name in self.judge.metrics}

    def _estimate(self, name: str, texts: Sequence[str]) -> Estimate:
        if name in ANSWER_METRICS:
            metric = ANSWER_METRICS[name]
            pairs = zip(texts, self.questions, strict=True)
            return metrics.mean([metric(text, one.references, self.judge) for text, one in pairs])
        if name in INSTRUCTION_METRICS:
            rule = INSTRUCTION_METRICS[name]
            followed = [
                [rule(instruction, text) for instruction in question.instructions]
                for text, question in zip(texts, self.questions, strict=True)
            ]
            if name.startswith("prompt_level"):
                return metrics.mean([float(all(own)) for own in followed])
            return metrics.ratio([sum(own) for own in followed], [len(own) for own in followed])
        if name == "language_rate":
            return metrics.language_rate(texts, self.judge.language)
        firsts = [question.references[0] for question in self.questions]
        if name == "chrf++":
            return metrics.chrf(texts, firsts, self.seed)
        return metrics.bleu(texts, firsts, self._tokenizer(name), self.seed)

    def _tokenizer(self, name: str) -> str:
        if name == "spbleu":
            return "flores200"
        return metrics.BLEU_TOKENIZERS.get(self.judge.language, metrics.DEFAULT_BLEU_TOKENIZER)

    def signature(self, name: str) -> str:
        """Sacrebleu's signature of a metric; "" for metrics that sacrebleu does not compute."""
        if name == "chrf++":
            return metrics.chrf_signature()
        return metrics.bleu_signature(self._tokenizer(name)) if "bleu" in name else ""


@functools.cache
def _warn_no_spbleu() -> None:
    _log.warning(
        "spbleu is skipped (use chrf++): sacrebleu's model is not at %s, copy "
        "flores200sacrebleuspm there (sacrebleu downloads it if it has a network)",
        metrics.spbleu_model(),
    )
