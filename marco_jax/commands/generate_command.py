"""What `marco generate` and `marco translate` do: texts, translations and preference pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.evaluation.chat_prompts import Prompts, text_requests
from marco_jax.evaluation.input_rows import check_field, read_input_rows
from marco_jax.files import as_path
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.chat_templates import parse_variables
from marco_jax.weights.models import (
    FoundModel,
    create_engine,
    find_model,
    load_weights,
    read_mesh,
)

# New tokens of one answer by default.
_NEW_TOKENS, _NEW_TOKENS_OF_PAIRS, _NEW_TOKENS_OF_DOCUMENTS = 64, 512, 1024
_NEW_TOKENS_OF_TRANSLATION = 256
# Arguments that do not change what is generated.
_NOT_SETTINGS = ("parser", "out", "margin", "keep_cut", "drafts")


def generate_command(arguments: argparse.Namespace) -> int:
    """Continues one prompt, or the prompts of a JSONL file; with --pairs, ranks several answers."""
    if arguments.pairs and arguments.template:
        raise ValueError("--pairs and --template: leave one out")
    if arguments.scorer and not arguments.pairs:
        raise ValueError("--scorer ranks answers: give --pairs")
    if arguments.pairs:
        return _pairs(arguments)
    if arguments.template:
        return _documents(arguments)
    _set_defaults(arguments, _NEW_TOKENS)
    _check_beams(arguments)
    alone = arguments.prompt is not None
    rows = [{"prompt": arguments.prompt}] if alone else _rows_of(arguments)
    found = find_model(arguments.model)
    prompts = Prompts.of(rows, found.tokenizer, arguments.input or "--prompt", **_chat(arguments))
    requests = prompts.requests(found.tokenizer, arguments.max_new_tokens, arguments.stop)
    return _generate(arguments, found, rows, requests, "text", prompts.end_ids)


def translate_command(arguments: argparse.Namespace) -> int:
    """Translates one text, or those of a JSONL or text file, between any two languages.

    The prompt is a template of the paper's translation data; a text's lines become one.
    """
    from marco_jax.data.texts import Pair
    from marco_jax.evaluation.few_shot import translation_prompt

    _set_defaults(arguments, _NEW_TOKENS_OF_TRANSLATION)
    _check_beams(arguments)
    if arguments.text is not None:
        rows = [{"source": arguments.text}]
    else:
        rows = _rows_of(arguments, lines="source")
        check_field(rows, "source", arguments.input)
    pairs = [
        Pair("", arguments.src, arguments.tgt, " ".join(row["source"].split()), "") for row in rows
    ]
    found = find_model(arguments.model)
    texts = [translation_prompt((), pair) for pair in pairs]
    requests = text_requests(found.tokenizer, texts, arguments.max_new_tokens, ("\n",))
    return _generate(arguments, found, rows, requests, "translation")


def _generate(
    arguments: argparse.Namespace,
    found: FoundModel,
    rows: list[dict[str, Any]],
    requests: list[GenerateRequest],
    field: str,
    end_ids: tuple[int, ...] = (),
) -> int:
    """Continues prompts: one alone goes to standard output, those of a file to --out."""
    source = _Source(arguments, found, requests, end_ids)
    if not arguments.input:
        ((one,),) = source.draw(0, 1)
        print(one.text.strip() if field == "translation" else one.text)
        return 0

    def answer(start: int, stop: int) -> list[dict[str, Any]]:
        drawn = zip(rows[start:stop], source.draw(start, stop), strict=True)
        return [{**row, field: one.text} for row, (one,) in drawn]

    written = _write(arguments, rows, answer)
    print(f"{written}{source.summary()}: {arguments.out}", file=sys.stderr)
    return 0


class _Source:
    """A model that continues the prompts of rows as the flags say."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        found: FoundModel,
        requests: Sequence[GenerateRequest],
        end_ids: tuple[int, ...] = (),
        max_length: int | None = None,
    ) -> None:
        from marco_jax.decoding.requests import Sampling

        self._sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
        sharding = read_mesh(arguments.mesh)
        self._engine = create_engine(found, end_ids, sharding, max_length, arguments.drafts)
        self._params = load_weights(found, sharding)
        self._requests, self._arguments = requests, arguments

    def draw(self, start: int, stop: int, count: int = 1) -> list[list[Generation]]:
        """`count` answers to each of the rows start..stop; `start` decides the draws."""
        given, params = self._arguments, self._params
        block = [request for request in self._requests[start:stop] for _ in range(count)]
        if given.beams > 1:
            penalty = given.length_penalty
            drawn = self._engine.beam_search(
                params, block, beams=given.beams, length_penalty=penalty
            )
        else:
            seed = given.seed + start
            drawn = self._engine.generate(params, block, sampling=self._sampling, seed=seed)
        return [drawn[first : first + count] for first in range(0, len(drawn), count)]

    def summary(self) -> str:
        """How many inputs were too long and how full batches were, for a job's last line."""
        count = self._engine.truncated
        cut = f", {count:,} inputs cut on the left" if count else ""
        return cut + self._engine.counts.summary()


def _chat(arguments: argparse.Namespace, always: bool = False) -> dict[str, Any]:
    """How prompts are rendered, for `Prompts.of`."""
    variables = parse_variables(arguments.template_kwargs, "--template_kwargs")
    return {"chat": always or arguments.chat, "variables": variables}


def _chat_source(arguments: argparse.Namespace, found: FoundModel, prompts: Prompts) -> _Source:
    """A source of answers to conversations, which may be as long as the model allows."""
    requests = prompts.requests(found.tokenizer, arguments.max_new_tokens, arguments.stop)
    longest = found.config.max_position_embeddings
    return _Source(arguments, found, requests, prompts.end_ids, longest)


def _documents(arguments: argparse.Namespace) -> int:
    """Writes a synthetic document for each row that fills a template."""
    from marco_jax.data.synthetic import load_template

    _set_defaults(arguments, _NEW_TOKENS_OF_DOCUMENTS, temperature=1.0)
    if not arguments.input:
        raise ValueError("--template needs --input, a JSONL file of its fields")
    if arguments.beams != 1:
        raise ValueError("--beams searches, and --template draws: leave one out")
    template = load_template(arguments.template)
    rows = [
        {**row, "prompt": template.render(row, f"{arguments.input}:{number}")}
        for number, row in enumerate(_rows_of(arguments), 1)
    ]
    found = find_model(arguments.model)
    prompts = Prompts.of(rows, found.tokenizer, arguments.input, **_chat(arguments))
    source = _chat_source(arguments, found, prompts)

    def answer(start: int, stop: int) -> list[dict[str, Any]]:
        drawn = zip(rows[start:stop], source.draw(start, stop), strict=True)
        return [{"row": row, "text": one.text.strip(), "ended": one.ended} for row, (one,) in drawn]

    kept = 0

    def keep(record: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal kept
        ended = record["ended"] or arguments.keep_cut
        if not ended or not template.usable(record["text"]):
            return None
        kept += 1
        return {**record["row"], "text": record["text"]}

    written = _write(arguments, rows, answer, settings={"template": template.text}, keep=keep)
    lost = f"{len(rows) - kept:,} empty, cut or with banned words"
    summary = f"{written}{source.summary()}: {kept:,} documents, {lost}"
    print(f"{summary}: {arguments.out}", file=sys.stderr)
    return 0


def _pairs(arguments: argparse.Namespace) -> int:
    """Draws several answers a prompt, ranks them, and writes the best beside the worst."""
    from marco_jax.decoding.jobs import BLOCK
    from marco_jax.evaluation.ranking import PairWriter, rank, usable
    from marco_jax.evaluation.scorers import SCORERS, load_scorer, score_answers

    _set_defaults(arguments, _NEW_TOKENS_OF_PAIRS, temperature=1.0)
    _check_pairs(arguments)
    scorer = load_scorer(arguments.scorer, arguments.reference)
    found = find_model(arguments.model)
    rows = _rows_of(arguments)
    prompts = Prompts.of(rows, found.tokenizer, arguments.input, **_chat(arguments, True))
    full = [
        row if answer is None else {arguments.reference: answer, **row}
        for row, answer in zip(rows, prompts.answers, strict=True)
    ]
    if arguments.scorer in SCORERS:
        # A missing field is an error before a model has run.
        score_answers(scorer, full, ["0"] * len(rows))
    source, count = _chat_source(arguments, found, prompts), arguments.samples

    def answer(start: int, stop: int) -> list[dict[str, Any]]:
        drawn = zip(full[start:stop], source.draw(start, stop, count), strict=True)
        ranked = rank([usable(row, answers) for row, answers in drawn], scorer)
        asked = zip(rows[start:stop], prompts.messages[start:stop], ranked, strict=True)
        return [{"row": row, "prompt": prompt, "ranked": own} for row, prompt, own in asked]

    writer = PairWriter(arguments.margin)

    written = _write(arguments, rows, answer, block=max(1, BLOCK // count), keep=writer)
    summary = f"{written}{source.summary()}: {writer.summary()}"
    print(f"{summary}: {arguments.out}", file=sys.stderr)
    return 0


def _check_pairs(arguments: argparse.Namespace) -> None:
    """Usage of --pairs.

    Raises:
        ValueError: a flag that is missing or makes no sense with it.
    """
    if not arguments.input:
        raise ValueError("--pairs needs --input, a JSONL file of prompts")
    if not arguments.scorer:
        raise ValueError("--pairs needs --scorer, a scorer's name or module:function")
    if arguments.samples < 2:
        raise ValueError(f"--samples is {arguments.samples}: a pair needs at least 2 answers")
    if arguments.temperature <= 0:
        raise ValueError("--temperature is 0: all answers would be the same; draw with 0.7 or 1")
    if arguments.margin < 0:
        raise ValueError(f"--margin is {arguments.margin}: it is a difference of scores, 0 or more")
    if arguments.beams != 1:
        raise ValueError("--beams searches, and --pairs draws: leave one out")


def _check_beams(arguments: argparse.Namespace) -> None:
    """Usage of --beams, before a model is looked for (ValueError)."""
    beams = arguments.beams
    if beams < 1:
        raise ValueError(f"--beams is {beams}: write 1 (no search) or more")
    if beams > 1 and arguments.drafts:
        raise ValueError(f"--beams={beams} searches, and --drafts do not help it: leave one out")
    if beams > 1 and arguments.temperature:
        raise ValueError(f"--beams={beams} searches and does not draw: leave out --temperature")


def _set_defaults(
    arguments: argparse.Namespace, max_new_tokens: int, temperature: float = 0.0
) -> None:
    if arguments.max_new_tokens is None:
        arguments.max_new_tokens = max_new_tokens
    if arguments.temperature is None:
        arguments.temperature = temperature


def _write(
    arguments: argparse.Namespace,
    rows: list[dict[str, Any]],
    answer: Callable[[int, int], list[dict[str, Any]]],
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Writes the answers to rows to --out, with progress shown; returns how many rows there were.

    The flags and `settings` decide the answers: a job with others starts anew.
    """
    from marco_jax.decoding.jobs import run_blocks

    given = {name: value for name, value in vars(arguments).items() if name not in _NOT_SETTINGS}
    with Progress("generating", len(rows), "rows") as bar:
        before = run_blocks(
            answer,
            rows,
            as_path(arguments.out),
            settings=given | dict(settings or {}),
            progress=lambda done: bar(done - bar.done),
            **options,
        )
    resumed = f", {before:,} of them from an earlier start" if before else ""
    return f"{len(rows):,} rows{resumed}"


def _rows_of(arguments: argparse.Namespace, lines: str = "prompt") -> list[dict[str, Any]]:
    """The rows of --input, whose results need --out."""
    if not arguments.out:
        raise ValueError("--input needs --out, a file for the results")
    return read_input_rows(arguments.input, lines)
