"""Transforms that judge by a whole collection of sentence pairs whether each is a translation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

from marco_jax.curation.documents import RawDocument, pair_of
from marco_jax.curation.inputs import matching_files, parts_of, read
from marco_jax.curation.pair_judge import PairJudge
from marco_jax.curation.shingles import hash64
from marco_jax.curation.stages import KEPT, REJECTED, outcome_of
from marco_jax.extras import optional
from marco_jax.languages import names_in

with optional():
    import apache_beam as beam

# Pairs that the judge of two languages is trained on, from each of its two sources.
TRAINED_PAIRS = 20_000

# Similarity in meaning of two texts, 0 to 1, such as the cosine of sentence embeddings.
Similarity = Callable[[str, str], float]


class TrainPairJudges(beam.PTransform):
    """Trains a judge for each two languages: from pairs to ("xx-yy", its data).

    The pairs with the smallest hashes are a sample that does not depend on the order of the input.
    """

    def __init__(self, known: str = "") -> None:
        """Takes TSV files of further good pairs, comma-separated, as config.lexicon_pairs."""
        super().__init__()
        self._known = known

    def expand(self, pairs: beam.PCollection) -> beam.PCollection:
        """From pairs to (languages, judge)."""
        return (
            pairs
            | "by languages" >> beam.Map(_drawn)
            | "sample" >> beam.combiners.Top.SmallestPerKey(TRAINED_PAIRS)
            | "train" >> beam.Map(_train, self._known)
        )


def _drawn(pair: RawDocument) -> tuple[str, tuple[int, str]]:
    return pair.language, (hash64(pair.text), pair.text)


def _train(element: tuple[str, list[tuple[int, str]]], known: str) -> tuple[str, Any]:
    languages, drawn = element
    pairs = [tuple(text.split("\t")) for _, text in sorted(set(drawn))]
    texts = sorted((hash64(text), text) for text in set(_known_pairs(known, languages)))
    given = [tuple(text.split("\t")) for _, text in texts[:TRAINED_PAIRS]]
    judge = PairJudge.train(pairs, tuple(languages.split("-")), given)
    about = {"languages": languages, "kind": judge.kind, "pairs": len(pairs)}
    about["wrong"] = round(judge.wrong, 4)
    return languages, about | {"judge": json.dumps(judge.to_json(), ensure_ascii=False)}


def _known_pairs(patterns: str, languages: str) -> Iterator[str]:
    """Yields the pairs of the user's files in two languages; skips faulty lines."""
    names = names_in(patterns)
    for part in parts_of(matching_files(names)):
        for record in read(part):
            with contextlib.suppress(ValueError):
                pair = pair_of(record.fields or {"text": ""}, part.path)
                if pair.language == languages:
                    yield pair.text


class PairSimilarity(beam.PTransform):
    """Rejects pairs that are probably not translations."""

    def __init__(
        self,
        least: float,
        judges: beam.PCollection | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        """Sets the measure and its bound.

        Args:
            least: the bound, 0 to 1.
            judges: the output of TrainPairJudges.
            similarity: a measure to use instead of the judges.
        """
        super().__init__()
        self._least, self._judges, self._similarity = least, judges, similarity

    def expand(self, pairs: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From pairs to the outputs `kept` and `rejected`."""
        function = _JudgePairs(self._least, self._similarity)
        if self._judges is None:
            judged = beam.ParDo(function, {})
        else:
            judged = beam.ParDo(function, beam.pvalue.AsDict(self._judges))
        return pairs | judged.with_outputs(REJECTED, main=KEPT)


class _JudgePairs(beam.DoFn):
    def __init__(self, least: float, similarity: Similarity | None) -> None:
        self._least, self._similarity = least, similarity

    def setup(self) -> None:
        self._measures: dict[str, Similarity] = {}

    def process(self, pair: RawDocument, judges: dict[str, Any]) -> Iterator[RawDocument]:
        measure = self._similarity or self._measures.get(pair.language)
        if measure is None:
            judge = json.loads(judges[pair.language]["judge"])
            measure = PairJudge.from_json(judge).similarity
            self._measures[pair.language] = measure
        value = round(float(measure(*pair.text.split("\t"))), 4)
        pair = dataclasses.replace(pair, scores={"similarity": value})
        yield outcome_of(pair.rejected("pairs", "similarity") if value < self._least else pair)
