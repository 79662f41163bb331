"""Overrides of a mixture: items nested in one another, in any order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.mixtures import get_mixture, table_groups
from marco_jax.data.overrides import apply_override, find_sources, parse_override
from marco_jax.data.texts import TEXT, SourceInfo
from marco_jax.languages import LANGUAGES, low_resource

EVERYTHING = [
    *(SourceInfo(code, TEXT, code) for code in LANGUAGES),
    *(SourceInfo(kind, kind) for kind in ("parallel", "knowledge", "synthetic")),
]
# A language with two sources, and sources without a share.
SOURCES = [
    SourceInfo("en", TEXT, "en"),
    SourceInfo("kk_web", TEXT, "kk"),
    SourceInfo("kk_news", TEXT, "kk"),
    SourceInfo("ne", TEXT, "ne"),
    SourceInfo("he", TEXT, "he"),
    SourceInfo("opus", "parallel"),
    SourceInfo("wmt", "parallel"),
]
SHARES = {
    "en": 0.4,
    "kk_web": 0.3,
    "kk_news": 0.1,
    "ne": 0.05,
    "he": 0.05,
    "opus": 0.1,
    "wmt": 0.0,
}
# Names from the smallest sets to the largest; each set lies in at most one of the larger ones.
NAMES = [*SHARES, "kk", "low-resource", "parallel", "text"]


def test_override_sets_shares_and_scales_the_rest():
    shares = apply_override(get_mixture("stage2", EVERYTHING).shares, "kk=0.02, ne = 0.03")
    assert (shares["kk"], shares["ne"]) == (0.02, 0.03)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    scale = 0.95 / (1 - 2 * 0.15 / 19)
    assert shares["en"] == pytest.approx(0.28 * scale)


def test_override_may_switch_a_source_off():
    shares = apply_override({"en": 0.5, "kk": 0.25, "ne": 0.25}, "en=0")
    assert shares == {"en": 0, "kk": 0.5, "ne": 0.5}


def test_what_rounding_leaves_over_is_given_to_no_source():
    sources = [info for info in EVERYTHING if info.name != "synthetic"]
    shares = get_mixture("flat", sources).shares
    found = apply_override(shares, "low-resource=1", sources)
    assert {name for name, share in found.items() if share} == set(low_resource())


def test_override_may_hold_for_one_stage():
    shares = {"en": 0.5, "kk": 0.25, "ne": 0.25}
    assert apply_override(shares, "stage2:kk=0.5", stage="stage1") == shares
    assert apply_override(shares, "stage2:kk=0.5", stage="stage2")["kk"] == 0.5


def test_override_leaves_stages_as_they_are_that_do_not_read_its_source():
    shares = {"en": 0.5, "zh": 0.5}
    assert apply_override(shares, "kk=0.5", elsewhere=("en", "zh", "kk")) == shares
    for override in ("base:kk=0.5", "ne=0.5"):
        with pytest.raises(ValueError, match="no source"):
            apply_override(shares, override, stage="base", elsewhere=("en", "zh", "kk"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kk", "'kk' is not of the form source=share"),
        ("en=0.1,kk=a lot", "'kk=a lot' is not of the form source=share"),
        ("kkk=0.1", "no source 'kkk'; did you mean 'kk'"),
        ("kk=1.5", "'kk=1.5' is not a share"),
        ("kk=nan", "'kk=nan' is not a share"),
        ("kk=0.6,en=0.6", "add up to 1.2: make them add up to 1 or less"),
        ("kk=0.5,en=0.2,ne=0.1", "add up to 0.8: make them add up to 1"),
    ],
)
def test_bad_override_names_the_item(override, message):
    with pytest.raises(ValueError, match=message):
        apply_override({"en": 0.5, "kk": 0.25, "ne": 0.25}, override)


def test_an_item_of_a_language_holds_inside_that_of_its_group_in_any_order():
    shares = get_mixture("flat", EVERYTHING).shares
    for override in ("kk=0.05,low-resource=0.2", "low-resource=0.2,kk=0.05"):
        found = apply_override(shares, override, EVERYTHING)
        assert found["kk"] == 0.05
        assert sum(found[code] for code in low_resource()) == pytest.approx(0.2, abs=1e-12)
        assert found["ne"] == pytest.approx(0.15 / 18)
        assert found["en"] == pytest.approx(shares["en"] * 0.8 / (1 - shares["kk"] * 19))


def test_sources_keep_their_proportions_inside_what_is_named():
    found = apply_override(SHARES, "kk=0.4", SOURCES)
    assert (found["kk_web"], found["kk_news"]) == (pytest.approx(0.3), pytest.approx(0.1))
    found = apply_override(SHARES, "parallel=0.2,opus=0.05", SOURCES)
    assert (found["opus"], found["wmt"]) == (0.05, pytest.approx(0.15))
    found = apply_override(SHARES | {"opus": 0.0, "en": 0.5}, "parallel=0.2", SOURCES)
    assert (found["opus"], found["wmt"]) == (0.1, 0.1)
    # Proportions and equal parts, not what another item left.
    found = apply_override(SHARES, "text=0.9,kk_news=0,low-resource=0.3", SOURCES)
    assert found["kk_news"] == 0 and found["kk_web"] == pytest.approx(0.3 * 0.3 / 0.4)


def test_an_item_of_a_stage_replaces_one_of_all_stages():
    for override in ("kk=0.05,stage2:kk=0.02", "stage2:kk=0.02,kk=0.05"):
        found = [apply_override(SHARES, override, SOURCES, stage) for stage in ("stage1", "stage2")]
        assert [shares["kk_web"] for shares in found] == pytest.approx([0.0375, 0.015])
    # Another name of the same sources, and a group around them.
    override = "opus=0,wmt=0.1,stage2:parallel=0.3"
    with pytest.raises(ValueError, match="are all of 'stage2:parallel=0.3', and add up to 0.1"):
        apply_override(SHARES, override, SOURCES, "stage2")
    assert apply_override(SHARES, override, SOURCES, "stage1")["wmt"] == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kk=0.1,ne=0.1,kk=0.2", "'kk=0.1' and 'kk=0.2' set the share of 'kk' twice: leave one"),
        ("stage2:kk=0.1,stage2:kk=0.2", "set the share of 'kk' twice"),
        ("English=0.1,en=0.2", r"'English=0.1' and 'en=0.2' mean the same sources \(en\)"),
        (
            "kk=0.2,ne=0.1,low-resource=0.25",
            "'ne=0.1' and 'kk=0.2' lie inside 'low-resource=0.25', and add up to 0.3: make it "
            "0.25 or less",
        ),
        ("kk=0.3,low-resource=0.2", "'kk=0.3' lies inside 'low-resource=0.2', and has 0.3"),
        ("kk_web=0.1,kk_news=0.1,kk=0.3", "are all of 'kk=0.3', and add up to 0.2: make it 0.3$"),
        ("text=0.5,parallel=0.4", "add up to 0.9: make them add up to 1$"),
        ("kk_web=0.1,kk=0.2,en=0.9", "the shares of 'en=0.9,kk=0.2' add up to 1.1: make them"),
    ],
)
def test_items_that_do_not_fit_together_are_named(override, message):
    with pytest.raises(ValueError, match=f"^mixture.override: .*{message}"):
        apply_override(SHARES, override, SOURCES, "stage2")


def test_sets_that_overlap_are_refused(monkeypatch):
    sets = {"first": ["en", "ne"], "second": ["ne", "he"]}
    monkeypatch.setattr(
        "marco_jax.data.overrides.find_sources", lambda target, shares, sources: sets[target]
    )
    with pytest.raises(ValueError, match="'first=0.1' and 'second=0.1' overlap, and neither"):
        apply_override(SHARES, "first=0.1,second=0.1", SOURCES)


@st.composite
def fitting_overrides(draw):
    """Items whose shares fit into one another: some names, with the shares of a random mixture."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    weights = draw(st.lists(st.integers(1, 50), min_size=len(SHARES), max_size=len(SHARES)))
    mixture = dict(zip(SHARES, weights, strict=True))
    items, seen = {}, set()
    for name in names:
        members = frozenset(find_sources(name, SHARES, SOURCES))
        if members not in seen:
            seen.add(members)
            items[name] = sum(mixture[source] for source in members) / sum(weights)
    order = draw(st.permutations(list(items)))
    return [f"{name}={items[name]!r}" for name in order], items


@given(fitting_overrides(), st.randoms(use_true_random=False))
def test_every_set_gets_its_share_whatever_the_order(override, random):
    texts, items = override
    try:
        found = apply_override(SHARES, ",".join(texts), SOURCES)
    except ValueError as error:
        # Of the sources that no item names, only wmt is left, which has no share.
        named = itertools.chain(*(find_sources(name, SHARES, SOURCES) for name in items))
        assert set(SHARES) - set(named) == {"wmt"} and "make them add up to 1" in str(error)
        return
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert list(found) == list(SHARES) and min(found.values()) >= 0
    for name, share in items.items():
        members = find_sources(name, SHARES, SOURCES)
        assert sum(found[source] for source in members) == pytest.approx(share, abs=1e-9)
        if len(members) == 1:
            assert found[members[0]] == pytest.approx(share, abs=1e-12)
    # What no item tells apart keeps its proportions.
    if not {"ne", "he"} & set(items):
        assert found["ne"] == pytest.approx(found["he"])
    if not {"kk_web", "kk_news"} & set(items):
        assert found["kk_web"] == pytest.approx(3 * found["kk_news"])
    random.shuffle(texts)
    assert apply_override(SHARES, ",".join(texts), SOURCES) == pytest.approx(found, abs=1e-12)


def test_the_sets_of_names_contain_one_another_or_have_nothing_in_common():
    names = [*(source.name for source in EVERYTHING), *table_groups(), "text"]
    shares = {source.name: 1 / len(EVERYTHING) for source in EVERYTHING}
    sets = [set(find_sources(name, shares, EVERYTHING)) for name in names]
    assert all(a <= b or b <= a or not a & b for a, b in itertools.combinations(sets, 2))


def test_items_are_read_with_their_stage():
    first, second = parse_override(" kk = 0.02 , stage2:low-resource=0.2,")
    assert (first.target, first.share, first.stage) == ("kk", 0.02, "")
    assert (second.target, second.share, second.stage) == ("low-resource", 0.2, "stage2")
