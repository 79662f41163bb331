"""Live pages: what they show, who may read them, and that they follow the runs."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse

import pytest

from marco_jax.commands.parser import create_parser
from marco_jax.evaluation.results import write_results
from marco_jax.reports.serve import ReportServer
from marco_jax.reports.watched_runs import WatchedRuns
from tests.reports.conftest import DRAWN
from tests.reports.made_runs import results, write_run
from tests.reports.test_pages_in_a_browser import violations


@contextlib.contextmanager
def serving(*folders, **options):
    with ReportServer([str(folder) for folder in folders], **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path, **headers):
    """The status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def at(*runs):
    return urllib.parse.urlencode([("at", str(run)) for run in runs])


def version_of(page):
    return json.loads(re.search(r'id="version">(.*?)</script>', page)[1])


@pytest.fixture
def own_runs(runs, tmp_path):
    """Copies that a test may change."""
    return [shutil.copytree(run, tmp_path / "runs" / run.name) for run in runs]


def test_the_list_has_every_run_below_the_folders(own_runs, tmp_path):
    with serving(tmp_path / "runs") as server:
        status, headers, page = get(server, "/")
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        for run in own_runs:
            assert f"/run?{at(run)}".replace("&", "&amp;") in page and run.name in page
        assert "80 of 80" in page and "0.512" in page
        # A run that begins later is found.
        write_run(tmp_path / "runs" / "third", 1.2)
        server.runs._listed = (-1e9, [])
        assert "third" in get(server, "/")[2]


def test_pages_of_a_run_and_of_several(own_runs):
    with serving(*own_runs) as server:
        status, _, page = get(server, f"/run?{at(own_runs[0])}")
        assert status == 200 and "Training loss by source" in page and len(page) < 200_000
        assert '<script src="/plotly-cartesian.min.js">' in page
        assert get(server, "/plotly-cartesian.min.js")[0] == 200
        assert "Runs side by side" in get(server, f"/compare?{at(*own_runs)}")[2]
        assert get(server, f"/compare?{at(own_runs[0])}")[0] == 400


def test_a_page_that_has_not_changed_is_not_sent_again(own_runs):
    with serving(own_runs[0]) as server:
        path = f"/run?{at(own_runs[0])}"
        version = version_of(get(server, path)[2])
        assert get(server, f"{path}&since={version}")[::2] == (204, "")
        with (own_runs[0] / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 81, "loss": 1.0}) + "\n")
        server.runs._looked.clear()
        status, _, page = get(server, f"{path}&since={version}")
        assert status == 200 and "81 of 80" in page and version_of(page) != version


@pytest.mark.parametrize("path", ["/run?at=/etc", "/etc/passwd", "/run", "/../x", "/run?at=."])
def test_nothing_else_is_read(own_runs, path):
    with serving(own_runs[0]) as server:
        assert get(server, path)[0] == 404


def test_another_name_for_this_machine_is_refused(own_runs):
    with serving(own_runs[0]) as server:
        assert get(server, "/", Host="evil.example")[0] == 403
        assert get(server, "/", Host=f"localhost:{server.server_address[1]}")[0] == 200


def test_other_addresses_need_the_token(own_runs):
    with serving(own_runs[0], host="0.0.0.0") as server:
        assert len(server.token) > 16 and server.token in server.address
        assert get(server, "/")[0] == 403
        assert get(server, "/?token=wrong")[0] == 403
        status, headers, _ = get(server, f"/run?{at(own_runs[0])}&token={server.token}")
        assert status == 303 and headers["Location"] == f"/run?{at(own_runs[0])}"
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert get(server, "/", Cookie=cookie)[0] == 200
        assert get(server, "/", Cookie="marco_token=wrong")[0] == 403
        assert "HttpOnly" in headers["Set-Cookie"]


def test_a_given_token_is_needed_on_this_machine_too(own_runs):
    with serving(own_runs[0], token="secret") as server:
        assert get(server, "/")[0] == 403 and get(server, "/?token=secret")[0] == 303


def test_runs_in_an_object_store(runs, tmp_path):
    from marco_jax.files import as_path, upload_tree
    from tests.store_server import find_server, store_server

    pytest.importorskip("gcsfs")
    with store_server("gs", tmp_path) as store, find_server(store):
        upload_tree(runs[0], as_path(f"{store.root}/runs/first"), "metrics.jsonl")
        with serving(f"{store.root}/runs") as server:
            assert server.runs.names() == [f"{store.root}/runs/first"]
            status, _, page = get(server, f"/run?{at(server.runs.names()[0])}")
            assert status == 200 and "Training loss by source" in page


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(NotADirectoryError, match="absent is not a directory: give the workdir"):
        WatchedRuns([str(tmp_path / "absent")])


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"--port={port} cannot be bound: Address already in use"):
            ReportServer([str(tmp_path)], port=port)


def test_the_command_serves_until_it_is_interrupted(own_runs):
    assert create_parser().parse_args(["report", "--serve", "a", "b"]).host == "127.0.0.1"
    # Below a script's background job a process would ignore interrupts.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from marco_jax.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "report", "--serve", str(own_runs[0]), "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        line = process.stdout.readline()
        assert re.match(r"1 runs at http://127\.0\.0\.1:\d+/ \(Ctrl\+C ends\)", line)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def until(page, condition):
    """Waits without wait_for_function, which the page's security policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)


def test_a_live_page_shows_new_steps_and_keeps_the_choices(browser, own_runs):
    with serving(own_runs[0], every=0.5) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(f"{server.address}run?{at(own_runs[0])}")
        until(page, DRAWN)
        page.locator("select[name=x]").select_option("tokens")
        page.get_by_role("button", name="Logarithmic axis of Norm of the gradient").click()
        with (own_runs[0] / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 81, "loss": 1.0, "tokens": 8100}) + "\n")
        write_results(own_runs[0] / "eval" / "81.json", results(81, 0.5))
        page.get_by_text("81 of 80").wait_for()
        until(page, DRAWN)
        assert page.evaluate("document.querySelector('#loss .xtitle').textContent") == "tokens"
        button = page.get_by_role("button", name="Logarithmic axis of Norm of the gradient")
        assert button.get_attribute("aria-pressed") == "true"
        assert "live, looked at" in page.locator(".live").text_content()
        context.close()
    assert not errors


@pytest.mark.parametrize("width", [1280, 400])
def test_runs_are_chosen_in_the_list_and_compared(browser, own_runs, width):
    with serving(*own_runs) as server:
        context = browser.new_context(viewport={"width": width, "height": 900})
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(server.address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == []
        for run in own_runs:
            page.get_by_label(f"Compare {run}").check()
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("heading", name="Runs side by side").wait_for()
        until(page, DRAWN)
        context.close()
    assert not errors
