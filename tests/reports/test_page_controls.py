"""What a reader does with a page changes its charts."""

import pytest

from tests.reports.conftest import DRAWN

LINES = "id => document.getElementById(id).querySelectorAll('path.js-line').length"
# The line that is drawn last lies on top.
TOP = "[...document.getElementById(id).querySelectorAll('path.js-line')].at(-1)"
PATH = f"id => {TOP}.getAttribute('d')"
TICKS = (
    "id => [...document.getElementById(id).querySelectorAll('.xtick text')].map(t => t.textContent)"
)
YTICKS = (
    "id => [...document.getElementById(id).querySelectorAll('.ytick text')].map(t => t.textContent)"
)
POINTS = "id => document.getElementById(id).querySelectorAll('.point').length"


def changed(page, script, chart, before):
    """Waits until a script gives something else for a chart; returns that."""
    page.wait_for_function(
        f"([id, before]) => JSON.stringify(({script})(id)) !== before",
        arg=[chart, page.evaluate("JSON.stringify", before)],
    )
    return page.evaluate(script, chart)


def test_smoothing_changes_the_line_and_leaves_raw_points(opened):
    page, errors = opened("run")
    before, raw = page.evaluate(PATH, "loss"), page.evaluate(POINTS, "loss")
    assert raw == 80
    slider = page.locator("input[name=smoothing]")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    smooth = changed(page, PATH, "loss", before)
    assert page.locator("form output").text_content() == "25 % of a stage"
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    rough = changed(page, PATH, "loss", smooth)
    # The made loss jumps up and down; a line without smoothing is much longer.
    length = f"id => {TOP}.getTotalLength()"
    long = page.evaluate(length, "loss")
    slider.fill("30")
    changed(page, PATH, "loss", rough)
    assert page.evaluate(length, "loss") < 0.7 * long
    assert not errors


@pytest.mark.parametrize("unit, most", [("tokens", "8000"), ("hours", "0.0")])
def test_the_axis_shows_tokens_or_hours(opened, unit, most):
    page, errors = opened("run")
    before = page.evaluate(TICKS, "loss")
    assert before[-1] == "80"
    page.locator("select[name=x]").select_option(unit)
    for chart in ("loss", "bits", "speed"):
        ticks = changed(page, TICKS, chart, before)
        assert ticks[-1].replace("k", "000").startswith(most[:1]), ticks
    title = page.evaluate("document.querySelector('#loss .xtitle').textContent")
    assert title == unit and not errors


def test_zoom_is_shared_and_a_double_click_ends_it(opened):
    page, errors = opened("run")
    before = page.evaluate(TICKS, "speed")
    page.locator("#loss").scroll_into_view_if_needed()
    box = page.locator("#loss .nsewdrag").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=8)
    page.mouse.up()
    for chart in ("loss", "speed", "bits"):
        ticks = changed(page, TICKS, chart, before)
        assert float(ticks[0]) >= 35 and float(ticks[-1]) <= 70
    page.locator("#loss .nsewdrag").first.dblclick()
    page.wait_for_function(f"before => JSON.stringify(({TICKS})('speed')) === before",
                           arg=page.evaluate("JSON.stringify", before))  # fmt: skip
    assert not errors


def test_a_range_is_chosen_without_a_mouse(opened):
    page, _ = opened("run")
    before = page.evaluate(TICKS, "loss")
    page.locator("select[name=range]").select_option("0.5")
    assert float(changed(page, TICKS, "loss", before)[0]) >= 40


def test_the_cursor_is_in_all_charts_over_steps(opened):
    page, _ = opened("run")
    page.locator("#loss").scroll_into_view_if_needed()
    box = page.locator("#loss .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.wait_for_function("document.querySelector('.at').textContent.includes('step')")
    shown = page.eval_on_selector_all(
        ".cursor", "found => found.filter(one => one.style.display === 'block').length"
    )
    linked = page.evaluate("linked().length")
    assert shown == linked > 8
    step, tokens, hours = page.locator(".at").text_content().splitlines()
    assert 36 <= int(step.split()[1]) <= 44 and tokens.endswith("tokens") and "hours" in hours


def test_sources_are_switched_by_group_and_on_their_own(opened):
    page, errors = opened("run")
    figure = page.locator("figure", has=page.locator("#loss"))
    lines = page.evaluate(LINES, "loss")
    low = figure.get_by_role("button", name="Low-resource", exact=True)
    low.focus()
    page.keyboard.press("Enter")
    assert changed(page, LINES, "loss", lines) == lines - 2
    assert low.get_attribute("aria-pressed") == "false"
    # The focus stays, so that the same key switches back.
    page.keyboard.press("Enter")
    assert changed(page, LINES, "loss", lines - 2) == lines
    figure.locator("summary").click()
    figure.get_by_role("button", name="Parallel: Kazakh").click()
    assert changed(page, LINES, "loss", lines) == lines - 1
    figure.get_by_role("button", name="none", exact=True).click()
    assert changed(page, LINES, "loss", lines - 1) == 1
    assert not errors


def test_a_logarithmic_axis(opened):
    page, errors = opened("run")
    before = page.evaluate(YTICKS, "norm")
    button = page.get_by_role("button", name="Logarithmic axis of Norm of the gradient")
    button.click()
    assert changed(page, YTICKS, "norm", before)
    assert button.get_attribute("aria-pressed") == "true" and not errors


def test_another_metric_of_a_task_is_chosen(opened):
    page, errors = opened("run")
    title = "() => document.querySelector('#task_0 .ytitle').textContent"
    assert page.evaluate(title) == "accuracy, pmi-normalised"
    page.get_by_label("What Picking the right translation shows").select_option("Accuracy")
    page.wait_for_function(f"({title})() === 'accuracy'")
    assert not errors


def test_a_language_is_chosen_for_all_scores_of_a_curation(opened):
    page, errors = opened("curation")
    lists = page.get_by_label("What letters shows"), page.get_by_label("What digits shows")
    lists[0].select_option("kk")
    assert [one.input_value() for one in lists] == ["1", "1"] and not errors


def test_a_point_of_the_trade_off_marks_its_mixture(opened):
    page, errors = opened("sweep")
    rows = page.locator('[data-row-of="trade_off"]')
    assert rows.count() == 5 and page.locator("tr.chosen").count() == 0
    page.locator("#trade_off").scroll_into_view_if_needed()
    box = page.locator("#trade_off .point").nth(2).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("tr.chosen")
    assert "kk=0.3" in page.locator("tr.chosen").text_content()
    rows.nth(4).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('tr.chosen').textContent.includes('kk=0.5')")
    sizes = page.evaluate("document.getElementById('trade_off').data[0].marker.size")
    assert sizes[4] == max(sizes) > min(sizes) and not errors


def test_the_last_stage_is_seen_on_a_phone_and_tables_show_that_they_scroll(opened):
    page, _ = opened("run", width=400)
    head = page.locator("table.headlines thead th").last
    assert head.text_content() == "Stage-I"
    box = head.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 400
    cues = page.eval_on_selector_all(
        ".scroll", "found => found.filter(one => one.scrollWidth > one.clientWidth + 2)"
        ".map(one => one.classList.contains('more-right') || one.classList.contains('more-left'))",
    )  # fmt: skip
    assert cues and all(cues)


def test_a_change_of_the_colour_scheme_redraws(opened):
    page, errors = opened("run")
    ink = "document.querySelector('#loss .xtick text').style.fill"
    before = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} !== '{before}'")
    page.wait_for_function(DRAWN)
    assert not errors
