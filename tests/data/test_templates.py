"""The eleven templates, against the text of Table 13."""

from marco_jax.data.templates import TEMPLATES, render_pair

RENDERED = [
    "English phrase: Save\nKazakh phrase: Сақтау",
    "English text: Save\nKazakh text: Сақтау",
    "Translate the text from English to Kazakh:\nEnglish text: Save\nKazakh text: Сақтау",
    "Translate the words from English to Kazakh:\nEnglish words: Save\nKazakh words: Сақтау",
    "Convert the phrase from English to Kazakh:\nEnglish phrase: Save\nKazakh phrase: Сақтау",
    "Render the English sentence Save to Kazakh: Сақтау",
    "Provide the translation of the sentence Save from English to Kazakh: Сақтау",
    "Change the phrase Save to Kazakh, the translated phrase is: Сақтау",
    "Please change the sentence Save to Kazakh, and the resulting translation is: Сақтау",
    "Change the phrase Save to Kazakh, resulting in: Сақтау",
    "The sentence Save in English means Сақтау in Kazakh",
]


def test_all_eleven():
    assert len(TEMPLATES) == 11
    numbers = range(len(TEMPLATES))
    assert [render_pair(n, "English", "Kazakh", "Save", "Сақтау") for n in numbers] == RENDERED


def test_braces_of_a_text_are_text():
    for number in range(len(TEMPLATES)):
        assert "{x} %(name)s {0} {" in render_pair(
            number, "English", "Kazakh", "{x} %(name)s {0} {", "}"
        )
