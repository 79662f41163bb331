"""Mixtures: Table 2, and how it is fitted to the data that is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.mixtures import (
    STAGE_SHARES,
    STAGE_TOKENS,
    Within,
    get_mixture,
    mixture_names,
    table_groups,
)
from marco_jax.data.texts import TEXT, SourceInfo
from marco_jax.languages import LANGUAGES, high_resource


def infos(*names: str) -> list[SourceInfo]:
    return [SourceInfo(n, TEXT, n) if n in LANGUAGES else SourceInfo(n, n) for n in names]


EVERYTHING = infos(*LANGUAGES, "parallel", "knowledge", "synthetic")


def test_table_1_follows_from_table_2_to_the_digit():
    stages = {stage: get_mixture(stage, EVERYTHING).shares for stage in STAGE_SHARES}
    used = {
        group: round(sum(STAGE_TOKENS[s] * stages[s][sources[0]] for s in stages), 1)
        for group, sources in table_groups().items()
    }
    assert used == {
        "English": 90.4,
        "Chinese": 48.2,
        "other high-resource": 10.6,  # 10.55: each of the eight
        "low-resource": 1.9,  # 1.86: each of the nineteen
        "parallel": 20.8,
        "high-quality knowledge": 16.4,
        "synthetic": 4.4,
    }


@pytest.mark.parametrize("name", mixture_names())
@pytest.mark.parametrize("missing", [[], ["synthetic"], ["kk", "ne", "de"], ["parallel", "en"]])
def test_shares_sum_to_one_whatever_is_missing(name, missing):
    post_training = {"chat": "talk", "preference": "choices", "prompt": "questions"}
    everything = [*EVERYTHING, *(SourceInfo(name, kind) for kind, name in post_training.items())]
    available = [source for source in everything if source.name not in missing]
    mixture = get_mixture(name, available)
    assert sum(mixture.shares.values()) == pytest.approx(1, abs=1e-12)
    assert not set(mixture.shares) & set(missing)
    # Post-training's sources are in no mixture but their own.
    others = set(post_training.values()) - {post_training.get(name)}
    assert not set(mixture.shares) & others
    if name in post_training:
        assert mixture.shares == {post_training[name]: 1.0}


def test_all_there_is_the_table_without_a_note():
    mixture = get_mixture("stage1", EVERYTHING)
    assert mixture.shares["en"] == pytest.approx(0.32)
    assert mixture.shares["de"] == pytest.approx(0.0375)
    assert mixture.shares["kk"] == pytest.approx(0.09 / 19)
    assert mixture.notes == ()


def test_without_synthetic_data_its_share_goes_to_all_in_proportion_and_that_is_said():
    mixture = get_mixture("stage2", EVERYTHING[:-1])
    assert mixture.shares["en"] == pytest.approx(0.28 / 0.98)
    assert any("no synthetic data: its 2%" in note for note in mixture.notes)


def test_a_missing_languages_share_stays_in_its_group():
    mixture = get_mixture("stage2", [source for source in EVERYTHING if source.name != "kk"])
    assert mixture.shares["ne"] == pytest.approx(0.15 / 18)
    assert mixture.shares["en"] == pytest.approx(0.28)
    assert any("kk" in note and "low-resource" in note for note in mixture.notes)


def test_base_is_the_high_resource_languages_in_stage_1_proportions():
    shares = get_mixture("base", EVERYTHING).shares
    assert set(shares) == set(high_resource())
    assert shares["en"] == pytest.approx(32 / 79)
    assert shares["tr"] == pytest.approx(30 / 79 / 8)


def test_uniform_is_uniform():
    shares = get_mixture("all", infos("en", "kk", "parallel", "knowledge")).shares
    assert set(shares.values()) == {0.25}


SIZES = {"az": 100, "bn": 800, "he": 2700}


@pytest.mark.parametrize(
    ("within", "shares"),
    [
        (Within("uniform"), [1 / 3, 1 / 3, 1 / 3]),
        (Within("proportional"), [100 / 3600, 800 / 3600, 2700 / 3600]),
        # Cube roots of 100, 800 and 2700 are as 1 : 2 : 3.
        (Within("temperature", temperature=3.0), [1 / 6, 2 / 6, 3 / 6]),
        # 1,200 tokens: az is capped at two epochs, 200, and the others share what is left.
        (Within("unimax", max_epochs=2.0), [200 / 1200, 500 / 1200, 500 / 1200]),
    ],
)
def test_a_group_is_shared_out_as_asked(within, shares):
    mixture = get_mixture("all", infos(*SIZES), within, SIZES, budget=1200.0)
    assert mixture.shares == pytest.approx(dict(zip(SIZES, shares, strict=True)))


def test_unimax_counts_what_earlier_stages_have_read():
    within = Within("unimax", max_epochs=2.0)
    read = {"az": 150.0, "bn": 0.0, "he": 0.0}
    shares = get_mixture("all", infos(*SIZES), within, SIZES, 1200.0, read).shares
    assert shares["az"] == pytest.approx(50 / 1200)


def test_unimax_says_when_all_there_is_does_not_suffice():
    mixture = get_mixture("all", infos(*SIZES), Within("unimax", max_epochs=1.0), SIZES, 7200.0)
    assert mixture.shares == pytest.approx({name: size / 3600 for name, size in SIZES.items()})
    assert any("7,200 tokens are more than 1 epochs" in note for note in mixture.notes)


@given(
    sizes=st.lists(st.integers(1, 10**9), min_size=3, max_size=3),
    budget=st.floats(1, 1e10),
    epochs=st.floats(0.1, 10),
)
def test_unimax_keeps_its_cap_and_its_order(sizes, budget, epochs):
    named = dict(zip(SIZES, sizes, strict=True))
    shares = get_mixture("all", infos(*SIZES), Within("unimax", 1.0, epochs), named, budget).shares
    assert sum(shares.values()) == pytest.approx(1)
    if epochs * sum(sizes) >= budget:
        for name, size in named.items():
            assert shares[name] * budget <= epochs * size * (1 + 1e-9)
    ordered = sorted(named, key=named.__getitem__)
    for smaller, larger in zip(ordered, ordered[1:], strict=False):
        assert shares[smaller] <= shares[larger] * (1 + 1e-9)


def test_sources_of_one_language_count_by_their_size():
    sources = [
        SourceInfo("kk_web", TEXT, "kk"),
        SourceInfo("kk_news", TEXT, "kk"),
        SourceInfo("ne", TEXT, "ne"),
        SourceInfo("qa", "knowledge"),
    ]
    sizes = {"kk_web": 300, "kk_news": 100, "ne": 5, "qa": 1}
    shares = get_mixture("stage2", sources, sizes=sizes).shares
    kazakh = 0.15 / 0.21 / 2
    assert shares == pytest.approx(
        {"kk_web": 0.75 * kazakh, "kk_news": 0.25 * kazakh, "ne": kazakh, "qa": 0.06 / 0.21}
    )


def test_what_a_method_needs_is_asked_for():
    with pytest.raises(ValueError, match="mixture.within is 'best': choose one of"):
        Within("best")
    with pytest.raises(ValueError, match="mixture.within=proportional needs the sizes"):
        get_mixture("all", infos("en", "kk"), Within("proportional"))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="mixture 'stage_2' is unknown: did you mean 'stage2'"):
        get_mixture("stage_2", EVERYTHING)


def test_no_source_left_is_an_error():
    with pytest.raises(ValueError, match="the data has none of its sources"):
        get_mixture("base", infos("kk"))


def test_flat_has_the_totals_of_both_stages():
    flat = get_mixture("flat", EVERYTHING).shares
    stages = {stage: get_mixture(stage, EVERYTHING).shares for stage in STAGE_SHARES}
    total = sum(STAGE_TOKENS.values())
    for name, share in flat.items():
        parts = [STAGE_TOKENS[stage] * stages[stage][name] for stage in stages]
        assert share == pytest.approx(sum(parts) / total)
