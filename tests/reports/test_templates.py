"""What holds for every page: texts of users are escaped, nothing is loaded, data end no script."""

import hashlib
import json
import re

import pytest

from marco_jax.evaluation.results import Result, write_results
from marco_jax.reports.comparison_page import write_comparison
from marco_jax.reports.curation_page import curation_page
from marco_jax.reports.page import PLOTLY, asset, render_page

EVIL = '</script><img src="x">'
# Of plotly-cartesian.min.js in the npm package plotly.js-cartesian-dist-min 4.1.1.
CHECKSUM = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
STYLE_AND_SCRIPTS = r"(?s)<style>.*?</style>|<script>.*?</script>"


def run_named(directory, config):
    directory.mkdir()
    rows = [
        {"step": step, "stage": EVIL, "loss": 1.0, f"loss/{EVIL.replace('/', '')}": 1.0}
        for step in (1, 2)
    ]
    (directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (directory / "config.json").write_text(json.dumps(config))
    write_results(directory / "eval/2.json", [Result(EVIL, EVIL, 0, EVIL, 0.5, 0.1, 9)])
    return directory


@pytest.fixture
def comparison(tmp_path):
    names = ("<i>one", "<i>two")
    runs = [run_named(tmp_path / name, {EVIL: name, "deep": {"same": 1}}) for name in names]
    return write_comparison(runs, tmp_path / "new folder/page.html").read_text("utf-8")


@pytest.fixture
def curation():
    funnel = [{"after": EVIL, "documents": 3, "bytes": 9, "tokens": 0}]
    entry = {"read": 3, "kept": 3, "bytes": 9, "tokens": 0, "rejected": {EVIL: 1}, "funnel": funnel}
    limits = {"rule": EVIL, "least": 0.1, "most": None}
    return curation_page(
        {
            "total": {"read": 3, "kept": 3, "kept_bytes": 9, "masked": 0, "unreadable": 1},
            "funnel": funnel,
            "languages": {EVIL: entry, "kk": entry | {"kept": 0}},
            "unreadable": {EVIL: 1},
            "charsets": {EVIL: 1},
            "pair_judges": [{"languages": EVIL, "kind": "lexicon", "pairs": 2, "wrong": 0.1}],
            "cluster_sizes": {"2": 1},
            "histograms": [{"language": EVIL, "counts": [[0.5, 2]], **limits}],
            "samples": [{"language": "kk", "fate": "kept", "id": EVIL, "text": EVIL}],
        }
    )


@pytest.mark.parametrize("name", ["comparison", "curation"])
def test_texts_are_escaped(name, request):
    page = request.getfixturevalue(name)
    body = re.sub(STYLE_AND_SCRIPTS, "", page)
    assert "<img" not in page and "<i>" not in body
    assert "&lt;/script&gt;&lt;img src=&#34;x&#34;&gt;" in body


def test_a_name_in_a_chart_does_not_end_the_script(comparison):
    assert comparison.count("</script>") == comparison.count("<script") == 6
    data = re.search(r'(?s)<script type="application/json" id="figures">(.*?)</script>', comparison)
    figures = json.loads(data[1])
    assert [trace["name"] for trace in figures["loss"]["data"]] == ["<i>one", "<i>two"]
    assert figures["loss"]["options"]["stages"][0]["label"] == EVIL


def test_a_page_of_curation_has_one_row_for_each_language(curation):
    assert "1 languages of which nothing was kept" in curation and "kk Kazakh" in curation
    data = re.search(r'(?s)<script type="application/json" id="figures">(.*?)</script>', curation)
    assert json.loads(data[1])["scores_0"]["options"]["bounds"] == [[0.1]]


@pytest.mark.parametrize("name", ["comparison", "curation"])
def test_a_page_loads_nothing_and_is_small(name, request):
    page = request.getfixturevalue(name)
    body = re.sub(STYLE_AND_SCRIPTS, "", page)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", body) and len(page) < 2_000_000


def test_the_script_of_the_charts_is_the_published_one():
    script = asset(PLOTLY)
    assert "plotly.js (cartesian - minified) v4.1.1" in script and "MIT license" in script
    assert hashlib.sha256(script.encode()).hexdigest() == CHECKSUM


def test_the_contents_are_the_sections(tmp_path):
    template = tmp_path / "page.html.jinja"
    template.write_text(
        '{% extends "base.html.jinja" %}{% from "macros.html.jinja" import section with context %}'
        "{% block body %}{% call section('a', '<i>One') %}{% endcall %}{% endblock %}"
    )
    assert '<li><a href="#a">&lt;i&gt;One</a></li>' in render_page(template, None)


def test_a_misspelt_field_of_a_template_is_an_error(tmp_path):
    template = tmp_path / "page.html.jinja"
    template.write_text('{% extends "base.html.jinja" %}{% block body %}{{ nme }}{% endblock %}')
    with pytest.raises(Exception, match="'nme' is undefined"):
        render_page(template, None, name="a run")


def test_a_number_that_json_has_not_is_refused(tmp_path):
    template = tmp_path / "page.html.jinja"
    template.write_text('{% extends "base.html.jinja" %}')
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_page(template, {"chart": {"data": [float("nan")], "layout": {}}})
