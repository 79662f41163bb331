"""What a sweep moves: units, each a source or several that are tied, and shares of their own.

`sweep.units` lists them: names of sources, languages, kinds or groups of Table 2, joined by "+"
where they are tied; a source belongs to the first that names it, so that "kk,low-resource" has
Kazakh apart from the rest. What no unit names is tied by group. "groups" (the default) and
"sources" are short for all groups, and for every source on its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from marco_jax.data.corpus import SourceInfo
from marco_jax.data.mixtures import GROUPS, apply_override, find_sources

# Digits after the point of a printed share.
_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class Units:
    """Units of a mixture.

    Attributes:
        members: sources by unit, in the order of the mixture.
        shares: of the prior mixture, by source: what is tied keeps these proportions.
        sources: what there is.
    """

    members: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, float]
    sources: tuple[SourceInfo, ...]

    @property
    def prior(self) -> dict[str, float]:
        """Weights of the prior by unit; they sum to 1."""
        return {unit: sum(self.shares[s] for s in own) for unit, own in self.members.items()}

    def source_shares(self, weights: Sequence[float]) -> dict[str, float]:
        """Shares by source, from weights of the units in order."""
        found = {}
        for (unit, own), weight in zip(self.members.items(), weights, strict=True):
            found |= {s: weight * self.shares[s] / self.prior[unit] for s in own}
        return found

    def override(self, weights: Sequence[float]) -> str:
        """`config.mixture.override` that turns the prior's mixture into these weights.

        All but the largest unit are named: it takes what is left, whatever is rounded away.
        """
        wanted = self.source_shares(weights)
        largest = list(self.members)[int(np.argmax(weights))]
        named = [unit for unit in self.members if unit != largest]
        rounded = dict(zip(self.members, np.round(weights, _DIGITS), strict=True))
        text = ",".join(f"{unit}={_short(rounded[unit])}" for unit in named)
        if self._makes(text, wanted):
            return text
        # Names that overlap, or ties that no name has: source by source.
        apart = [source for unit in named for source in self.members[unit]]
        return ",".join(
            f"{source}={_short(round(wanted[source], _DIGITS + 2))}" for source in apart
        )

    def _makes(self, text: str, wanted: Mapping[str, float]) -> bool:
        try:
            made = apply_override(self.shares, text, self.sources)
        except ValueError:
            return False
        near = 10.0 ** (1 - _DIGITS)
        return all(math.isclose(made[s], share, abs_tol=near) for s, share in wanted.items())

    def caps(self, tokens: Mapping[str, float], budget: float, epochs: float) -> np.ndarray:
        """Largest weight of each unit that reads none of its sources too often, [units].

        Args:
            tokens: of each source; one that is not named (a streamed one) has no cap.
            budget: tokens that are going to be read.
            epochs: times that a source may be read.
        """
        caps = []
        for unit, own in self.members.items():
            most = [
                epochs * tokens[s] * self.prior[unit] / (budget * self.shares[s])
                for s in own
                if s in tokens and self.shares[s]
            ]
            caps.append(min(1.0, *most, 1.0))
        return np.array(caps)


def find_units(text: str, shares: Mapping[str, float], sources: Sequence[SourceInfo]) -> Units:
    """The units that `sweep.units` names, over the sources of the prior mixture.

    Raises:
        ValueError: a name that means no source, or fewer than two units.
    """
    shares = {source: share for source, share in shares.items() if share > 0}
    members: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    listed = {"groups": [], "sources": list(shares)}.get(text.strip())
    if listed is None:
        listed = [item.strip() for item in text.split(",") if item.strip()]
    for item in listed:
        meant = [s for part in item.split("+") for s in _sources(part.strip(), shares, sources)]
        own = tuple(s for s in dict.fromkeys(meant) if s not in taken)
        if own:
            members[item] = own
            taken.update(own)
    for group, cells in GROUPS.items():
        rest = [s.name for s in sources if s.name in shares and s.name not in taken]
        own = tuple(s.name for s in sources if s.name in rest and _cell(s) in cells)
        if own:
            name = group if len(listed) == 0 or group not in members else f"other {group}"
            members[name] = own
            taken.update(own)
    members |= {source: (source,) for source in shares if source not in taken}
    if len(members) < 2:
        raise ValueError(
            f"sweep.units is {text!r}: that is {len(members)} unit, and two are needed"
        )
    return Units(members, shares, tuple(sources))


def _sources(name: str, shares: Mapping[str, float], sources: Sequence[SourceInfo]) -> list[str]:
    try:
        return find_sources(name, shares, sources)
    except ValueError as error:
        raise ValueError(f"sweep.units: {error}") from None


def _cell(source: SourceInfo) -> str:
    return source.language if source.kind == "text" else source.kind


def _short(share: float) -> str:
    return f"{share:.7f}".rstrip("0").rstrip(".") or "0"
