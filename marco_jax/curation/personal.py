"""Masks personal data in texts by the name of its kind, such as <EMAIL>.

A pattern finds candidates, and a check decides: check digits and issuers of card numbers, countries
and check digits of IBANs, and for telephone numbers the numbering plans of `phonenumbers` in the
regions of the document's language.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from marco_jax.curation.personal_tables import (
    ADDRESS_WORDS,
    CARDS,
    IBAN_LENGTHS,
    PHONE_WORDS,
    REGIONS,
    VERSION_WORDS,
)

# Characters before a candidate in which a word tells what it is.
NEAR = 30
# Four-part numbers with no larger part are sections and versions, unless a word says address.
SMALL_PARTS = 30

_LOGIN = re.compile(r"\b(https?|ftp)://[^\s/:@]+:[^\s/@]+@")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IBAN = re.compile(r"(?<![\w-])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){10,34}")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d,]|\.\d)")
_ADDRESS = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_ADDRESS_6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
)
_PHONE = re.compile(r"(?<![\w+.])(?:\+|00)[1-9][\d ().\u00a0-]{5,18}\d(?![\w])")
_NATIONAL = re.compile(r"(?<![\w.,+/-])\(?\d[\d ()./\u00a0-]{5,16}\d(?![\w/]|[.,]\d)")


def mask(text: str, language: str = "") -> tuple[str, int]:
    """Masks personal data in a text; also returns the number of masked items.

    Args:
        text: the text.
        language: its code; national telephone numbers are those of the language's regions.
    """
    count = 0
    for precheck, pattern, name, found in _KINDS:
        if not precheck(text):
            continue

        def replaced(match: re.Match, name: str = name, found: _Check = found) -> str:
            nonlocal count
            kept = found(match, language)
            if kept is None:
                return match.group()
            count += 1
            return name + kept

        text = pattern.sub(replaced, text)
    return text, count


def _before(match: re.Match) -> str:
    """The text before a candidate, in lower case, up to the end of the line before."""
    start = max(0, match.start() - NEAR)
    return match.string[start : match.start()].rpartition("\n")[2].lower()


def _says(before: str, words: frozenset[str]) -> bool:
    """Whether a word stands in a text; in scripts without spaces, as part of it."""
    alone = set(re.findall(r"[^\W\d_]+|[☎📞]", before))
    return bool(alone & words) or any(not w.isascii() and w in before for w in words)


def _ends_with(before: str, words: frozenset[str]) -> bool:
    """Whether a text ends with one of the words."""
    end = before.rstrip(" .:#№(-")
    last = re.search(r"[^\W\d_]*$|§$", end)
    return last[0] in words or any(not w.isascii() and end.endswith(w) for w in words)


def _any(match: re.Match, language: str) -> str | None:
    return ""


def _is_card(match: re.Match, language: str) -> str | None:
    """Whether a number has an issuer of cards, its length and a Luhn digit (ISO/IEC 7812-1)."""
    found = match.group()
    digits = [int(char) for char in found if char.isdigit()]
    text = "".join(map(str, digits))
    groups = re.split("[ -]", found)
    even = len(groups) == 1 or (len(groups) > 2 and all(len(group) > 2 for group in groups))
    issued = any(
        low <= text[: len(low)] <= high and len(text) in lengths for low, high, lengths in CARDS
    )
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    luhn = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1
    named = re.search(r"\b(?:isbn|issn|ean|gtin|upc|doi)\W*(?:-?1[03]\W*)?$", _before(match))
    return "" if issued and even and luhn and not named else None


def _is_iban(match: re.Match, language: str) -> str | None:
    """Whether the beginning is an IBAN of its country's length (ISO 13616, ISO 7064 mod 97-10)."""
    found = match.group()
    length, at = IBAN_LENGTHS.get(found[:2].upper(), 0), 0
    for at, char in enumerate(found):  # noqa: B007
        length -= char.isalnum()
        if length == 0:
            break
    rest = found[at + 1 :]
    whole = match.string[match.end() : match.end() + 1] if not rest else rest[:1]
    if length or whole.isalnum() or len(re.findall(r"\d", found[: at + 1])) < 8:
        return None
    compact = re.sub("[ -]", "", found[: at + 1]).upper()
    number = "".join(str(int(char, 36)) for char in compact[4:] + compact[:4])
    return rest if int(number) % 97 == 1 else None


def _is_address(match: re.Match, language: str) -> str | None:
    """Whether four numbers are a network address, not a version or a section."""
    found, before = match.group(), _before(match)
    try:
        address = ipaddress.IPv4Address(found)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or found.startswith(("255.", "0.")):
        return None
    if _ends_with(before, VERSION_WORDS):
        return None
    after = match.string[match.end() : match.end() + 2]
    port = after[:1] == "/" or (after[:1] == ":" and after[1:].isdigit())
    small = max(map(int, found.split("."))) <= SMALL_PARTS
    return "" if port or not small or _says(before, ADDRESS_WORDS) else None


def _is_address_6(match: re.Match, language: str) -> str | None:
    """Whether it is an IPv6 address, not a time or a name such as "a::b"."""
    found = match.group()
    digits = re.findall("[0-9A-Fa-f]", found)
    if len(digits) < 6 or not re.search(r"\d", found) or len(re.findall("[^:]+", found)) < 3:
        return None
    # A colon that ends a sentence is not part of the address.
    rest = ":" if found.endswith(":") and not found.endswith("::") else ""
    try:
        ipaddress.IPv6Address(found.removesuffix(rest) if rest else found)
    except ValueError:
        return None
    return rest


def _is_phone(match: re.Match, language: str) -> str | None:
    import phonenumbers

    found = match.group()
    try:
        number = phonenumbers.parse(re.sub("^00", "+", found), None)
    except phonenumbers.NumberParseException:
        return None
    # "00" also begins numbers that are not telephone numbers.
    strict = found.startswith("00")
    possible = phonenumbers.is_possible_number(number)
    return "" if possible and (not strict or phonenumbers.is_valid_number(number)) else None


def _is_national(match: re.Match, language: str) -> str | None:
    """Whether it is a number of the language's regions, written or announced as one.

    Valid numbers are frequent among others of the same length. So a word for telephone must stand
    before it, or it must begin with a trunk prefix and be written in groups.
    """
    import phonenumbers

    found = match.group()
    digits = re.sub(r"\D", "", found)
    if not 7 <= len(digits) <= 13 or re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}", found):
        return None
    announced = _says(_before(match), PHONE_WORDS)
    # A slash is that of a date, unless a word says otherwise.
    grouped = len(re.findall(r"\d+", found)) >= 2 and len(digits) >= 9 and "/" not in found
    if not announced and not (grouped and re.match(r"\(?0[1-9]|\(\d{2,4}\)", found)):
        return None
    for region in REGIONS.get(language, ()):
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(found, region)):
                return ""
        except phonenumbers.NumberParseException:
            return None
    return None


# What to append to the mask, or None if a candidate is not personal data.
_Check = Callable[[re.Match, str], "str | None"]
# A cheap precheck that skips most texts, the pattern, the mask, and the check of each candidate.
_KINDS: tuple[tuple[Callable, re.Pattern, str, _Check], ...] = (
    (re.compile(r"://[^\s/:@]+:[^\s/@]+@").search, _LOGIN, "<LOGIN>@", _any),
    (re.compile(r"@[\w-]+\.[\w-]").search, _EMAIL, "<EMAIL>", _any),
    (re.compile(r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]").search, _IBAN, "<IBAN>", _is_iban),
    (re.compile(r"\d(?:[ -]?\d){12}").search, _CARD, "<CARD>", _is_card),
    (re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d").search, _ADDRESS, "<IP>", _is_address),
    (re.compile(r"[0-9A-Fa-f:]:[0-9A-Fa-f:]").search, _ADDRESS_6, "<IP>", _is_address_6),
    (re.compile(r"(?:\+|00)\d[\d ().\u00a0-]{6}").search, _PHONE, "<PHONE>", _is_phone),
    (re.compile(r"\d[\d ()./\u00a0-]{5}\d").search, _NATIONAL, "<PHONE>", _is_national),
)
