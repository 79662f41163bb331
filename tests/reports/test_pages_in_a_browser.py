"""Pages in a real browser: no error, every chart drawn, readable, nothing wider than the screen."""

import os
import pathlib

import pytest

MARKS = {"run": 14, "comparison": 9, "sweep": 5, "curation": 3}
# The marks of each chart: lines, points, bars and the picture of a heat map.
CHARTS = """found => found.map(c => [c.id, c.getBoundingClientRect().right,
    c.querySelectorAll('path.js-line, .point, .js-fill, .hm image, .barlayer path').length])"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", list(MARKS))
def test_a_page_is_drawn_and_readable(opened, name, width):
    page, errors = opened(name, width)
    charts = page.eval_on_selector_all(".chart", CHARTS)
    assert len(charts) >= MARKS[name]
    assert all(marks for *_, marks in charts), charts
    assert all(right <= width + 1 for _, right, _ in charts), charts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is folded is checked, too.
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        background, ink = page.evaluate(
            "(() => { const style = getComputedStyle(document.body);"
            " return [style.backgroundColor, style.color] })()"
        )
        assert (brightness(background) > brightness(ink)) == (scheme == "light")
        assert violations(page) == []
        if folder := os.environ.get("MARCO_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{name}_{width}_{scheme}.png", full_page=True)
    assert not errors


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", list(MARKS))
def test_the_contents_lead_to_every_section(opened, name, width):
    page, errors = opened(name, width)
    links = page.locator("nav a")
    sections = page.eval_on_selector_all("section", "found => found.map(one => one.id)")
    hashes = links.evaluate_all("found => found.map(one => one.hash.slice(1))")
    assert hashes == sections and len(sections) >= 4
    for number in (len(sections) - 1, 0):
        links.nth(number).click()
        page.wait_for_function(
            "id => { const top = document.getElementById(id).getBoundingClientRect().top;"
            " return top > -5 && top < innerHeight }",
            arg=sections[number],
        )
    assert not errors


@pytest.mark.parametrize("name", list(MARKS))
def test_every_control_is_reached_by_the_keyboard(opened, name):
    page, _ = opened(name)
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, select, input, summary, .scroll')]"
        ".filter(one => one.offsetParent && one.checkVisibility()).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(() => { const at = document.activeElement; window.seen ??= [];"
                " if (at === document.body) return -1;"
                " if (!window.seen.includes(at)) window.seen.push(at);"
                " return window.seen.indexOf(at) })()"
            )
        )
    assert len(reached - {-1}) >= wanted > 4


def violations(page):
    """What axe-core says against a page, by WCAG 2.1 AA and its best practices."""
    axe = pytest.importorskip("axe_playwright_python")
    script = pathlib.Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)
    found = page.evaluate("axe.run()")
    assert any(one["id"] == "color-contrast" for one in found["passes"])
    return [
        f"{one['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def brightness(colour):
    """Of "rgb(1, 2, 3)"."""
    return sum(int(part) for part in colour[4:-1].split(","))
