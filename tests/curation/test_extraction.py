"""HTML in all its forms gives its article; text that mentions markup stays text."""

import pytest

from marco_jax.curation.documents import RawDocument
from marco_jax.curation.extraction import extracted, is_html

FIRST = "The river runs through the old market town, and people walk along its bank in the morning."
SECOND = "They meet in the garden and talk about the winter, and how the bridge was built long ago."
ARTICLE = f"<h1>The bridge</h1><p>{FIRST}</p><p>{SECOND}</p>"
LINKS = "<li><a href='/x'>Home page</a></li>"
PAGES = {
    "xhtml": f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML '
    f'1.0 Strict//EN" "x"><html xmlns="http://www.w3.org/1999/xhtml"><body>{ARTICLE}</body></html>',
    "byte order mark": f"\ufeff<html><body>{ARTICLE}</body></html>",
    "comment": f"<!-- cached -->\n<!-- <b> -->\n<html><body>{ARTICLE}</body></html>",
    "no html tag": f"<head><title>x</title></head><body>{ARTICLE}</body>",
    "fragment": f"<div class='a'>{ARTICLE}</div>",
    "paragraphs": ARTICLE,
    "words first": f"The bridge {ARTICLE}",
    "upper case": f"<HTML><BODY>{ARTICLE}</BODY></HTML>".replace("p>", "P>"),
}
TEXTS = [
    "In HTML, <b> makes text bold and </b> ends it. Use <p> and </p> for paragraphs.",
    "<b> is the tag for bold text, and <p> starts a paragraph.",
    f"Write this:\n```\n{ARTICLE}{ARTICLE}\n```",
    "List<String> x = new ArrayList<String>(); if a<b and c>d",
    "2 < 3 and 5 > 4",
    "",
]


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("form", ["", "html"])
def test_a_page_gives_its_article_without_markup(kind, form):
    found = extracted(RawDocument("a", PAGES[kind], form=form))
    assert not found.stage and not found.form
    assert FIRST in found.text and SECOND in found.text and "<" not in found.text


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_mentions_markup_stays(text):
    assert not is_html(text)
    assert extracted(RawDocument("a", text)).text == text


def test_a_media_type_decides_where_it_can():
    assert extracted(RawDocument("a", PAGES["fragment"], form="plain")).text == PAGES["fragment"]
    assert extracted(RawDocument("a", FIRST, form="html")).text == FIRST
    assert "<" not in extracted(RawDocument("a", f"{FIRST}<br>{SECOND}", form="html")).text


@pytest.mark.parametrize(
    "page",
    [
        f"<html><body><nav>{LINKS * 8}</nav></body></html>",
        f"<html><body><ul>{LINKS * 8}</ul></body></html>",
        f"<ul>{LINKS * 8}</ul>",
        "<div><script>let a = 1</script></div>",
    ],
)
def test_a_page_of_links_alone_has_no_main_content(page):
    assert extracted(RawDocument("a", page)).reason == "no main content"


def test_a_short_fragment_is_kept_whole():
    assert extracted(RawDocument("a", "<div><p>The teacher walks.</p></div>")).text == (
        "The teacher walks."
    )
