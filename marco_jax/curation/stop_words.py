"""Stop words by language; text with few of them is not prose.

The lists are jusText's (BSD-2), made from the most frequent words of Wikipedia. Languages without
spaces between words have a list of a few grammatical characters instead.
"""

from __future__ import annotations

import functools

from marco_jax.ngrams import normalized_words

# jusText names its lists by the language's English name.
_NAMES = {
    "ar": "Arabic", "az": "Azerbaijani", "bn": "Bengali", "cs": "Czech", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "fr": "French", "he": "Hebrew",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "kk": "Kazakh", "ko": "Korean",
    "ms": "Malay", "ne": "Nepali", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese",
}  # fmt: skip
_CHARACTERS = {
    "zh": "的一是不了在有我他这这個个们們来來上大为為和国國地到以说說时時要就出会會",
    "ja": "のにはをたがでてとしれさるいなこもらす",
    "th": "านรกงอยลทวมคสเแไ่้",
}


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, normalised; characters for zh, ja and th; empty if unknown."""
    if language in _CHARACTERS:
        return frozenset(_CHARACTERS[language])
    if language not in _NAMES:
        return frozenset()
    import justext

    words = justext.get_stoplist(_NAMES[language])
    return frozenset(part for word in words for part in normalized_words(word))
