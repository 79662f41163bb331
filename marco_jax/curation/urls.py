"""Addresses of pages that hold no prose worth keeping."""

from __future__ import annotations

import re
import urllib.parse

# Words of a host or path, each a whole run of letters: "essex" is no "sex".
_ADULT = frozenset(
    ("porn", "porno", "xxx", "sex", "xvideos", "nsfw", "hentai", "escort", "camgirls", "nude")
)
_SPAM = frozenset(
    ("casino", "slots", "slot", "gacor", "togel", "betting", "poker", "viagra", "cialis")
    + ("pharmacy", "payday", "loan", "loans", "replica", "jackpot", "bonus")
)
_PARKED = frozenset(("parked", "sedoparking", "domainforsale", "parkingcrew"))
_PIRACY = frozenset(("warez", "keygen", "keygens", "nulled", "crackz", "cracked", "torrents"))
_KINDS = {"adult": _ADULT, "spam": _SPAM, "parked": _PARKED, "piracy": _PIRACY}


def bad_url(url: str, blocked: frozenset[str] = frozenset()) -> str:
    """Why a page is left out for its address, or nothing.

    Args:
        url: of the page; its path is judged for adult content alone.
        blocked: hosts, which stand for their subdomains too.

    Returns:
        "adult", "spam", "parked", "piracy", "blocked", or "".
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return "malformed"
    labels = host.split(".")
    if any(".".join(labels[at:]) in blocked for at in range(len(labels))):
        return "blocked"
    words = set(re.findall("[a-z]+", host))
    for kind, listed in _KINDS.items():
        if words & listed:
            return kind
    return "adult" if set(re.findall("[a-z]+", parts.path.lower())) & _ADULT else ""
