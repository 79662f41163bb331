"""The eleven templates that turn a translation pair into text (arXiv 2412.04003, Table 13)."""

from __future__ import annotations

import random

from marco_jax.extras import optional
from marco_jax.languages import get_language

# Placeholders: names of the two languages, and the two texts. The table gives them in English.
TEMPLATES: tuple[str, ...] = (
    "{src} phrase: {x}\n{tgt} phrase: {y}",
    "{src} text: {x}\n{tgt} text: {y}",
    "Translate the text from {src} to {tgt}:\n{src} text: {x}\n{tgt} text: {y}",
    "Translate the words from {src} to {tgt}:\n{src} words: {x}\n{tgt} words: {y}",
    "Convert the phrase from {src} to {tgt}:\n{src} phrase: {x}\n{tgt} phrase: {y}",
    "Render the {src} sentence {x} to {tgt}: {y}",
    "Provide the translation of the sentence {x} from {src} to {tgt}: {y}",
    "Change the phrase {x} to {tgt}, the translated phrase is: {y}",
    "Please change the sentence {x} to {tgt}, and the resulting translation is: {y}",
    "Change the phrase {x} to {tgt}, resulting in: {y}",
    "The sentence {x} in {src} means {y} in {tgt}",
)


def render_pair(template: int, source_language: str, target_language: str, x: str, y: str) -> str:
    """Fills template number `template` (0..10) with language names and texts."""
    # Texts may hold braces (placeholders of an interface), so they are not formatted themselves.
    return TEMPLATES[template].format(src=source_language, tgt=target_language, x=x, y=y)


def language_names(x: str, y: str, how: str, rng: random.Random) -> tuple[str, str]:
    """Names of the languages `x` and `y`, in the language that `how` selects.

    Raises:
        MissingExtra: Babel, which knows names in other languages than English, is not installed.
    """
    if how == "mixed":
        how = rng.choice(("english", "source", "target"))
    if how == "english":
        return get_language(x).name, get_language(y).name
    with optional(f"language_names={how!r}"):
        import babel

    try:
        names = babel.Locale.parse(x if how == "source" else y).languages
    except babel.UnknownLocaleError:  # a language besides the paper's
        names = {}
    return names.get(x, get_language(x).native_name), names.get(y, get_language(y).native_name)
