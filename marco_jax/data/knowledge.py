"""True statements about countries and days, from the Unicode CLDR as Babel carries it.

A fact has one key in all languages ("currency JP"), so that what is held out in one language is
held out in all. Statements are lines of the form "label: value", which need no grammar; English and
Chinese, where sentences are safe, have sentences as well.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator

from marco_jax.extras import optional

with optional():
    from babel import Locale
    from babel.core import get_global
    from babel.dates import format_date
    from babel.languages import get_official_languages
    from babel.numbers import format_decimal, get_territory_currencies

# The words for "currency" and "official language".
LABELS = {
    "en": ("Currency", "Official language"),
    "zh": ("货币", "官方语言"),
    "ar": ("العملة", "اللغة الرسمية"),
    "de": ("Währung", "Amtssprache"),
    "es": ("Moneda", "Idioma oficial"),
    "fr": ("Monnaie", "Langue officielle"),
    "ko": ("통화", "공용어"),
    "ja": ("通貨", "公用語"),
    "pt": ("Moeda", "Língua oficial"),
    "tr": ("Para birimi", "Resmî dil"),
    "bn": ("মুদ্রা", "সরকারি ভাষা"),
    "he": ("מטבע", "שפה רשמית"),
    "id": ("Mata uang", "Bahasa resmi"),
    "it": ("Valuta", "Lingua ufficiale"),
    "ms": ("Mata wang", "Bahasa rasmi"),
    "nl": ("Munteenheid", "Officiële taal"),
    "pl": ("Waluta", "Język urzędowy"),
    "ru": ("Валюта", "Официальный язык"),
    "th": ("สกุลเงิน", "ภาษาราชการ"),
    "uk": ("Валюта", "Офіційна мова"),
    "ur": ("کرنسی", "سرکاری زبان"),
    "vi": ("Tiền tệ", "Ngôn ngữ chính thức"),
    "cs": ("Měna", "Úřední jazyk"),
    "el": ("Νόμισμα", "Επίσημη γλώσσα"),
    "hu": ("Pénznem", "Hivatalos nyelv"),
    "kk": ("Валюта", "Ресми тіл"),
    "ro": ("Monedă", "Limbă oficială"),
    "az": ("Valyuta", "Rəsmi dil"),
    "ne": ("मुद्रा", "आधिकारिक भाषा"),
}

SENTENCES = {
    "en": ("The currency of {} is the {}.", "The official language of {} is {}."),
    "zh": ("{}的货币是{}。", "{}的官方语言是{}。"),
}

# Dates a language, each written in full.
DATES = 60


def knowledge_documents(language: str, seed: int) -> Iterator[tuple[str, str]]:
    """Facts of a language with their keys: territories, and dates; none without LABELS."""
    if language not in LABELS:
        return
    locale = Locale.parse(language)
    for territory in sorted(get_global("territory_currencies")):
        name = locale.territories.get(territory)
        if name is not None and (text := _territory(locale, language, territory, name)):
            yield f"territory {territory}", text
    rng = random.Random(f"dates {seed}")
    for _ in range(DATES):
        day = datetime.date(1990, 1, 1) + datetime.timedelta(days=rng.randrange(16_000))
        amount = rng.randrange(1000, 10_000_000)
        full = format_date(day, "full", locale=locale)
        text = f"{day.isoformat()}: {full}\n{amount}: {format_decimal(amount, locale=locale)}"
        yield f"date {day.isoformat()}", text


def _territory(locale: Locale, language: str, territory: str, name: str) -> str:
    """What is known of a territory, or "" where its currency or language has no name here."""
    currencies = get_territory_currencies(territory, tender=True)
    official = get_official_languages(territory, de_facto=True)
    currency = locale.currencies.get(currencies[-1]) if currencies else None
    spoken = [locale.languages[code] for code in official if code in locale.languages]
    if currency is None or not spoken:
        return ""
    labels, values = LABELS[language], (f"{currency} ({currencies[-1]})", ", ".join(spoken))
    lines = [name, *(f"{label}: {value}" for label, value in zip(labels, values, strict=True))]
    if language in SENTENCES:
        about = (currency, " and ".join(spoken) if language == "en" else "、".join(spoken))
        lines += [
            sentence.format(name, value)
            for sentence, value in zip(SENTENCES[language], about, strict=True)
        ]
    return "\n".join(lines)
