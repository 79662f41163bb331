"""The components of a mixture, whose weights a sweep varies: a source, or several tied ones.

`sweep.units` lists them by names of sources, languages, kinds or groups of Table 2; names that are
joined by "+" are one component. A source belongs to the first component that names it, so that
"kk,low-resource" separates Kazakh from the other low-resource languages. Sources that are not
listed form one component per group. "groups" (the default) means one component per group,
"sources" one per source.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from marco_jax.data.mixtures import table_groups
from marco_jax.data.overrides import apply_override, find_sources
from marco_jax.data.texts import SourceInfo
from marco_jax.languages import names_in

# Digits of a printed weight.
_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class Components:
    """The components of a mixture.

    Attributes:
        members: sources by component, in the order of the mixture.
        shares: shares of the prior mixture by source; the sources of a component keep their
            proportions.
        sources: all sources of the data.
    """

    members: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, float]
    sources: tuple[SourceInfo, ...]

    @property
    def prior(self) -> dict[str, float]:
        """Weights of the prior by component; they sum to 1."""
        return {
            component: sum(self.shares[s] for s in own) for component, own in self.members.items()
        }

    def source_shares(self, weights: Sequence[float]) -> dict[str, float]:
        """Converts weights of the components, in order, to shares by source."""
        found = {}
        for (component, own), weight in zip(self.members.items(), weights, strict=True):
            found |= {s: weight * self.shares[s] / self.prior[component] for s in own}
        return found

    def override(self, weights: Sequence[float]) -> str:
        """The `config.mixture.override` that changes the prior to these weights.

        It names all components but the largest, which takes the rest and so absorbs rounding.
        """
        wanted = self.source_shares(weights)
        largest = list(self.members)[int(np.argmax(weights))]
        named = [component for component in self.members if component != largest]
        rounded = dict(zip(self.members, np.round(weights, _DIGITS), strict=True))
        near = 10.0 ** (1 - _DIGITS)
        # Without a name of some component in an override, list the sources.
        with contextlib.suppress(ValueError):
            items = []
            for component in named:
                # A group's item counts the components inside it, too: "kk,low-resource".
                means = set(find_sources(component, self.shares, self.sources))
                parts = [other for other, own in self.members.items() if means >= set(own)]
                total = sum(rounded[other] for other in parts)
                items.append(f"{component}={_short(total)}")
            text = ",".join(items)
            made = apply_override(self.shares, text, self.sources)
            if all(math.isclose(made[s], share, abs_tol=near) for s, share in wanted.items()):
                return text
        listed = [source for component in named for source in self.members[component]]
        return ",".join(
            f"{source}={_short(round(wanted[source], _DIGITS + 2))}" for source in listed
        )

    def caps(self, tokens: Mapping[str, float], budget: float, epochs: float) -> np.ndarray:
        """Maximum weight of each component at which no source exceeds `epochs`, [components].

        Args:
            tokens: tokens by source; sources without a number (streamed ones) have no cap.
            budget: total tokens to train on.
            epochs: maximum number of epochs of a source.
        """
        caps = []
        for component, own in self.members.items():
            most = [
                epochs * tokens[s] * self.prior[component] / (budget * self.shares[s])
                for s in own
                if s in tokens and self.shares[s]
            ]
            caps.append(min(1.0, *most, 1.0))
        return np.array(caps)


def find_components(
    text: str, shares: Mapping[str, float], sources: Sequence[SourceInfo]
) -> Components:
    """Makes the components that `sweep.units` lists, from the sources of the prior mixture.

    Raises:
        ValueError: a name matches no source, or there are fewer than two components.
    """
    shares = {source: share for source, share in shares.items() if share > 0}
    members: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    listed = {"groups": [], "sources": list(shares)}.get(text.strip())
    if listed is None:
        listed = names_in(text)
    for item in listed:
        try:
            parts = [find_sources(part.strip(), shares, sources) for part in item.split("+")]
        except ValueError as error:
            raise ValueError(f"sweep.units: {error}") from None
        named = dict.fromkeys(itertools.chain(*parts))
        own = tuple(s for s in named if s not in taken)
        if own:
            members[item] = own
            taken.update(own)
    for group, cells in table_groups().items():
        rest = [s for s in sources if s.name in shares and s.name not in taken]
        own = tuple(s.name for s in rest if (s.language if s.kind == "text" else s.kind) in cells)
        if own:
            name = group if len(listed) == 0 or group not in members else f"other {group}"
            members[name] = own
            taken.update(own)
    members |= {source: (source,) for source in shares if source not in taken}
    if len(members) < 2:
        raise ValueError(
            f"sweep.units is {text!r}, which makes {len(members)} component: list two or more"
        )
    return Components(members, shares, tuple(sources))


def _short(share: float) -> str:
    return f"{share:.7f}".rstrip("0").rstrip(".") or "0"
