"""Rejects pages by URL: adult content, spam, parked domains, piracy and blocked hosts."""

from __future__ import annotations

import re
import urllib.parse

# Whole words of a host or path: "essex" does not match "sex".
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
    """The reason why a page is rejected by its URL, or "".

    Args:
        url: URL of the page; its path is checked for adult content only.
        blocked: hosts that are rejected with their subdomains.

    Returns:
        "adult", "spam", "parked", "piracy", "blocked", "malformed", or "".
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
