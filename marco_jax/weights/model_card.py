"""The model card (README.md) of an exported model: licence, training data and scores.

The licence and base model are inherited from what a model was trained from.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.evaluation.results import AVERAGES, Result
from marco_jax.files import as_path
from marco_jax.languages import LANGUAGES
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.reports.run_data import RunData, is_of_source, load_run, name_of
from marco_jax.weights.checkpoints import CHECKPOINTS

# An import stores the terms of the imported directory's card here.
CARD = "card.json"
# The longest chain of runs that started from other runs.
_DEPTH = 8


@dataclasses.dataclass(frozen=True)
class Terms:
    """Licence and base model of a card, as in its front matter; empty strings are not stated.

    Attributes:
        license: an identifier such as "apache-2.0", or "other" with a link.
        license_link: URL of the licence text.
        base_model: the model that training started from, such as "Qwen/Qwen2-7B".
    """

    license: str = ""
    license_link: str = ""
    base_model: str = ""

    def or_else(self, other: Terms) -> Terms:
        """These terms, with empty fields taken from `other`."""
        first, second = dataclasses.asdict(self), dataclasses.asdict(other)
        return Terms(**{name: first[name] or second[name] for name in first})

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Terms:
        """The terms among the fields of a config's `card` group or of a card.json."""
        names = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: str(fields.get(name) or "") for name in names})


def read_terms(directory: str | os.PathLike) -> Terms:
    """Reads the terms in the front matter (between `---` lines) of a directory's README.md."""
    try:
        text = (as_path(directory) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Terms()
    front = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    lines = (re.match(r"(\w+):[ \t]*(\S.*)$", line) for line in front.splitlines())
    found = {line[1]: line[2].strip().strip("'\"") for line in lines if line}
    return Terms.from_fields(found)


def model_card(
    name: str,
    config: Qwen2Config,
    terms: Terms,
    workdir: str | os.PathLike | None = None,
    step: int | None = None,
) -> str:
    """Writes a model card in Markdown.

    `workdir` and `step` are of the run that trained the model; without them the card has no
    training data or scores.
    """
    run = load_run(workdir) if workdir is not None else None
    sources = {name for stage in run.stages for name in stage.shares} if run else set()
    languages = [code for code in LANGUAGES if code in sources]
    lines = [*_front_matter(terms, languages), "", f"# {name}", ""]
    lines.append(
        f"A {config.architecture.family} model of {config.num_parameters / 1e6:,.1f} million "
        f"parameters: {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.vocab_size:,} embedding rows."
    )
    if terms.base_model:
        lines.append(f"Training started from {terms.base_model}.")
    if run and step and run.stages:
        lines += _training(run, step)
    if run and step is not None:
        lines += _evaluation(run, step)
    lines += ["", "## Licence", "", _licence(terms), ""]
    return "\n".join(lines)


def _front_matter(terms: Terms, languages: Sequence[str]) -> list[str]:
    fields = {name: value for name, value in dataclasses.asdict(terms).items() if value}
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items())]
    if languages:
        lines += ["language:", *(f"- {json.dumps(code)}" for code in languages)]
    return [*lines, "library_name: transformers", "pipeline_tag: text-generation", "---"]


def _training(run: RunData, step: int) -> list[str]:
    rows = [row for row in run.metrics if row["step"] <= step]
    tokens: dict[str, int] = {}
    for row in rows:
        for key, value in row.items():
            if is_of_source(key, "tokens") and value:
                source = key.removeprefix("tokens/")
                tokens[source] = tokens.get(source, 0) + int(value)
    stages = [stage for stage in run.stages if stage.first_step < step]
    total = rows[-1].get("tokens") if rows else None
    lines = ["", "## Training", ""]
    lines.append(f"{step:,} steps" + (f", {total:,} tokens." if total else "."))
    lines.append("Configured share of tokens in each stage, and the tokens trained on:")
    lines += ["", _row(["source", *(stage.label for stage in stages), "tokens"])]
    lines.append(_row(["---", *["---:"] * (len(stages) + 1)]))
    for source in dict.fromkeys(name for stage in stages for name in stage.shares):
        shares = [f"{stage.shares.get(source, 0):.2%}" for stage in stages]
        lines.append(_row([name_of(source), *shares, f"{tokens.get(source, 0):,}"]))
    return lines


def _evaluation(run: RunData, step: int) -> list[str]:
    steps = [evaluated for evaluated in run.evaluations if evaluated <= step]
    if not steps:
        return []
    results = run.evaluations[max(steps)]
    lines = ["", "## Evaluation", "", f"At step {max(steps):,}; ± is one standard error."]
    for task, shots in dict.fromkeys((row.task, row.shots) for row in results.values()):
        rows = [row for row in results.values() if (row.task, row.shots) == (task, shots)]
        lines += ["", f"### {task}, {shots} shots", "", *_table(rows)]
    return lines


def _table(rows: Sequence[Result]) -> list[str]:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    codes = sorted({row.language for row in rows}, key=lambda code: (code not in AVERAGES, code))
    cells = {(row.language, row.metric): f"{row.value:.3f} ± {row.stderr:.3f}" for row in rows}
    lines = [_row(["language", *metrics]), _row(["---", *["---:"] * len(metrics)])]
    for code in codes:
        lines.append(_row([name_of(code), *(cells.get((code, name), "") for name in metrics)]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _licence(terms: Terms) -> str:
    if not terms.license:
        return (
            "No licence is stated. The base weights and the training data have licences: state one "
            "before you distribute the model."
        )
    link = f" ({terms.license_link})" if terms.license_link else ""
    return f"{terms.license}{link}."


def stated_terms(path: str | os.PathLike, depth: int = _DEPTH) -> Terms:
    """The terms of a workdir, import or Hugging Face directory.

    Fields that it does not state are taken from the model that its run started from.
    """
    path = as_path(path).absolute()
    if path.parent.name == CHECKPOINTS:
        path = path.parent.parent
    if not (path / CHECKPOINTS).is_dir():
        return read_terms(path)
    terms = Terms()
    if (path / CARD).is_file():
        terms = Terms.from_fields(json.loads((path / CARD).read_text(encoding="utf-8")))
    config = load_run(path).config
    terms = Terms.from_fields(config.get("card") or {}).or_else(terms)
    start = config.get("init_from")
    return terms.or_else(stated_terms(start, depth - 1)) if start and depth else terms
