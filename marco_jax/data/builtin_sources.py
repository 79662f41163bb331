"""The corpus that ships with the dependencies, read as files; none of the packages is imported.

Monolingual and parallel text: the interface translations of Django (BSD-3), Django REST framework
(BSD-3) and django-allauth (MIT). English prose: the documentation strings of the same packages and
of Babel (BSD-3). Knowledge: facts of the Unicode CLDR, which Babel carries (see knowledge.py).
"""

from __future__ import annotations

import ast
import collections
import contextlib
import hashlib
import importlib.util
import inspect
import io
import itertools
import pathlib
import random
import warnings
from collections.abc import Iterable, Iterator

from marco_jax.data.generated_sources import named_sources
from marco_jax.data.knowledge import knowledge_documents
from marco_jax.data.sources import Input, Source
from marco_jax.data.texts import KNOWLEDGE, PARALLEL
from marco_jax.extras import optional
from marco_jax.languages import LANGUAGES

with optional():
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import read_mo
    from babel.messages.pofile import read_po

CATALOG_PACKAGES = ("django", "rest_framework", "allauth")
PROSE_PACKAGES = ("django", "rest_framework", "allauth", "babel")

# Locale folders of a language, the best first; names that are the plain code are left out.
LOCALES = {
    "zh": ("zh_Hans", "zh_CN", "zh_Hant", "zh_TW"),
    "pt": ("pt_BR", "pt_PT", "pt"),
    "es": ("es", "es_MX", "es_AR"),
    "ko": ("ko", "ko_KR"),
    "ne": ("ne", "ne_NP"),
    "he": ("he", "he_IL"),
    "ru": ("ru", "ru_RU"),
    "tr": ("tr", "tr_TR"),
    "el": ("el", "el_GR"),
}

# Partners, besides English, that a message of a language is paired with directly.
PARTNERS = 1
# Shorter messages ("Jan", "kB") are left out of documents; two Chinese characters are a word.
MESSAGE_BYTES = 5
# A documentation string shorter than this says little.
PROSE_CHARACTERS = 80


def builtin_sources(seed: int) -> list[Source]:
    """Reads the packages, and declares what they hold."""
    inputs: dict[str, list[Input]] = collections.defaultdict(list)
    messages = {
        language: _messages(LOCALES.get(language, (language,)))
        for language in LANGUAGES
        if language != "en"
    }
    english = dict.fromkeys(key for runs in messages.values() for run in runs for key, _ in run)
    inputs["en"].append(Input(records=_records((key, key) for key in english), joined=True))
    inputs["en"].append(Input(records=_records((text, text) for text in dict.fromkeys(_prose()))))
    for language, runs in messages.items():
        for run in runs:
            texts = ((key, text) for key, text in run if len(text.encode()) >= MESSAGE_BYTES)
            inputs[language].append(Input(records=_records(texts), joined=True))
    translations = {code: _best(runs) for code, runs in messages.items()}
    for languages, records in _pairs(translations, seed).items():
        inputs[PARALLEL].append(Input(records=tuple(records), languages=languages))
    for language in LANGUAGES:
        facts = tuple(
            {"id": name, "english": name, "text": text}
            for name, text in knowledge_documents(language, seed)
        )
        inputs[KNOWLEDGE].append(Input(records=facts, language=language))
    return named_sources(inputs)


def _records(texts: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    """Records of (English text, text); the English one decides what is held out."""
    return tuple({"english": english, "text": text} for english, text in texts)


Run = list[tuple[str, str]]  # (English message, its translation), in catalog order


def _messages(locales: tuple[str, ...]) -> list[Run]:
    """The catalogs of a language, a list each; translations seen before are left out."""
    runs, seen = [], set()
    for locale, package in itertools.product(locales, CATALOG_PACKAGES):
        folders = sorted(_package(package).rglob(f"locale/{locale}/LC_MESSAGES"))
        for file in (file for folder in folders for file in _catalog_files(folder)):
            run = [entry for entry in _read(file) if entry not in seen]
            seen.update(run)
            runs.append(run)
    return [run for run in runs if run]


def _catalog_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """A folder's catalogs as .po, or as .mo where a wheel leaves the .po out."""
    sources = sorted(folder.glob("*.po"))
    names = {file.stem for file in sources}
    return [*sources, *(file for file in sorted(folder.glob("*.mo")) if file.stem not in names)]


def _read(file: pathlib.Path) -> Iterator[tuple[str, str]]:
    """English messages and translations; of a plural message its general form."""
    # Babel prints what it finds odd in a catalog (plural forms it does not expect).
    with open(file, "rb") as stream, contextlib.redirect_stdout(io.StringIO()):
        catalog: Catalog = read_mo(stream) if file.suffix == ".mo" else read_po(stream)
    for entry in catalog:
        if not entry.id or entry.fuzzy:
            continue
        key, text = entry.id, entry.string
        if isinstance(key, (tuple, list)):
            forms = text if isinstance(text, (tuple, list)) else (text,)
            key, text = key[-1], forms[-1]
        if isinstance(text, str) and text.strip() and text.strip() != key.strip():
            yield key.strip(), text.strip()


def _best(runs: list[Run]) -> dict[str, str]:
    """One translation a message: that of the best locale's first catalog."""
    best: dict[str, str] = {}
    for key, text in itertools.chain.from_iterable(runs):
        best.setdefault(key, text)
    return best


def _pairs(
    translations: dict[str, dict[str, str]], seed: int
) -> dict[tuple[str, str], list[dict[str, str]]]:
    """English with every language, and each language with a few others on the English message.

    Records by (source language, target language), each in a seeded order.
    """
    found: dict[tuple[str, str], list[dict[str, str]]] = collections.defaultdict(list)
    for language, known in translations.items():
        for key, text in known.items():
            found["en", language].append({"english": key, "source": key, "target": text})
    rng = random.Random(f"partners {seed}")
    languages = sorted(translations)
    for language in languages:
        for key, text in translations[language].items():
            for other in rng.sample(languages, PARTNERS):
                if other > language and key in translations[other]:
                    pair = {"english": key, "source": text, "target": translations[other][key]}
                    found[language, other].append(pair)

    def rank(pair: dict[str, str]) -> bytes:
        text = f"{seed}\0{pair['english']}\0{pair['target']}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return {languages: sorted(pairs, key=rank) for languages, pairs in sorted(found.items())}


def _prose() -> Iterator[str]:
    """Documentation strings as English documents."""
    for package in PROSE_PACKAGES:
        root = _package(package)
        for file in sorted(root.rglob("*.py")):
            if "locale" in file.parts or "migrations" in file.parts:
                continue
            for text in _documentation(file):
                if len(text) >= PROSE_CHARACTERS:
                    yield text


def _documentation(file: pathlib.Path) -> Iterator[str]:
    """The documentation strings of a module, its classes and its functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old escapes in other people's strings
        tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False)):
            yield inspect.cleandoc(text)


def _package(name: str) -> pathlib.Path:
    return pathlib.Path(importlib.util.find_spec(name).origin).parent
