"""Mixtures as data: the paper's two stages (arXiv 2412.04003, Table 2) and how they are changed.

A share is a share of target tokens. A group of Table 2 is made of cells: a language's text, or the
sources of one kind; a cell may have several sources, which then count by their size.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence

from marco_jax.data.texts import (
    CHAT,
    DIALOGUES,
    KNOWLEDGE,
    PARALLEL,
    PREFERENCE,
    PROMPT,
    SYNTHETIC,
    TEXT,
    SourceInfo,
)
from marco_jax.languages import high_resource, low_resource

# Of the names of our tasks and mixtures in SeqIO's registry: "stage1" is "marco_stage1" there.
PREFIX = "marco_"

# The groups of Table 2. Inside a group the paper samples uniformly (its Table 1).
GROUP_NAMES = (
    "English",
    "Chinese",
    "other high-resource",
    "low-resource",
    "parallel",
    "high-quality knowledge",
    "synthetic",
)

# Table 2, percent of a stage's tokens.
STAGE_SHARES: dict[str, dict[str, float]] = {
    "stage1": dict(zip(GROUP_NAMES, (32, 17, 30, 9, 6, 5, 1), strict=True)),
    "stage2": dict(zip(GROUP_NAMES, (28, 15, 26, 15, 8, 6, 2), strict=True)),
}

# Table 3: tokens of each stage in billions.
STAGE_TOKENS: dict[str, float] = {"stage1": 160.0, "stage2": 140.0}

# What both stages read in all: the same tokens in one stage.
FLAT_SHARES: dict[str, float] = {
    name: sum(STAGE_TOKENS[stage] * shares[name] for stage, shares in STAGE_SHARES.items())
    / sum(STAGE_TOKENS.values())
    for name in GROUP_NAMES
}


def table_groups() -> dict[str, tuple[str, ...]]:
    """The languages, or the kind, of each group of Table 2; with `languages.extra`."""
    high = tuple(code for code in high_resource() if code not in ("en", "zh"))
    cells = (("en",), ("zh",), high, low_resource(), (PARALLEL,), (KNOWLEDGE,), (SYNTHETIC,))
    return dict(zip(GROUP_NAMES, cells, strict=True))


WITHIN = ("uniform", "proportional", "temperature", "unimax")


@dataclasses.dataclass(frozen=True)
class Within:
    """How a group's tokens are shared out among its cells.

    Attributes:
        method: "uniform"; "proportional" to size; "temperature": to size ** (1 / temperature);
            "unimax" (Chung et al. 2023, arXiv 2304.09151): uniform, but no cell is read more than
            max_epochs times, and what it leaves goes to the others.
        temperature: above 1 lifts the small ones.
        max_epochs: cap of "unimax".
    """

    method: str = "uniform"
    temperature: float = 3.0
    max_epochs: float = 4.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.method not in WITHIN:
            raise ValueError(f"mixture.within is {self.method!r}: choose one of {WITHIN}")
        if self.temperature <= 0 or self.max_epochs <= 0:
            raise ValueError(
                f"mixture.temperature is {self.temperature} and mixture.max_epochs "
                f"{self.max_epochs}: both must be above zero"
            )


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Shares of target tokens by source, which sum to 1, and what was changed to get them."""

    name: str
    shares: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def with_shares(self, shares: Mapping[str, float], *notes: str) -> Mixture:
        """The same mixture with other shares, and notes on why."""
        return dataclasses.replace(self, shares=dict(shares), notes=(*self.notes, *notes))


def get_mixture(
    name: str,
    sources: Sequence[SourceInfo],
    within: Within = Within(),
    sizes: Mapping[str, int] | None = None,
    budget: float = 0.0,
    read: Mapping[str, float] | None = None,
) -> Mixture:
    """The named mixture over the sources of a corpus.

    The share of a missing language goes to the rest of its group; the share of a missing group is
    spread over the other groups in proportion. `notes` records both.

    Args:
        name: one of `mixture_names()`.
        sources: of the corpus.
        within: how groups share out their tokens.
        sizes: target tokens of each source; needed by every `within` but "uniform". Where one of
            them is missing the sources of its cell count alike.
        budget: target tokens that are going to be read; "unimax" needs it.
        read: target tokens of each source that were read before, for "unimax".

    Raises:
        ValueError: an unknown name (the nearest is suggested), no source left, or sizes that are
            needed and not given.
    """
    groups, notes = _fit(_builder(name)(sources))
    total = sum(group.share for group in groups)
    if not total:
        raise ValueError(f"mixture {name!r}: the data has none of its sources")
    shares: dict[str, float] = {}
    for group in groups:
        portion = group.share / total
        weights = _weights(group, within, sizes, budget * portion, read or {}, notes)
        for cell, weight in zip(group.cells.values(), weights, strict=True):
            sized = sizes and all(source in sizes for source in cell)
            known = [sizes[source] if sized else 1.0 for source in cell]
            for source, size in zip(cell, known, strict=True):
                shares[source] = portion * weight * size / sum(known)
    order = [source.name for source in sources if source.name in shares]
    return Mixture(name, {source: shares[source] for source in order}, tuple(notes))


def mixture_sources(name: str, sources: Sequence[SourceInfo]) -> list[str]:
    """Names of the sources that the named mixture reads."""
    return list(get_mixture(name, sources).shares)


def mixture_names() -> tuple[str, ...]:
    """The names that `get_mixture` knows."""
    return tuple(_BUILDERS)


def is_mixture_name(name: str) -> bool:
    """Whether a mixture is one of ours; others are the user's, in SeqIO's registry."""
    return name.removeprefix(PREFIX) in _BUILDERS


def check_mixture_name(name: str) -> None:
    """Refuses a name that `get_mixture` does not know (ValueError, with the nearest)."""
    _builder(name)


@dataclasses.dataclass(frozen=True)
class _Group:
    """A group of a mixture: its share, its cells with their sources, and cells without any."""

    name: str
    share: float
    cells: dict[str, list[str]]
    missing: tuple[str, ...] = ()


Sources = Sequence[SourceInfo]


def _table_2(
    table: Mapping[str, float], names: Sequence[str] = GROUP_NAMES
) -> Callable[[Sources], list[_Group]]:
    def build(sources: Sources) -> list[_Group]:
        groups, members = [], table_groups()
        for name in names:
            cells = {cell: _cell(cell, sources) for cell in members[name]}
            found = {cell: inside for cell, inside in cells.items() if inside}
            missing = tuple(cell for cell in cells if cell not in found)
            groups.append(_Group(name, table[name], found, missing))
        return groups

    return build


def _cell(cell: str, sources: Sources) -> list[str]:
    """Sources of a language's text, or of a kind."""
    return [
        source.name
        for source in sources
        if (source.language == cell if source.kind == TEXT else source.kind == cell)
    ]


def _everything(sources: Sources) -> list[_Group]:
    trained = [s.name for s in sources if s.kind not in DIALOGUES]
    return [_Group("all", 100.0, {name: [name] for name in trained})]


def _of_kind(kind: str) -> Callable[[Sources], list[_Group]]:
    def build(sources: Sources) -> list[_Group]:
        return [_Group(kind, 100.0, {s.name: [s.name] for s in sources if s.kind == kind})]

    return build


_BUILDERS: dict[str, Callable[[Sources], list[_Group]]] = {
    **{stage: _table_2(shares) for stage, shares in STAGE_SHARES.items()},
    # Both stages in one: the baseline of the two stages.
    "flat": _table_2(FLAT_SHARES),
    # What a base model is trained on before continual pretraining: high-resource languages only,
    # in Stage-I's proportions.
    "base": _table_2(STAGE_SHARES["stage1"], ("English", "Chinese", "other high-resource")),
    # Every source is a cell of one group: mixture.within alone decides.
    "all": _everything,
    # Post-training: all sources of one kind, each a cell of one group.
    CHAT: _of_kind(CHAT),
    PREFERENCE: _of_kind(PREFERENCE),
    PROMPT: _of_kind(PROMPT),
}


def _builder(name: str) -> Callable[[Sources], list[_Group]]:
    name = name.removeprefix(PREFIX)
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1)
        known = f"known are {', '.join(_BUILDERS)}, and what mixture.modules register"
        hint = f"did you mean {near[0]!r}?" if near else known
        raise ValueError(f"mixture {name!r} is unknown: {hint}")
    return _BUILDERS[name]


def _fit(groups: list[_Group]) -> tuple[list[_Group], list[str]]:
    """The groups that have sources, and notes on those that have none."""
    fitted, notes = [], []
    for group in groups:
        if not group.cells:
            notes.append(
                f"no {group.name} data: its {group.share:g}% is spread over the other groups in "
                "proportion"
            )
            continue
        if group.missing:
            notes.append(
                f"no data for {', '.join(group.missing)}: the {group.name} share of "
                f"{group.share:g}% is spread over the {len(group.cells)} sources that are there"
            )
        fitted.append(group)
    return fitted, notes


def _weights(
    group: _Group,
    within: Within,
    sizes: Mapping[str, int] | None,
    budget: float,
    read: Mapping[str, float],
    notes: list[str],
) -> list[float]:
    """Weights of a group's cells, which sum to 1."""
    if within.method == "uniform" or len(group.cells) == 1:
        return [1 / len(group.cells)] * len(group.cells)
    unknown = [s for cell in group.cells.values() for s in cell if s not in (sizes or ())]
    if unknown:
        raise ValueError(
            f"mixture.within={within.method} needs the sizes of the sources, and that of "
            f"{unknown[0]!r} is not known: prepare it instead of streaming it"
        )
    tokens = [float(sum(sizes[source] for source in cell)) for cell in group.cells.values()]
    if within.method == "unimax":
        done = [sum(read.get(source, 0.0) for source in cell) for cell in group.cells.values()]
        caps = [max(within.max_epochs * t - d, 0.0) for t, d in zip(tokens, done, strict=True)]
        if sum(caps) < budget:
            notes.append(
                f"{group.name}: {budget:,.0f} tokens are more than {within.max_epochs:g} epochs "
                "of all its sources: they are read more often"
            )
        return _unimax(caps, budget)
    exponent = 1 / within.temperature if within.method == "temperature" else 1.0
    weights = [size**exponent for size in tokens]
    return [weight / sum(weights) for weight in weights]


def _unimax(caps: list[float], budget: float) -> list[float]:
    """Equal parts of a budget, none above its cap while there is room below others'."""
    if sum(caps) <= budget:
        return [cap / sum(caps) if sum(caps) else 1 / len(caps) for cap in caps]
    parts, left = [0.0] * len(caps), budget
    for rank, index in enumerate(sorted(range(len(caps)), key=caps.__getitem__)):
        parts[index] = min(caps[index], left / (len(caps) - rank))
        left -= parts[index]
    return [part / budget for part in parts]
