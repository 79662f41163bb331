"""The 29 languages of Marco-LLM with their token budgets (arXiv 2412.04003, Table 1), and others.

`config.languages.extra` adds languages for the process; all code reads them from `LANGUAGES`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Language:
    """A language of the mixture.

    `group` is the paper's: "english", "chinese", "high" or "low". It follows the token budget, not
    the size of the corpus: Greek has more raw text than Portuguese but is in "low".
    `corpus_tokens` and `used_tokens` are in billions (Table 1). An added language has neither of
    them, and no script.
    """

    code: str
    name: str
    native_name: str
    group: str
    script: str = ""
    corpus_tokens: float | None = None
    used_tokens: float | None = None


_TABLE_1 = (
    Language("en", "English", "English", "english", "Latn", 1459.7, 90.4),
    Language("zh", "Chinese", "中文", "chinese", "Hani", 214.7, 48.2),
    Language("ar", "Arabic", "العربية", "high", "Arab", 45.8, 10.6),
    Language("de", "German", "Deutsch", "high", "Latn", 442.8, 10.6),
    Language("es", "Spanish", "español", "high", "Latn", 397.8, 10.6),
    Language("fr", "French", "français", "high", "Latn", 320.8, 10.6),
    Language("ko", "Korean", "한국어", "high", "Hang", 41.8, 10.6),
    Language("ja", "Japanese", "日本語", "high", "Jpan", 224.2, 10.6),
    Language("pt", "Portuguese", "português", "high", "Latn", 145.3, 10.6),
    Language("tr", "Turkish", "Türkçe", "high", "Latn", 80.6, 10.6),
    Language("bn", "Bengali", "বাংলা", "low", "Beng", 6.5, 1.9),
    Language("he", "Hebrew", "עברית", "low", "Hebr", 11.3, 1.9),
    Language("id", "Indonesian", "Bahasa Indonesia", "low", "Latn", 23.8, 1.9),
    Language("it", "Italian", "italiano", "low", "Latn", 56.3, 1.9),
    Language("ms", "Malay", "Bahasa Melayu", "low", "Latn", 2.9, 1.9),
    Language("nl", "Dutch", "Nederlands", "low", "Latn", 31.3, 1.9),
    Language("pl", "Polish", "polski", "low", "Latn", 45.3, 1.9),
    Language("ru", "Russian", "русский", "low", "Cyrl", 251.0, 1.9),
    Language("th", "Thai", "ไทย", "low", "Thai", 8.3, 1.9),
    Language("uk", "Ukrainian", "українська", "low", "Cyrl", 18.4, 1.9),
    Language("ur", "Urdu", "اردو", "low", "Arab", 8.7, 1.9),
    Language("vi", "Vietnamese", "Tiếng Việt", "low", "Latn", 24.4, 1.9),
    Language("cs", "Czech", "čeština", "low", "Latn", 270.2, 1.9),
    Language("el", "Greek", "Ελληνικά", "low", "Grek", 376.8, 1.9),
    Language("hu", "Hungarian", "magyar", "low", "Latn", 214.4, 1.9),
    Language("kk", "Kazakh", "қазақ тілі", "low", "Cyrl", 16.8, 1.9),
    Language("ro", "Romanian", "română", "low", "Latn", 160.0, 1.9),
    Language("az", "Azerbaijani", "azərbaycan", "low", "Latn", 19.4, 1.9),
    Language("ne", "Nepali", "नेपाली", "low", "Deva", 22.6, 1.9),
)

# The paper's in the order of its table, then those of `add_languages` in the order of their codes.
LANGUAGES: dict[str, Language] = {language.code: language for language in _TABLE_1}

# Codes of languages that name averages over languages in results.
_RESERVED = ("all", "low")
_CODE = re.compile("[a-z]{2,3}")


def high_resource() -> tuple[str, ...]:
    """Codes of the high-resource languages; the paper's ten include English and Chinese."""
    return tuple(code for code, language in LANGUAGES.items() if language.group != "low")


def low_resource() -> tuple[str, ...]:
    """Codes of the low-resource languages; the paper has nineteen."""
    return tuple(code for code, language in LANGUAGES.items() if language.group == "low")


def add_languages(extra: str) -> None:
    """Adds languages to `LANGUAGES`; one that is there already with the same values stays.

    Args:
        extra: `config.languages.extra`, such as "sw:Swahili:low,yo:Yoruba:low:Yorùbá": code, name,
            group ("high" or "low"), and the name in the language itself, by default the other name.

    Raises:
        ValueError: names the item that is malformed, or that defines a language differently.
    """
    found: dict[str, Language] = {}
    for item in names_in(extra):
        language = _parse_language(item)
        other = found.get(language.code) or LANGUAGES.get(language.code, language)
        if other != language:
            there = ":".join((other.code, other.name, other.group, other.native_name))
            raise ValueError(
                f"languages.extra: {item!r} defines {language.code!r} differently than {there!r}, "
                "which is known already: write the same values, or use another code"
            )
        found[language.code] = language
    new = {code: language for code, language in found.items() if code not in LANGUAGES}
    if new:
        language_code.cache_clear()
        own = [language.code for language in _TABLE_1]
        new |= {code: LANGUAGES.pop(code) for code in tuple(LANGUAGES) if code not in own}
        LANGUAGES.update(sorted(new.items()))


def add_config_languages(config: Mapping[str, Any]) -> None:
    """Adds `languages.extra` of a run's config; one without the field adds none.

    Raises:
        ValueError: as `add_languages`.
    """
    add_languages(config.get("languages", {}).get("extra", ""))


def _parse_language(item: str) -> Language:
    parts = [part.strip() for part in item.split(":")]
    if len(parts) not in (3, 4) or not all(parts):
        raise ValueError(
            f"languages.extra: {item!r} is not of the form code:Name:group, such as sw:Swahili:low"
        )
    code, name, group, *native = parts
    if not _CODE.fullmatch(code) or code in _RESERVED:
        raise ValueError(
            f"languages.extra: {item!r}: the code {code!r} cannot be used: write two or three "
            f"lower-case letters that are not {' or '.join(_RESERVED)}"
        )
    if any(language.code == code for language in _TABLE_1):
        raise ValueError(
            f"languages.extra: {item!r}: {code!r} is one of the paper's 29 languages: leave it out"
        )
    if group not in ("high", "low"):
        raise ValueError(f"languages.extra: {item!r}: the group is {group!r}: write high or low")
    return Language(code, name, native[0] if native else name, group)


def get_language(code: str) -> Language:
    """Returns the language with a code such as "kk".

    Raises:
        ValueError: the code is unknown; the message suggests the nearest one.
    """
    if code not in LANGUAGES:
        names = {language.name.lower(): language.code for language in LANGUAGES.values()}
        near = names.get(code.lower()) or next(iter(difflib.get_close_matches(code, LANGUAGES)), "")
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(LANGUAGES)}"
        raise ValueError(
            f"language {code!r} is unknown: {hint}; config.languages.extra adds a language"
        )
    return LANGUAGES[code]


# What files write for a text of an unknown language, or of none or several (ISO 639-2).
_NO_LANGUAGE = ("und", "mul", "zxx", "mis", "unk", "none", "null", "nan", "other")


@functools.lru_cache(maxsize=4096)
def language_code(text: str) -> str:
    """The code of a language that a file names, as "kk" for "kaz", "KK", "kk_KZ" and "kaz_Cyrl".

    Deprecated codes ("iw") and the chief member of a macrolanguage ("cmn", "azj") become the code
    that the mixture uses. Languages outside it keep their two or three letters.

    Args:
        text: a tag of ISO 639, BCP 47 or FLORES, or an English or native name of a known language.

    Returns:
        The code, or "" for none, such as "und" or "unknown".
    """
    text = text.strip().lower()
    for language in LANGUAGES.values():
        if text in (language.code, language.name.lower(), language.native_name.lower()):
            return language.code
    # "en_US.utf8" and "sr@latin" as systems name locales.
    tag = re.split("[.@;,]", text)[0].replace("_", "-").strip()
    code = tag.partition("-")[0]
    if not _CODE.fullmatch(code) or code in _NO_LANGUAGE:
        return ""
    import langcodes

    try:
        code = langcodes.Language.get(langcodes.standardize_tag(code, macro=True)).language or ""
    except ValueError:
        return ""
    # Identifiers of languages write Tagalog so.
    return "tl" if code == "fil" else code if _CODE.fullmatch(code) else ""


def names_in(text: str) -> tuple[str, ...]:
    """Splits a comma-separated list such as "kk, ne"; an empty text gives an empty tuple."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
