"""Pages in a real browser: no error, every chart drawn, nothing wider than the screen."""

import json
import os
import shutil

import pytest

from marco_jax.evaluation.results import Result, write_results
from marco_jax.reports.comparison_page import write_comparison
from marco_jax.reports.run_page import write_report

sync_api = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LANGUAGES = ("en", "zh", "de", "kk", "ne")
STAGES = (("base", 0, 40), ("stage1", 40, 80))


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def write_run(workdir, scale):
    """A run of two stages with everything that a page draws."""
    workdir.mkdir()
    rows = []
    for name, first, last in STAGES:
        for step in range(first + 1, last + 1):
            loss = scale * (2 + 40 / (step + 10))
            row = {"step": step, "stage": name, "loss": loss, "learning_rate": 1e-3 / step}
            row |= {"grad_norm": 1.0, "tokens": 100 * step, "tokens_per_second": 5e4, "mfu": 0.4}
            row |= {"padding": 0.01, "step_seconds": 0.5, "input_seconds": 0.01, "devices": 8}
            # A restart after step 60: sums begin again.
            since = step if step <= 60 else step - 60
            row |= {f"{part}_seconds": 0.1 * since for part in ("compile", "evaluation")}
            row |= {"checkpoint_seconds": 0.05 * since}
            for code in LANGUAGES:
                row |= {f"loss/{code}": loss, f"tokens/{code}": 20}
            rows.append(row)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shares = dict.fromkeys(LANGUAGES, 0.2)
    stages = [{"name": n, "steps": last - first, "shares": shares} for n, first, last in STAGES]
    (workdir / "mixture.json").write_text(json.dumps({"stages": stages}))
    config = {"steps": 80, "seed": scale, "name": "a-name-without-any-break-" * 8}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "checkpoints" / "80").mkdir(parents=True)
    metrics = {
        "bits_per_byte": "bits_per_byte",
        "pick_translation": "accuracy",
        "translation": "chrf++",
        "belebele": "accuracy",
    }
    for step in (40, 80):
        found = [
            Result(task, code, 0, metric, scale * (0.5 + 1 / step), 0.01, 10)
            for task, metric in metrics.items()
            for code in (*LANGUAGES, "high", "low")
        ]
        (workdir / "eval").mkdir(exist_ok=True)
        write_results(workdir / "eval" / f"{step}.json", found)
    return workdir


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / name, scale) for name, scale in (("first", 1.0), ("second", 0.9))]
    return {
        "report": write_report(runs[0]),
        "comparison": write_comparison(runs, folder / "comparison.html"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_in_a_browser(browser, pages, name, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    errors = []
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: errors.append(r.url) if not r.url.startswith("file:") else None)
    page.goto(pages[name].as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))"
    )
    charts = page.eval_on_selector_all(
        ".chart",
        "found => found.map(c => [c.id, c.getBoundingClientRect().right,"
        " c.querySelectorAll('path.js-line, .point, .js-fill').length])",
    )
    assert len(charts) >= (10 if name == "report" else 4)
    assert all(marks for *_, marks in charts), charts
    assert all(right <= width + 1 for _, right, _ in charts), charts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background, ink = page.evaluate(
        "(() => { const style = getComputedStyle(document.body);"
        " return [style.backgroundColor, style.color] })()"
    )
    assert (brightness(background) > brightness(ink)) == (scheme == "light")
    if folder := os.environ.get("MARCO_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}_{width}_{scheme}.png", full_page=True)
    context.close()
    assert not errors


def brightness(colour):
    """Of "rgb(1, 2, 3)"."""
    return sum(int(part) for part in colour[4:-1].split(","))
