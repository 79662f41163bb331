"""FLORES-200 codes (language and script) of the 29 languages."""

from __future__ import annotations

FLORES = {
    "en": "eng_Latn",
    "zh": "zho_Hans",
    "ar": "arb_Arab",
    "de": "deu_Latn",
    "es": "spa_Latn",
    "fr": "fra_Latn",
    "ko": "kor_Hang",
    "ja": "jpn_Jpan",
    "pt": "por_Latn",
    "tr": "tur_Latn",
    "bn": "ben_Beng",
    "he": "heb_Hebr",
    "id": "ind_Latn",
    "it": "ita_Latn",
    "ms": "zsm_Latn",
    "nl": "nld_Latn",
    "pl": "pol_Latn",
    "ru": "rus_Cyrl",
    "th": "tha_Thai",
    "uk": "ukr_Cyrl",
    "ur": "urd_Arab",
    "vi": "vie_Latn",
    "cs": "ces_Latn",
    "el": "ell_Grek",
    "hu": "hun_Latn",
    "kk": "kaz_Cyrl",
    "ro": "ron_Latn",
    "az": "azj_Latn",
    "ne": "npi_Deva",
}

# Names of benchmark languages outside the 29.
OTHER_NAMES = {"fi": "Finnish"}
