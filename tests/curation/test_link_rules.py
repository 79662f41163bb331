"""Articles with links in their sentences are prose; menus, link farms and directories are not."""

import pytest

from marco_jax.curation.rules import RULES, MeasuredText, first_broken_rule
from tests.curation.web_texts import SENTENCES

LINKS = tuple(rule for rule in RULES if rule.stage == "links")
URL = "https://www.example.org/guides/long/path_(of_a_page)/to-{}.html"
PARAGRAPHS = [
    "The bridge was built long before the [railway]({}) came to the valley of the river.",
    "[Bees]({}) were kept behind the house, and she knew the weather by the sound of them.",
    "Those who want to know more can ask ([the address is here]({})) how the boxes were carried.",
    "- In spring they went up to the meadow, where the [clover]({}) was, and it took all day.",
]


def broken(lines, language="en"):
    text = "\n".join(line.replace("{}", URL.format(at)) for at, line in enumerate(lines))
    return first_broken_rule(MeasuredText(text, language), LINKS, {})


def test_sentences_with_links_are_prose():
    assert broken(PARAGRAPHS) is None


@pytest.mark.parametrize("code", ["zh", "ja", "ko", "ru", "el"])
def test_sentences_with_links_in_other_scripts(code):
    text = SENTENCES[code]
    assert broken([f"{text[:at]}[{text[at : at + 4]}]({{}}){text[at + 4 :]}" for at in (3, 9, 15)],
                  code) is None  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "[How the bridge was built before the railway came]({})",
        "- [Bridges]({}) - how they were built before the railway came to the valley of the river",
        "1. **[Bridges]({})**: how they were built before the railway came to the valley",
        "* [![Bridges]({})]({}) How they were built before the railway came to the valley",
        "How the bridge was built before the railway came to the valley {}",
        "[Home]({}) | [Bridges of the river]({}) | [Railways of the valley]({}) | [About]({})",
        "{}",
    ],
)
def test_lists_of_links_are_not_prose(line):
    assert broken([line] * 5 + PARAGRAPHS[:2]).stage == "links"


def test_brackets_without_end_are_measured_in_linear_time():
    assert broken(["[" * 200_000, "](" * 100_000, "[a](" * 50_000]) is None
