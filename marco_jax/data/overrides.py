"""Overrides of a mixture: `mixture.override` sets the share of sources, languages, kinds or groups.

An item means a set of sources, and its share is the part of the whole mixture that the set gets.
Sets lie inside one another: a source in its language, a language in its group of Table 2. Inside a
set the items of smaller sets are fixed, and what is left of the set's share goes to its other
sources in their proportions. So the order of the items does not matter.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from marco_jax.data.mixtures import table_groups
from marco_jax.data.texts import TEXT, SourceInfo

# A remainder of rounding counts as zero.
_ROUNDING = 1e-9
_PLURAL = ("lie inside", "are all of", "add up to")


class OverrideItem(NamedTuple):
    """One item of `mixture.override`: the share of a target, in one stage or ("") in all."""

    text: str
    target: str
    share: float
    stage: str = ""


def parse_override(override: str) -> list[OverrideItem]:
    """The items of "kk=0.02,stage2:low-resource=0.2".

    Raises:
        ValueError: names the item that is not of this form, whose share is not a number, or whose
            target another item has too.
    """
    items: dict[tuple[str, str], OverrideItem] = {}
    for text in filter(None, (part.strip() for part in override.split(","))):
        name, separator, number = (part.strip() for part in text.partition("="))
        stage, colon, target = (part.strip() for part in name.partition(":"))
        try:
            share = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise ValueError(f"mixture.override: {text!r} is not of the form source=share")
        if not 0 <= share <= 1:
            raise ValueError(f"mixture.override: {text!r} is not a share: write 0.02 for 2%")
        item = OverrideItem(text, target if colon else name, share, stage if colon else "")
        other = items.setdefault((item.stage, item.target), item)
        if other is not item:
            raise ValueError(
                f"mixture.override: {other.text!r} and {text!r} set the share of "
                f"{item.target!r} twice: leave one of them out"
            )
    return list(items.values())


def apply_override(
    shares: Mapping[str, float],
    override: str,
    sources: Sequence[SourceInfo] = (),
    stage: str = "",
    elsewhere: Collection[str] = (),
) -> dict[str, float]:
    """Sets some shares, e.g. "kk=0.05,low-resource=0.2", and scales the others to a sum of 1.

    "stage2:kk=0.02" holds for that stage alone, where it replaces an item without a stage for the
    same sources; without a stage an item holds for every stage that reads such a source. Sources
    that have no share in the mixture and are named as a set get equal parts.

    Args:
        shares: of the stage's mixture.
        override: the items.
        sources: of the corpus.
        stage: its name.
        elsewhere: sources that other stages read.

    Raises:
        ValueError: naming the item that cannot be used, or the items that do not fit together.
    """
    chosen = _nested(_choose(shares, override, sources, stage, elsewhere))
    found = dict(shares)
    whole = _Chosen("", frozenset(shares), 1.0)
    for outer in (whole, *chosen):
        inner = [item for item in chosen if chosen[item] == (None if outer is whole else outer)]
        fixed = frozenset().union(*(item.members for item in inner))
        rest = [source for source in shares if source in outer.members - fixed]
        before = sum(shares[source] for source in rest)
        left = outer.share - sum(item.share for item in inner)
        # Outside all items a source without a share gets none.
        takes = before > 0 or (rest and outer is not whole)
        if left < -_ROUNDING or (left > _ROUNDING and not takes):
            raise ValueError(_misfit(outer, inner, bool(takes)))
        left = left if left > _ROUNDING else 0.0
        for source in rest:
            part = shares[source] / before if before > 0 else 1 / len(rest)
            found[source] = left * part
    return found


def find_sources(
    target: str, shares: Mapping[str, float], sources: Sequence[SourceInfo]
) -> list[str]:
    """The sources of a mixture that a name means: a source, a language, a kind, or a group.

    Raises:
        ValueError: it means no source.
    """
    if target in shares:
        return [target]
    cells = (target, *table_groups().get(target, ()))
    found = [
        source.name
        for source in sources
        if source.name in shares
        and (source.kind in cells or (source.kind == TEXT and source.language in cells))
    ]
    if not found:
        near = difflib.get_close_matches(target, shares, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(shares)}"
        raise ValueError(f"the mixture has no source {target!r}; {hint}")
    return found


class _Chosen(NamedTuple):
    """An item that holds in a stage, with the sources that it means there."""

    text: str
    members: frozenset[str]
    share: float


def _choose(
    shares: Mapping[str, float],
    override: str,
    sources: Sequence[SourceInfo],
    stage: str,
    elsewhere: Collection[str],
) -> list[_Chosen]:
    """The items that hold in a stage: for the same sources, one of the stage before one of all."""
    items = parse_override(override)
    found: dict[frozenset[str], OverrideItem] = {}
    for scope in dict.fromkeys((stage, "")):
        for item in (item for item in items if item.stage == scope):
            try:
                members = frozenset(find_sources(item.target, shares, sources))
            except ValueError as error:
                if not item.stage and _is_known(item.target, elsewhere, sources):
                    continue
                raise ValueError(f"mixture.override: {error}") from None
            other = found.setdefault(members, item)
            if other is not item and other.stage == item.stage:
                raise ValueError(
                    f"mixture.override: {other.text!r} and {item.text!r} mean the same sources "
                    f"({', '.join(sorted(members))}): leave one of them out"
                )
    return [_Chosen(item.text, members, item.share) for members, item in found.items()]


def _nested(items: Sequence[_Chosen]) -> dict[_Chosen, _Chosen | None]:
    """The smallest item that contains each item; None for those that no other one contains.

    Raises:
        ValueError: two items overlap.
    """
    ordered = sorted(items, key=lambda item: len(item.members))
    outer: dict[_Chosen, _Chosen | None] = {}
    for number, item in enumerate(ordered):
        larger = [other for other in ordered[number + 1 :] if item.members & other.members]
        for other in larger:
            if not item.members < other.members:
                raise ValueError(
                    f"mixture.override: {item.text!r} and {other.text!r} overlap, and neither "
                    "contains the other: name their sources one by one"
                )
        outer[item] = larger[0] if larger else None
    return outer


def _misfit(outer: _Chosen, inner: Sequence[_Chosen], takes: bool) -> str:
    """Why the shares of items do not fit into the share of what contains them."""
    total = sum(item.share for item in inner)
    most = " or less" if takes else ""
    if not outer.text:
        items = ",".join(item.text for item in inner)
        return (
            f"mixture.override: the shares of {items!r} add up to {total:.4g}: make them add up "
            f"to 1{most}"
        )
    items = " and ".join(repr(item.text) for item in inner)
    verbs = ("lies inside", "is all of", "has") if len(inner) == 1 else _PLURAL
    return (
        f"mixture.override: {items} {verbs[0 if takes else 1]} {outer.text!r}, and {verbs[2]} "
        f"{total:.4g}: make it {outer.share:.4g}{most}"
    )


def _is_known(target: str, names: Collection[str], sources: Sequence[SourceInfo]) -> bool:
    try:
        return bool(find_sources(target, dict.fromkeys(names, 0.0), sources))
    except ValueError:
        return False
