"""Prompts for synthetic documents: the paper's three families (arXiv 2412.04003, Table 14).

A family is a template over the fields of a row. What a prompt must say (roles, keywords, lengths,
what must not stand in the text) is the table's; the words are ours, as its own are an image.

    keyword_explanation   role_1, role_2, subject, keywords
    keyword_story         role_1, role_2, subject, keywords, type_passage, scene, style, ending,
                          min_length, max_length, language
    sample_generator      samples

Lists become texts: keywords are joined by commas, samples are numbered. A language is a code or a
name; where a family does not ask for one, a row's "language" adds a line that does.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping
from typing import Any

from marco_jax.files import as_path
from marco_jax.languages import LANGUAGES

KEYWORD_EXPLANATION, KEYWORD_STORY, SAMPLE_GENERATOR = FAMILIES = (
    "keyword_explanation",
    "keyword_story",
    "sample_generator",
)


@dataclasses.dataclass(frozen=True)
class Template:
    """A prompt with fields in braces.

    Attributes:
        name: of the family, or the path of a file.
        text: str.format over a row's fields.
        banned: what the document must not hold.
    """

    name: str
    text: str
    banned: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(dict.fromkeys(_fields(self.text)))

    def render(self, row: Mapping[str, Any], place: str) -> str:
        """The prompt of a row.

        Raises:
            ValueError: the row at `place` lacks a field, or one is empty.
        """
        missing = [name for name in self.fields if row.get(name) in (None, "", [])]
        if missing:
            raise ValueError(
                f"{place}: {self.name} needs {', '.join(self.fields)}; there is no {missing[0]!r}"
            )
        text = self.text.format(**{name: _as_text(name, row[name]) for name in self.fields})
        if "language" not in self.fields and isinstance(row.get("language"), str):
            text += f"\nWrite in {_as_text('language', row['language'])}."
        return text

    def usable(self, text: str) -> bool:
        """Whether a text may become a document: not empty, nothing banned in it."""
        low = text.lower()
        return bool(text.strip()) and not any(words.lower() in low for words in self.banned)


_TEMPLATES = (
    Template(
        KEYWORD_EXPLANATION,
        "You are {role_1} in the field of {subject}. Explain these keywords to {role_2}: "
        "{keywords}.\n"
        "Give each keyword at least three sentences, at a level that {role_2} can follow; you may "
        "tell a story where it helps. End with a summary of all keywords. Write the explanation "
        "alone, as one text.",
    ),
    Template(
        KEYWORD_STORY,
        "You are {role_1} in the field of {subject}. Write {type_passage} for {role_2} in "
        "{language}.\n"
        "Keywords that must all stand in it: {keywords}.\n"
        "Scene: {scene}.\nStyle: {style}.\nEnding: {ending}.\n"
        "Length: between {min_length} and {max_length} words. Write the text alone.",
    ),
    Template(
        SAMPLE_GENERATOR,
        "Below are sample documents of one domain. Create one new sample of the same domain: "
        "rarer than the given ones in what it is about, of similar length and complexity, and no "
        "copy of any of them.\n"
        'Write the new sample alone. The words "Given Sample" and "Created Sample" must not stand '
        "in it.\n\n{samples}\n\nThe new sample:",
        banned=("Given Sample", "Created Sample"),
    ),
)


def load_template(name: str) -> Template:
    """The template of a family's name, or the text of a file.

    Raises:
        ValueError: there is no such family or file, or its braces do not pair.
    """
    for template in _TEMPLATES:
        if template.name == name:
            return template
    path = as_path(name)
    if not path.is_file():
        known = ", ".join(FAMILIES)
        raise ValueError(f"template {name!r} is unknown: known are {known}, and text files")
    try:
        template = Template(name, path.read_text(encoding="utf-8").strip())
        named = all(field.isidentifier() for field in template.fields)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not a valid template: {error}") from None
    if not named or not template.fields:
        raise ValueError(f"{name} is not a valid template: it needs fields such as {{keywords}}")
    return template


def _fields(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def _as_text(name: str, value: Any) -> str:
    if name == "language" and value in LANGUAGES:
        return LANGUAGES[value].name
    if not isinstance(value, list):
        return str(value)
    if name == "samples":
        numbered = enumerate(map(str, value), 1)
        return "\n\n".join(f"Given Sample {number}:\n{text.strip()}" for number, text in numbered)
    return ", ".join(map(str, value))
