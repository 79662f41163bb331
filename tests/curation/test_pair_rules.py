"""Each defect of a pair is told from a good one."""

import pytest

from marco_jax.curation.pair_rules import bad_pair

ENGLISH = "The committee met on Monday and agreed to meet again in 2024."
GERMAN = "Der Ausschuss tagte am Montag und beschloss, 2024 wieder zusammenzukommen."
RUSSIAN = "Комитет собрался в понедельник и решил встретиться вновь в 2024."


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (ENGLISH, GERMAN, ""),
        (ENGLISH, ENGLISH.upper(), "copy"),
        (ENGLISH, "Ja.", "length ratio"),
        (ENGLISH, GERMAN.replace("2024", "2019"), "numbers"),
        (ENGLISH + " %(name)s", GERMAN, "placeholders"),
        (ENGLISH, RUSSIAN, "not de"),
        (GERMAN, ENGLISH, "swapped"),
        (ENGLISH, GERMAN.replace("am Montag", "am Montag der der der der " * 5), "repetition"),
        (ENGLISH, "Der Ausschuss tagte fÃ¼r die nÃ¤chste Sitzung am Montag, 2024.", "symbols"),
        (ENGLISH, " ", "empty"),
    ],
)
def test_a_pair_is_judged(source, target, reason):
    assert bad_pair(source, target, ("en", "de")) == reason


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("Да.", "Yes.", "swapped"),
        ("Yes, sir.", "Not yet", "not ru"),
        ("Yes, sir.", "Да, сэр.", ""),
        ("He has 1,500 sheep.", "У него 1 500 овец.", ""),
        ("It costs 1.5 million.", "Это стоит 1 500 000.", ""),
        ("See you at 7:30 pm.", "Увидимся в 19:30.", ""),
        ("He has three sons.", "У него 3 сына.", ""),
        ("He has 4 sons.", "У него 3 сына.", "numbers"),
    ],
)
def test_scripts_and_numbers_decide_at_any_length(source, target, reason):
    assert bad_pair(source, target, ("en", "ru")) == reason


def test_digits_of_other_scripts_are_numbers():
    assert bad_pair("Born in 1998.", "سنة ١٩٩٨", ("en", "ar")) == ""
    assert bad_pair("Born in 1998.", "سنة ١٩٩٧", ("en", "ar")) == "numbers"


def test_a_side_of_symbols_is_no_sentence():
    source = "In the end they told each other what had happened there."
    garbled = "#्##ाँ #ि#ा##्##्#ी ####ि ##ी##ू#ी# #ा#ा ##्##्# #ा## ##ो"
    assert bad_pair(source, garbled, ("en", "ne")) == "symbols"
