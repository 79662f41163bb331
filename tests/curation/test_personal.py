"""Personal data is masked, and what only looks like it stays."""

import pytest

from marco_jax.curation.personal import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ada.l+x@mail.example.org, please.", "Write to <EMAIL>, please."),
        ("пишите: иван@почта.example", "пишите: <EMAIL>"),
        ("see https://ada:secret@host.example/a", "see <LOGIN>@host.example/a"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <IBAN>."),
        ("card 4111 1111 1111 1111 or 4111111111111111", "card <CARD> or <CARD>"),
        ("from 203.0.113.9 at night", "from <IP> at night"),
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
    ],
)
def test_kept(text):
    assert mask(text) == (text, 0)
