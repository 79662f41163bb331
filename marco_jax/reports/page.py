"""Self-contained HTML pages: a template, plotly's script, charts and tables."""

from __future__ import annotations

import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from html import escape

from marco_jax.reports.charts import Figure


def render(title: str, body: str, charts: Mapping[str, Figure]) -> str:
    """A page that loads nothing: plotly's script is part of it where there are charts."""
    from plotly.offline import get_plotlyjs

    template = importlib.resources.files(__package__).joinpath("report.html.template")
    return string.Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        body=body,
        plotly=get_plotlyjs() if charts else "const Plotly = null;",
        # A "</script>" within a string would end the element.
        figures=json.dumps(charts, allow_nan=False).replace("</", "<\\/"),
    )


def chart(
    charts: dict[str, Figure], name: str, figure: Figure | None, title: str, note: str = ""
) -> str:
    """A titled chart, whose figure is added to `charts`; nothing where there is no data."""
    if figure is None:
        return ""
    charts[name] = figure
    height = figure["layout"]["height"]
    note = f"<p>{note}</p>" if note else ""
    return (
        f'<h2>{escape(title)}</h2>{note}<div class="chart" id="{name}" '
        f'style="height:{height}px"></div>'
    )


def table(head: Sequence[str], rows: Sequence[str], name: str) -> str:
    """A table that scrolls; `rows` are HTML rows."""
    columns = "".join(f"<th>{escape(column)}</th>" for column in head)
    return (
        f'<div class="scroll"><table class="{name}"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
