"""Renders HTML pages from the Jinja templates in `templates/`, with the style and script of all.

A page written to a file loads nothing: plotly's script, a bundle of its cartesian charts, is part
of it (assets/README.md). A served page loads that script from the server once for all pages.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from marco_jax.reports.charts import GROUP_NAMES, Figure

# A text, a whole number, or what `cell` returns.
Cell = str | int | dict[str, str]
PLOTLY = "plotly-cartesian.min.js"
_SECTION = re.compile(r'<section id="([^"]+)"[^>]*>\s*<h2[^>]*>(.*?)</h2>', re.DOTALL)


def cell(text: str, small: str = "", kind: str = "") -> Cell:
    """A cell of a table with a smaller text behind its own. `kind` is its class in the style."""
    return {"text": text, "small": small, "kind": kind}


def render_page(
    template: str | pathlib.Path,
    charts: Mapping[str, Figure | None] | None,
    *,
    axes: Sequence[Mapping[str, Sequence[float]]] = (),
    live: Mapping[str, Any] | None = None,
    **data: Any,
) -> str:
    """Renders a page.

    Args:
        template: a file name in `templates/`, or the path of a template elsewhere.
        charts: charts by the name that the template gives them; None for a page without charts.
        axes: for each run of the charts its steps, tokens and hours (`run_charts.axis_table`).
        live: of a served page: "every", seconds between two looks at the server, "version", of
            this content, and "plotly", the address of the script.
        data: what else the template uses.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format, "contents": _SECTION.findall}
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    if isinstance(template, pathlib.Path):
        page = environment.from_string(template.read_text(encoding="utf-8"))
    else:
        page = environment.get_template(template)
    drawn = {name: c for name, c in (charts or {}).items() if c is not None}
    return page.render(
        charts=drawn,
        over_steps=any("over" in chart.get("options", ()) for chart in drawn.values()),
        axes=list(axes),
        groups=GROUP_NAMES,
        live=live,
        style=asset("page.css"),
        script=asset("charts.js") + asset("page.js"),
        plotly=asset(PLOTLY) if drawn and live is None else "",
        **data,
    )


@functools.cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
