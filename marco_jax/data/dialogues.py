"""Documents of sources whose records are dialogues: conversations, preferences and prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from marco_jax.data.chat import (
    Turn,
    conversation,
    plain_text,
    preference,
    question,
    template_variables,
)
from marco_jax.data.input_parts import InputPart, Record, read_input
from marco_jax.data.record_errors import RecordErrors, check_text
from marco_jax.data.sources import Source
from marco_jax.data.texts import CHAT, PROMPT, Document, is_held_out
from marco_jax.languages import language_code

# The field of a prompt's record with the answer that rewards compare with.
REFERENCE = "reference"


def read_dialogues(
    source: Source, part: InputPart, errors: RecordErrors, held_out: bool
) -> Iterator[Document]:
    """The documents of a part of a source, of those that are held out or of the others.

    Of a preference the conversation that was chosen comes first, then the rejected one. Records
    that do not have what the source's kind asks for are reported to `errors`.
    """
    for place, record in read_input(source, part, errors):
        try:
            sides, fields = _sides(source.kind, record, place)
            variables = template_variables(record, place)
        except ValueError as error:
            detail = str(error).removeprefix(place).lstrip(": ")
            errors.report(place, f"not a {source.kind} record", detail)
            continue
        texts = [check_text(plain_text(turns), place, errors) for turns in sides]
        if None in texts:
            continue
        # The same prompt is held out with every answer.
        trained = [number for number, turn in enumerate(sides[0]) if turn.trained]
        prompt = plain_text(sides[0][: trained[-1]] if trained else sides[0])
        if is_held_out(prompt, source.held_out) != held_out:
            continue
        name = str(record.get(source.inputs[part.number].id) or prompt)
        language = source.language or language_code(str(record.get("language") or ""))
        if fields:
            fields = {**fields, "language": language}
        for text, turns in zip(texts, sides, strict=True):
            names = (language, source.name, name)
            yield Document(text, *names, turns, (prompt,), variables, fields)


def _sides(kind: str, record: Record, place: str) -> tuple[list[tuple[Turn, ...]], dict[str, Any]]:
    """The conversations of a record, and the fields of a prompt's (empty for other kinds)."""
    if kind == CHAT:
        return [conversation(record, place)], {}
    if kind != PROMPT:
        return list(preference(record, place)), {}
    turns, answer = question(record, place)
    turns = tuple(turn._replace(trained=False) for turn in turns)
    given = {} if answer is None else {REFERENCE: answer}
    return [turns], {**given, **record}
