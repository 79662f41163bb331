"""The 29 languages and the budgets of Table 1."""

import pytest

from marco_jax.data.mixtures import GROUPS, STAGE_SHARES, STAGE_TOKENS
from marco_jax.languages import HIGH_RESOURCE, LANGUAGES, LOW_RESOURCE, get_language


def test_the_papers_29_languages_in_its_two_groups():
    assert len(LANGUAGES) == 29
    assert len(HIGH_RESOURCE) == 10 and len(LOW_RESOURCE) == 19
    assert set(HIGH_RESOURCE) | set(LOW_RESOURCE) == set(LANGUAGES)
    assert sum(language.corpus_tokens for language in LANGUAGES.values()) == pytest.approx(
        5115.9 - 103.0 - 65.0 - 6.0  # the table's total, less parallel, knowledge and synthetic
    )


def test_used_tokens_follow_from_the_two_stages():
    for name, group in GROUPS.items():
        used = sum(STAGE_TOKENS[s] * STAGE_SHARES[s][name] / 100 for s in STAGE_SHARES)
        for source in group:
            if source in LANGUAGES:
                # 84.4 over eight languages is 10.55, 35.4 over nineteen 1.86: printed 10.6 and 1.9.
                assert LANGUAGES[source].used_tokens == pytest.approx(used / len(group), abs=0.051)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("English", "'en'"), ("kkk", "'kk'"), ("qqq", "known are en, zh")]
)
def test_unknown_code_suggests_the_nearest(wrong, hint):
    with pytest.raises(ValueError, match=f"language '{wrong}' is unknown: .*{hint}"):
        get_language(wrong)
