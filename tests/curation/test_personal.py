"""Personal data is masked, and what only looks like it stays."""

import re

import pytest

from marco_jax.curation.personal import mask
from tests.curation.personal_items import items

_MASK = re.compile("<(?:EMAIL|LOGIN|PHONE|IBAN|CARD|IP)>")


def test_of_labelled_sentences_in_twelve_languages(capsys):
    labelled = items()
    wanted = made = right = 0
    wrong = []
    for language, text, masked in labelled:
        found, count = mask(text, language)
        assert count == len(_MASK.findall(found))
        wanted += len(_MASK.findall(masked))
        made += count
        if found == masked:
            right += count
        else:
            wrong.append(f"{language}: {text} -> {found}")
    precision, recall = right / made, right / wanted
    with capsys.disabled():
        print(f"\n{len(labelled)} sentences: precision {precision:.3f}, recall {recall:.3f}")
    assert len(labelled) >= 500 and len({language for language, _, _ in labelled}) == 12
    assert precision >= 0.95 and recall >= 0.95, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ada.l+x@mail.example.org, please.", "Write to <EMAIL>, please."),
        ("пишите: иван@почта.example", "пишите: <EMAIL>"),
        ("see https://ada:secret@host.example/a", "see <LOGIN>@host.example/a"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <IBAN>."),
        ("to de89370400440532013000 is", "to <IBAN> is"),
        ("card 4111 1111 1111 1111 or 4111111111111111", "card <CARD> or <CARD>"),
        ("from 203.0.113.9 at night", "from <IP> at night"),
        ("from 2001:db8::ff00:42:8329: it", "from <IP>: it"),
        ("call +49 30 901820 today", "call <PHONE> today"),
    ],
)
def test_masked(text, masked):
    assert mask(text) == (masked, masked.count("<"))


@pytest.mark.parametrize(
    "text",
    [
        "@everyone, meet me @ 5. Version 1.2.3 of 10.11.2024 cost 1,234.56 + 20.",
        "DE89 3704 0044 0532 0130 01 and 4111 1111 1111 1112 fail their checks.",
        "300.300.300.300 is no address; 1.2.3.4.5 is a section.",
        "ISBN 978-0-306-40615-7, ISBN-13: 9780306406157, EAN 4006381333931",
        "firmware 10.200.14.3, 127.0.0.1 and 255.255.255.0",
        "at 12:30:45, std::a::b, 00:1a:2b:3c:4d:5e, ab::cd",
    ],
)
def test_kept(text):
    assert mask(text, "en") == (text, 0)


def test_a_national_number_is_one_of_the_language_of_the_text():
    assert mask("Telefon 030 901820, bitte", "de") == ("Telefon <PHONE>, bitte", 1)
    assert mask("Telefon 030 901820, bitte", "ja")[1] == 0
    assert mask("Telefon 030 901820, bitte")[1] == 0
