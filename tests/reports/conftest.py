"""The browser that is installed, and a page of each kind."""

import os
import shutil

import pytest

from marco_jax.ablation.sweep_page import write_sweep_report
from marco_jax.reports.comparison_page import write_comparison
from marco_jax.reports.curation_page import curation_page
from marco_jax.reports.run_page import write_report
from tests.reports.made_runs import curation_report, write_run, write_sweep

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Of a page that is drawn: each chart has its axes.
DRAWN = "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))"


@pytest.fixture(scope="session")
def browser():
    """A headless browser; MARCO_BROWSER=required makes its absence an error."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"no browser is installed: none of {', '.join(BROWSERS)}"
        if os.environ.get("MARCO_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The workdirs of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / name, scale) for name, scale in (("first", 1.0), ("second", 0.9))]


@pytest.fixture(scope="session")
def pages(runs, tmp_path_factory):
    """The file of a page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "curation.html").write_text(curation_page(curation_report()), "utf-8")
    (folder / "sweep").mkdir()
    return {
        "run": write_report(runs[0]),
        "comparison": write_comparison(runs, folder / "comparison.html"),
        "sweep": write_sweep_report(write_sweep(folder / "sweep")),
        "curation": folder / "curation.html",
    }


@pytest.fixture
def opened(browser, pages):
    """Opens a page and waits until it is drawn; returns it and what went wrong on it."""
    contexts = []

    def opened(name, width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page, errors = context.new_page(), []
        page.on("console", lambda m: errors.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        own = ("file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else errors.append(r.url))
        page.goto(pages[name].as_uri())
        page.wait_for_function(DRAWN)
        return page, errors

    yield opened
    for context in contexts:
        context.close()
