"""Renders self-contained HTML pages from the Jinja templates in `templates/`."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2

from marco_jax.reports.charts import Figure

# A text, a whole number, or what `cell` returns.
Cell = str | int | dict[str, str]


def cell(text: str, small: str = "", kind: str = "") -> Cell:
    """A cell of a table with a smaller text behind its own. `kind` is its class in the style."""
    return {"text": text, "small": small, "kind": kind}


def render_page(
    template: str | pathlib.Path, charts: Mapping[str, Figure | None] | None, **data: Any
) -> str:
    """Renders a page that loads nothing: plotly's script is part of it where there are charts.

    Args:
        template: a file name in `templates/`, or the path of a template elsewhere.
        charts: charts by the name that the template gives them; None for a page without scripts.
        data: what else the template uses.
    """
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    if isinstance(template, pathlib.Path):
        page = environment.from_string(template.read_text(encoding="utf-8"))
    else:
        page = environment.get_template(template)
    drawn = None if charts is None else {name: c for name, c in charts.items() if c is not None}
    return page.render(charts=drawn, plotly=get_plotlyjs() if drawn else "", **data)
