"""Serves the pages of runs that go on: they show what the runs have written since.

The server reads files and nothing else. On this machine's own address it answers everybody who can
reach that; on any other it wants a token, which its printed address has and a cookie keeps.
"""

from __future__ import annotations

import functools
import hmac
import http
import http.server
import ipaddress
import logging
import secrets
import socket
import urllib.parse
from collections.abc import Sequence

from marco_jax.reports.comparison_page import check_count, comparison_page, with_unique_names
from marco_jax.reports.page import PLOTLY, asset, render_page
from marco_jax.reports.run_data import RunData
from marco_jax.reports.run_page import run_page
from marco_jax.reports.summary import format_value, summary
from marco_jax.reports.watched_runs import WatchedRuns

_log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
_COOKIE = "marco_token"
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class ReportServer(http.server.ThreadingHTTPServer):
    """The server of some folders. `serve_forever` serves, `shutdown` from a thread ends it."""

    daemon_threads = True

    def __init__(
        self,
        folders: Sequence[str],
        host: str = LOCAL,
        port: int = 0,
        *,
        token: str = "",
        every: float = 5.0,
    ) -> None:
        """Binds the address.

        Args:
            folders: workdirs of runs, or folders of some; local or in object stores.
            host: the address to bind; on others than this machine's own a token is needed, which
                is made if none is given.
            port: 0 takes a free one.
            token: what a reader must have; empty: none on this machine's own address.
            every: seconds between two looks of a page.

        Raises:
            NotADirectoryError: there is no such folder.
            OSError: the address cannot be bound.
        """
        self.runs = WatchedRuns(folders)
        self.every = every
        self.is_local = _is_loopback(host)
        self.token = token or ("" if self.is_local else secrets.token_urlsafe(16))
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise OSError(
                f"--host={host} --port={port} cannot be bound: {error.strerror}"
            ) from None

    @property
    def address(self) -> str:
        """What a reader opens, with the token."""
        host, port = self.server_address[:2]
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = f"[{host}]" if ":" in str(host) else host
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who hangs up is not worth a traceback."""
        _log.debug("a request of %s has failed", client_address, exc_info=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReportServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if not self._is_expected_host():
            self._answer(http.HTTPStatus.FORBIDDEN, "this server answers to localhost")
        elif self.server.token and not self._has_token():
            self._take_token(url, query)
        else:
            try:
                self._page(url.path, query)
            except (OSError, ValueError) as error:
                self._answer(http.HTTPStatus.BAD_REQUEST, str(error))

    def _is_expected_host(self) -> bool:
        """A page of another site whose name was turned to this address must not read runs."""
        host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        return not self.server.is_local or _is_loopback(host)

    def _has_token(self) -> bool:
        cookies = self.headers.get("Cookie", "").split("; ")
        given = [c.partition("=")[2] for c in cookies if c.startswith(f"{_COOKIE}=")]
        return any(hmac.compare_digest(one.encode(), self.server.token.encode()) for one in given)

    def _take_token(self, url: urllib.parse.SplitResult, query: dict[str, list[str]]) -> None:
        """Turns the token of an address into a cookie, so that links need not have it."""
        given = query.pop("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            self._answer(
                http.HTTPStatus.FORBIDDEN, "open the address with the token that was printed"
            )
            return
        rest = urllib.parse.urlencode(query, doseq=True)
        self.send_response(http.HTTPStatus.SEE_OTHER)
        self.send_header("Location", url.path + (f"?{rest}" if rest else ""))
        cookie = f"{_COOKIE}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
        self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _page(self, path: str, query: dict[str, list[str]]) -> None:
        if path == f"/{PLOTLY}":
            self._answer(http.HTTPStatus.OK, asset(PLOTLY), "text/javascript", "max-age=86400")
            return
        known, asked = self.server.runs.names(), query.get("at", [])
        if unknown := [name for name in asked if name not in known]:
            self._answer(http.HTTPStatus.NOT_FOUND, f"{unknown[0]} is not a run of this server")
            return
        since = query.get("since", [""])[0]
        if path == "/":
            names, render = known, self._index
        elif path == "/run" and len(asked) == 1:
            names, render = asked, self._run
        elif path == "/compare":
            check_count(len(asked))
            names, render = asked, self._comparison
        else:
            self._answer(http.HTTPStatus.NOT_FOUND, "there is no such page")
            return
        if since and since == self.server.runs.versions(names):
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
            return
        page = self.server.runs.rendered(path, names, functools.partial(render, names))
        self._answer(http.HTTPStatus.OK, page, "text/html")

    def _live(self, version: str) -> dict[str, str | float]:
        return {"every": self.server.every, "version": version, "plotly": f"/{PLOTLY}"}

    def _found(self, names: Sequence[str]) -> list[RunData]:
        return [self.server.runs.run(name) for name in names]

    def _run(self, names: Sequence[str], version: str) -> str:
        return run_page(self._found(names)[0], self._live(version))

    def _comparison(self, names: Sequence[str], version: str) -> str:
        return comparison_page(with_unique_names(self._found(names)), self._live(version))

    def _index(self, names: Sequence[str], version: str) -> str:
        found = with_unique_names(self._found(names))
        rows = [_row(name, run) for name, run in zip(names, found, strict=True)]
        heads = list(dict.fromkeys(label for row in rows for label in row["values"]))
        return render_page(
            "runs.html.jinja", None, live=self._live(version), rows=rows, heads=heads
        )

    def _answer(
        self,
        status: http.HTTPStatus,
        text: str,
        kind: str = "text/plain",
        cache: str = "no-store",
    ) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in _SAFE.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", cache)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """A line for each request would hide what matters."""


def _row(name: str, run: RunData) -> dict[str, object]:
    """A run in the list: its step, its newest loss, and its headline metrics with their changes."""
    found = summary(run)
    loss = next((row["loss"] for row in reversed(run.metrics) if row.get("loss") is not None), None)
    values = {"loss": ("" if loss is None else f"{loss:.3f}", "")}
    for line in found["headlines"]:
        values[line["label"]] = format_value(line["values"][-1], line["style"])
    return {
        "at": urllib.parse.urlencode({"at": name}),
        "workdir": name,
        "name": run.name,
        "step": found["step"],
        "steps": found["steps"],
        "values": values,
    }
