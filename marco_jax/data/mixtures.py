"""Mixtures as data: the paper's two stages (arXiv 2412.04003, Table 2) and how they are changed.

A share is a share of target tokens. Sources are named by language code, or "parallel",
"knowledge", "synthetic".
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping

from marco_jax.languages import HIGH_RESOURCE, LOW_RESOURCE

OTHER_HIGH_RESOURCE = tuple(code for code in HIGH_RESOURCE if code not in ("en", "zh"))

# The groups of Table 2. Inside a group the paper samples uniformly (its Table 1).
GROUPS: dict[str, tuple[str, ...]] = {
    "English": ("en",),
    "Chinese": ("zh",),
    "other high-resource": OTHER_HIGH_RESOURCE,
    "low-resource": LOW_RESOURCE,
    "parallel": ("parallel",),
    "high-quality knowledge": ("knowledge",),
    "synthetic": ("synthetic",),
}

# Table 2, percent of a stage's tokens.
STAGE_SHARES: dict[str, dict[str, float]] = {
    "stage1": dict(zip(GROUPS, (32, 17, 30, 9, 6, 5, 1), strict=True)),
    "stage2": dict(zip(GROUPS, (28, 15, 26, 15, 8, 6, 2), strict=True)),
}

# Table 3: tokens of each stage in billions.
STAGE_TOKENS: dict[str, float] = {"stage1": 160.0, "stage2": 140.0}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Shares of target tokens by source, which sum to 1, and what was changed to get them."""

    name: str
    shares: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def with_shares(self, shares: Mapping[str, float]) -> Mixture:
        """The same mixture with other shares."""
        return dataclasses.replace(self, shares=dict(shares))


def get_mixture(name: str, available: Collection[str]) -> Mixture:
    """The named mixture over the sources that are there.

    A missing source's share goes to the rest of its group; that of a group that is missing whole
    is spread over the other groups in proportion. Both are said in `notes`.

    Raises:
        ValueError: an unknown name (the nearest is suggested), or no source left.
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_BUILDERS)}"
        raise ValueError(f"mixture {name!r} is unknown: {hint}")
    groups, notes = _fit(_BUILDERS[name](available), available)
    total = sum(share for share, _ in groups)
    if not total:
        raise ValueError(f"mixture {name!r}: the data has none of its sources")
    shares = {source: share / total / len(found) for share, found in groups for source in found}
    return Mixture(name, shares, tuple(notes))


def mixture_names() -> tuple[str, ...]:
    """The names that `get_mixture` knows."""
    return tuple(_BUILDERS)


def apply_override(shares: Mapping[str, float], override: str) -> dict[str, float]:
    """Sets some shares, e.g. "kk=0.02,ne=0.03", and scales the others so that all sum to 1.

    Raises:
        ValueError: naming the item that cannot be used.
    """
    fixed: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in override.split(","))):
        source, separator, text = (part.strip() for part in item.partition("="))
        try:
            value = float(text)
        except ValueError:
            separator = ""
        if not separator:
            raise ValueError(f"mixture.override: {item!r} is not of the form source=share")
        if source not in shares:
            near = difflib.get_close_matches(source, shares, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(shares)}"
            raise ValueError(f"mixture.override: the mixture has no source {source!r}; {hint}")
        if not 0 <= value <= 1:
            raise ValueError(f"mixture.override: {item!r} is no share; write 0.02 for 2%")
        fixed[source] = value
    left = 1.0 - sum(fixed.values())
    rest = {source: share for source, share in shares.items() if source not in fixed}
    before = sum(rest.values())
    if left < -1e-9 or (left > 1e-9 and not before):
        raise ValueError(
            f"mixture.override: {override!r} gives {1 - left:.4g} of the tokens away, not 1 at most"
        )
    scale = max(left, 0.0) / before if before else 0.0
    return {source: fixed.get(source, share * scale) for source, share in shares.items()}


Group = tuple[str, float, tuple[str, ...]]


def _table_2(stage: str, names: Collection[str] = tuple(GROUPS)) -> Callable[..., list[Group]]:
    shares = STAGE_SHARES[stage]
    return lambda available: [
        (name, shares[name], GROUPS[name]) for name in GROUPS if name in names
    ]


def _uniform(available: Collection[str]) -> list[Group]:
    return [(source, 1.0, (source,)) for source in available]


_BUILDERS: dict[str, Callable[[Collection[str]], list[Group]]] = {
    "stage1": _table_2("stage1"),
    "stage2": _table_2("stage2"),
    # What a base model has seen before continual pretraining: high-resource languages only, in
    # Stage-I's proportions.
    "base": _table_2("stage1", ("English", "Chinese", "other high-resource")),
    "uniform": _uniform,
}


def _fit(
    groups: list[Group], available: Collection[str]
) -> tuple[list[tuple[float, tuple[str, ...]]], list[str]]:
    """Groups cut down to the sources that are there, and notes on what is not."""
    fitted, notes = [], []
    for name, share, sources in groups:
        found = tuple(source for source in sources if source in available)
        missing = [source for source in sources if source not in available]
        if not found:
            notes.append(
                f"no {name} data: its {share:g}% is spread over the other groups in proportion"
            )
            continue
        if missing:
            notes.append(
                f"no data for {', '.join(missing)}: the {name} share of {share:g}% is spread over "
                f"the {len(found)} sources that are there"
            )
        fitted.append((share, found))
    return fitted, notes
