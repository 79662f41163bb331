"""Names for people: of tasks, of metrics, and of the fields of a run."""

from __future__ import annotations

from collections.abc import Sequence

from marco_jax.evaluation.results import ALL, HIGH, LOW
from marco_jax.reports.run_data import name_of

_TASKS = {
    "bits_per_byte": "Held-out text",
    "pick_translation": "Picking the right translation",
    "translation": "Translation from English",
    "agieval": "AGIEval",
    "arc": "ARC",
    "belebele": "Belebele",
    "ceval": "C-Eval",
    "cmmlu": "CMMLU",
    "flores": "FLORES-200",
    "flores_passages": "FLORES-200, passages",
    "flores_plus": "FLORES+",
    "global_mmlu": "Global MMLU",
    "global_mmlu_lite": "Global MMLU, lite",
    "include": "INCLUDE",
    "jmmlu": "JMMLU",
    "marco_bench_mif": "Marco-Bench-MIF",
    "mgsm": "MGSM",
    "mlqa": "MLQA",
    "mmlu": "MMLU",
    "mmlu_prox": "MMLU-ProX",
    "mmlu_prox_lite": "MMLU-ProX, lite",
    "mmmlu": "MMMLU",
    "pawsx": "PAWS-X",
    "sib200": "SIB-200",
    "tydiqa": "TyDi QA",
    "wmt16": "WMT16",
    "xcopa": "XCOPA",
    "xmmlu": "XMMLU",
    "xnli": "XNLI",
    "xstorycloze": "XStoryCloze",
}
_METRICS = {
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "accuracy_norm": "Accuracy, normalised by bytes",
    "accuracy_chars": "Accuracy, normalised by characters",
    "accuracy_pmi": "Accuracy, PMI-normalised",
    "math_accuracy": "Accuracy of mathematical answers",
    "exact_match": "Exact match",
    "exact_match_strict": "Exact match, strict format",
    "exact_match_flexible": "Exact match, last number",
    "f1": "F1",
    "f1_segmented": "F1, segmented into words",
    "f1_extracted": "F1 of the extracted answer",
    "chrf++": "chrF++",
    "bleu": "BLEU",
    "spbleu": "spBLEU",
    "language_rate": "Answers in the right language",
}
_AVERAGES = {ALL: "All languages", HIGH: "High-resource", LOW: "Low-resource"}


def task_label(task: str) -> str:
    """A task for readers: "XCOPA, cloze, 5 shots" of "xcopa:cloze:5"."""
    rest, _, split = task.partition("@")
    name, *options = rest.split(":")
    label = _TASKS.get(name) or _TASKS.get(name.removeprefix("seqio:")) or _spaced(name)
    for option in options if name != "seqio" else []:
        label += f", {option} shots" if option.isdecimal() else f", {_spaced(option, False)}"
    if name == "seqio":
        label = _spaced(":".join(options))
    return f"{label} ({split})" if split else label


def metric_label(metric: str) -> str:
    """A metric for readers: "Accuracy, PMI-normalised" of "accuracy_pmi"."""
    return _METRICS.get(metric) or _spaced(metric)


def title_of(task: str, metric: str) -> str:
    """A metric of a task for readers."""
    if task == metric:
        return metric_label(metric)
    return f"{task_label(task)}: {metric_label(metric)}"


def language_label(code: str) -> str:
    """A language or source for readers, or the mean over languages."""
    return _AVERAGES.get(code) or name_of(code)


def distinct_names(paths: Sequence[str]) -> list[str]:
    """The ends of paths by which readers tell them apart: "a/prior", "b/prior" and "other"."""
    parts = [[part for part in path.split("/") if part] for path in paths]
    names = []
    for own in parts:
        for count in range(1, len(own) + 1):
            if sum(other[-count:] == own[-count:] for other in parts) == 1:
                break
        names.append("/".join(own[-count:]) if own else "/")
    return names


def _spaced(name: str, capital: bool = True) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:] if capital else text
