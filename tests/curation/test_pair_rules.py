"""Each defect of a pair is told from a good one."""

import pytest

from marco_jax.curation.pair_rules import bad_pair

ENGLISH = "The committee met on Monday and agreed to meet again in 2024."
GERMAN = "Der Ausschuss tagte am Montag und beschloss, 2024 wieder zusammenzukommen."


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (ENGLISH, GERMAN, ""),
        (ENGLISH, ENGLISH.upper(), "copy"),
        (ENGLISH, "Ja.", "length ratio"),
        (ENGLISH, GERMAN.replace("2024", "2019"), "numbers"),
        (ENGLISH + " %(name)s", GERMAN, "placeholders"),
        (ENGLISH, "Комитет собрался в понедельник и решил встретиться вновь в 2024.", "not de"),
        (ENGLISH, " ", "empty"),
    ],
)
def test_a_pair_is_judged(source, target, reason):
    assert bad_pair(source, target, ("en", "de")) == reason


def test_a_similarity_decides_last():
    assert bad_pair(ENGLISH, GERMAN, ("en", "de"), similarity=lambda a, b: 0.5) == "similarity"


def test_a_side_of_symbols_is_no_sentence():
    source = "In the end they told each other what had happened there."
    garbled = "#्##ाँ #ि#ा##्#ी ####ि ##ी##ू#ी# #ा#ा ##्##्# #ा## ##ो"
    assert bad_pair(source, garbled, ("en", "ne")) == "symbols"
