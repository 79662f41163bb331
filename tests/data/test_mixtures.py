"""Mixtures: Table 2, and how it is fitted to the data that is there."""

import pytest

from marco_jax.data.mixtures import (
    GROUPS,
    STAGE_SHARES,
    STAGE_TOKENS,
    apply_override,
    get_mixture,
    mixture_names,
)
from marco_jax.languages import HIGH_RESOURCE, LANGUAGES

EVERYTHING = [*LANGUAGES, "parallel", "knowledge", "synthetic"]


def test_table_1_follows_from_table_2_to_the_digit():
    stages = {stage: get_mixture(stage, EVERYTHING).shares for stage in STAGE_SHARES}
    used = {
        group: round(sum(STAGE_TOKENS[s] * stages[s][sources[0]] for s in stages), 1)
        for group, sources in GROUPS.items()
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
    available = [source for source in EVERYTHING if source not in missing]
    mixture = get_mixture(name, available)
    assert sum(mixture.shares.values()) == pytest.approx(1, abs=1e-12)
    assert not set(mixture.shares) & set(missing)


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
    mixture = get_mixture("stage2", [source for source in EVERYTHING if source != "kk"])
    assert mixture.shares["ne"] == pytest.approx(0.15 / 18)
    assert mixture.shares["en"] == pytest.approx(0.28)
    assert any("kk" in note and "low-resource" in note for note in mixture.notes)


def test_base_is_the_high_resource_languages_in_stage_1_proportions():
    shares = get_mixture("base", EVERYTHING).shares
    assert set(shares) == set(HIGH_RESOURCE)
    assert shares["en"] == pytest.approx(32 / 79)
    assert shares["tr"] == pytest.approx(30 / 79 / 8)


def test_uniform_is_uniform():
    shares = get_mixture("uniform", ["en", "kk", "parallel", "knowledge"]).shares
    assert set(shares.values()) == {0.25}


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="mixture 'stage_2' is unknown: did you mean 'stage2'"):
        get_mixture("stage_2", EVERYTHING)


def test_no_source_left_is_an_error():
    with pytest.raises(ValueError, match="the data has none of its sources"):
        get_mixture("base", ["kk"])


def test_override_sets_shares_and_scales_the_rest():
    shares = apply_override(get_mixture("stage2", EVERYTHING).shares, "kk=0.02, ne = 0.03")
    assert (shares["kk"], shares["ne"]) == (0.02, 0.03)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    scale = 0.95 / (1 - 2 * 0.15 / 19)
    assert shares["en"] == pytest.approx(0.28 * scale)


def test_override_may_switch_a_source_off():
    shares = apply_override({"en": 0.5, "kk": 0.25, "ne": 0.25}, "en=0")
    assert shares == {"en": 0, "kk": 0.5, "ne": 0.5}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kk", "'kk' is not of the form source=share"),
        ("en=0.1,kk=a lot", "'kk=a lot' is not of the form source=share"),
        ("kkk=0.1", "no source 'kkk'; did you mean 'kk'"),
        ("kk=1.5", "'kk=1.5' is no share"),
        ("kk=nan", "'kk=nan' is no share"),
        ("kk=0.6,en=0.6", "gives 1.2 of the tokens away"),
        ("kk=0.5,en=0.2,ne=0.1", "not 1"),
    ],
)
def test_bad_override_names_the_item(override, message):
    with pytest.raises(ValueError, match=message):
        apply_override({"en": 0.5, "kk": 0.25, "ne": 0.25}, override)
