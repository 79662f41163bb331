"""Rounds of an evaluation: which items are asked together, and the file that keeps finished rounds.

All items go to the engine in one round where nothing limits or saves them: large batches are the
fastest. With a time limit a round is a share of every task and language, so that those rounds for
which there is time are a balanced smaller evaluation. Rounds that are saved hold some hundred items
of one task, since an evaluation that is cut off loses its last one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from marco_jax.appended_files import AppendedFile
from marco_jax.decoding.requests import ScoreRequest
from marco_jax.evaluation.outcomes import Outcomes, SuiteKey
from marco_jax.evaluation.suites import Suite
from marco_jax.files import write_text

# Rounds of an evaluation with a time limit.
SHARES = 16
# Requests of a round that is saved: scores, of which an item has several, and generations.
_SAVED_SCORES, _SAVED_GENERATIONS = 1024, 256


@dataclasses.dataclass(frozen=True)
class Round:
    """Numbers of the items to ask, by task and language; `name` is for messages."""

    name: str
    rows: Mapping[SuiteKey, list[int]]

    @property
    def size(self) -> int:
        """Number of items."""
        return sum(map(len, self.rows.values()))


Suites = Mapping[SuiteKey, Suite]


def one_round(suites: Suites) -> list[Round]:
    """All items at once."""
    return [Round("evaluating", {key: list(range(one.examples)) for key, one in suites.items()})]


def shares(suites: Suites, count: int = SHARES) -> list[Round]:
    """Rounds that each have the same share of every task, language and part.

    The first round has items of all of them. Items that belong together stay together.
    """
    ordered = {key: _balanced(suite) for key, suite in suites.items()}
    rounds = []
    for number in range(count):
        rows = {}
        for key, units in ordered.items():
            start, stop = (math.ceil(len(units) * n / count) for n in (number, number + 1))
            own = [row for unit in units[start:stop] for row in unit]
            if own:
                rows[key] = own
        rounds.append(Round("evaluating", rows))
    return [one for one in rounds if one.rows]


def _balanced(suite: Suite) -> list[list[int]]:
    """The units of a suite, ordered so that each beginning has the same share of every part."""
    units, parts = suite.units(), suite.parts
    if not parts:
        return units
    of_part: dict[str, list[list[int]]] = {}
    for unit in units:
        of_part.setdefault(parts[unit[0]], []).append(unit)
    ranked = [
        ((index + 0.5) / len(own), part, unit)
        for part, own in of_part.items()
        for index, unit in enumerate(own)
    ]
    return [unit for _, _, unit in sorted(ranked, key=lambda one: one[:2])]


def blocks(suites: Suites) -> list[Round]:
    """Rounds of one task and one language each, small enough to be saved one by one."""
    rounds, tasks = [], list(dict.fromkeys(task for task, _ in suites))
    for (task, language), suite in suites.items():
        name = f"{task}, task {tasks.index(task) + 1} of {len(tasks)}"
        limit = _SAVED_GENERATIONS if suite.generates else _SAVED_SCORES
        items = max(1, limit * suite.examples // len(suite.requests))
        rows: list[int] = []
        for unit in suite.units():
            if rows and len(rows) + len(unit) > items:
                rounds.append(Round(name, {(task, language): rows}))
                rows = []
            rows = rows + unit
        rounds.append(Round(name, {(task, language): rows}))
    return rounds


class SavedRounds:
    """The finished rounds of an evaluation, in a file beside its results until these are written.

    The first line of the file identifies the evaluation: its model, requests and settings. A line
    follows for each round. The file of another evaluation is begun again.
    """

    def __init__(self, results: pathlib.Path, model: str, suites: Suites) -> None:
        """`results` is the path of the results; `model` identifies weights and settings."""
        self.path = results.with_name(f".{results.name}.partial")
        mark = _fingerprint(model, suites)
        lines: list[str] = []
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(True)
        same = bool(lines) and lines[0].strip() == mark
        self.finished: list[dict[SuiteKey, Outcomes]] = []
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for line in lines[1:] if same else ():
                self.finished.append(_read_line(line))
        self._writes = jax.process_index() == 0
        if self._writes and (not same or len(self.finished) < len(lines) - 1):
            # What follows a line that a kill has cut, or that is damaged, is removed.
            kept = lines[1 : 1 + len(self.finished)]
            write_text(self.path, "".join([mark + "\n", *kept]))
        self._file = AppendedFile(self.path) if self._writes else None

    def add(self, outcomes: Mapping[SuiteKey, Outcomes]) -> None:
        """Appends the outcomes of a round."""
        if not self._writes:
            return
        record = [[task, code, one.to_record()] for (task, code), one in outcomes.items()]
        self._file.write(json.dumps(record) + "\n")

    def remove(self) -> None:
        """Deletes the file, once the results are written."""
        if self._writes:
            self._file.close()
            self.path.unlink(missing_ok=True)


def _read_line(line: str) -> dict[SuiteKey, Outcomes]:
    if not line.endswith("\n"):
        raise ValueError("it is cut off")
    return {(task, code): Outcomes.from_record(one) for task, code, one in json.loads(line)}


def _fingerprint(model: str, suites: Suites) -> str:
    digest = hashlib.sha256(model.encode())
    for key, suite in suites.items():
        digest.update(repr(key).encode())
        for ids, other in _token_ids(suite):
            digest.update(np.asarray(ids, np.int32).tobytes())
            digest.update(other)
    return digest.hexdigest()


def _token_ids(suite: Suite) -> Iterator[tuple[list[int], bytes]]:
    """Of each request its token ids, and what else decides its answer."""
    for request in suite.requests:
        if isinstance(request, ScoreRequest):
            yield [*request.context, -1, *request.continuation], b""
        else:
            yield list(request.prompt), repr((request.max_new_tokens, request.stop)).encode()
