"""The 29 languages of Marco-LLM and their token budgets (arXiv 2412.04003, Table 1)."""

from __future__ import annotations

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Language:
    """A language of the mixture.

    `group` is the paper's: "english", "chinese", "high" or "low". It follows the token budget, not
    the size of the corpus: Greek has more raw text than Portuguese but is in "low".
    `corpus_tokens` and `used_tokens` are in billions (Table 1).
    """

    code: str
    name: str
    native_name: str
    group: str
    script: str
    corpus_tokens: float
    used_tokens: float


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

LANGUAGES: dict[str, Language] = {language.code: language for language in _TABLE_1}
# The paper's "high-resource" ten include English and Chinese.
HIGH_RESOURCE = tuple(code for code, language in LANGUAGES.items() if language.group != "low")
LOW_RESOURCE = tuple(code for code, language in LANGUAGES.items() if language.group == "low")


def get_language(code: str) -> Language:
    """Returns the language with a code such as "kk".

    Raises:
        ValueError: the code is not one of the 29; the message suggests the nearest one.
    """
    if code not in LANGUAGES:
        names = {language.name.lower(): language.code for language in _TABLE_1}
        near = names.get(code.lower()) or next(iter(difflib.get_close_matches(code, LANGUAGES)), "")
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(LANGUAGES)}"
        raise ValueError(f"language {code!r} is unknown: {hint}")
    return LANGUAGES[code]


def names_in(text: str) -> tuple[str, ...]:
    """Splits a comma-separated list such as "kk, ne"; an empty text gives an empty tuple."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
