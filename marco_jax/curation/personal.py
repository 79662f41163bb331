"""Masks personal data in texts by the name of its kind, such as <EMAIL>."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_LOGIN = re.compile(r"\b(https?|ftp)://[^\s/:@]+:[^\s/@]+@")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_PHONE = re.compile(r"(?<![\w])\+\d[\d ().-]{6,18}\d")


def mask(text: str) -> tuple[str, int]:
    """Masks personal data in a text; also returns the number of masked items."""
    count = 0
    for precheck, pattern, name, valid in _KINDS:
        if not precheck(text):
            continue

        def replaced(match: re.Match, name: str = name, valid: _Check = valid) -> str:
            nonlocal count
            if not valid(match.group()):
                return match.group()
            count += 1
            return name

        text = pattern.sub(replaced, text)
    return text, count


def _is_card(found: str) -> bool:
    """Whether a card number has a valid Luhn checksum (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(found) if char.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _is_iban(found: str) -> bool:
    """Whether an IBAN has a valid checksum modulo 97 (ISO 13616)."""
    compact = found.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _is_address(found: str) -> bool:
    try:
        ipaddress.IPv4Address(found)
    except ValueError:
        return False
    return True


def _is_phone(found: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(found, None))
    except phonenumbers.NumberParseException:
        return False


def _any(found: str) -> bool:
    return True


_Check = Callable[[str], bool]
# A cheap precheck that skips most texts, the pattern, the mask, and a check of each match.
_KINDS: tuple[tuple[Callable, re.Pattern, str, _Check], ...] = (
    (re.compile(r"://[^\s/:@]+:[^\s/@]+@").search, _LOGIN, "<LOGIN>@", _any),
    (re.compile(r"@[\w-]+\.[\w-]").search, _EMAIL, "<EMAIL>", _any),
    (re.compile(r"[A-Z]{2}\d{2}").search, _IBAN, "<IBAN>", _is_iban),
    (re.compile(r"\d(?:[ -]?\d){5}").search, _CARD, "<CARD>", _is_card),
    (re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d").search, _ADDRESS, "<IP>", _is_address),
    (re.compile(r"\+\d[\d ().-]{6}").search, _PHONE, "<PHONE>", _is_phone),
)
