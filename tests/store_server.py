"""An object-store server on this machine for the tests: `python -m tests.store_server gs --port=N`.

For gs:// it is gcp-storage-emulator, for s3:// moto; both by others, so that they do not share our
mistakes. Between them and the client it counts requests and bytes, answers every n-th request with
503, and drops all connections for a while when told to. To Google's it adds two things that the
emulator lacks and the real service has: the precondition "no such object yet", and the generation
of an object beside its bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

BUCKET = "bucket"
CONTROL = "/_control"


class Faults:
    """What is counted, and which requests fail."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: dict[str, int] = {}
        self.received = self.sent = self.failed = self.every = self._count = 0
        self.down_until = 0.0

    def fails(self, method: str) -> bool:
        """Counts a request; whether it must be answered with an error."""
        with self._lock:
            self.requests[method] = self.requests.get(method, 0) + 1
            self._count += 1
            bad = bool(self.every) and self._count % self.every == 0
            self.failed += bad
            return bad

    @property
    def is_down(self) -> bool:
        """Whether connections are dropped now."""
        return time.monotonic() < self.down_until

    def control(self, query: str) -> bytes:
        """Carries out `every=N` or `down=SECONDS`, or starts counting with `reset`; the counts."""
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if "every" in asked:
            self.every = int(asked["every"])
        if "down" in asked:
            self.down_until = time.monotonic() + float(asked["down"])
        counts = {
            "requests": sum(self.requests.values()),
            "by_method": self.requests,
            "received": self.received,
            "sent": self.sent,
            "failed": self.failed,
        }
        answer = json.dumps(counts).encode()
        if "reset" in asked:
            self.requests, self.received, self.sent, self.failed = {}, 0, 0, 0
        return answer


def _google(port: int, directory: pathlib.Path, faults: Faults) -> None:
    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler, Router
    from gcp_storage_emulator.storage import Storage

    one_at_a_time = threading.Lock()

    class Handler(RequestHandler):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("do_"):
                return functools.partial(self.answer, name.removeprefix("do_"))
            return super().__getattribute__(name)

        def answer(self, method: str) -> None:
            url = urllib.parse.urlsplit(self.path)
            if url.path == CONTROL:
                self._reply(200, faults.control(url.query))
            elif faults.is_down:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif faults.fails(method):
                self._reply(503, b"try later")
            else:
                self._handle(method, url)

        def _handle(self, method: str, url: urllib.parse.SplitResult) -> None:
            query = dict(urllib.parse.parse_qsl(url.query))
            length = int(self.headers.get("Content-Length") or 0)
            faults.received += length
            written = self.wfile.write

            def write(data: bytes) -> int:
                faults.sent += len(data)
                return written(data)

            self.wfile.write = write
            with one_at_a_time:
                body = self.rfile.read(length)
                self.rfile = io.BytesIO(body)
                wanted = query.get("ifGenerationMatch")
                if wanted is not None:
                    # Of an upload in several parts the first one names the object.
                    name = query.get("name") or json.loads(re.search(rb"{.*?}", body)[0])["name"]
                    if self._generation(name) != wanted:
                        self._reply(412, b"conditionNotMet")
                        return
                found = re.fullmatch(r"(/download)?/storage/v1/b/[^/]+/o/([^/]+)", url.path)
                self.generation = self._generation(urllib.parse.unquote(found[2])) if found else ""
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    Router(self).handle(method)

        def _generation(self, name: str) -> str:
            """The generation of an object; "0" where there is none."""
            return self.storage.objects.get(BUCKET, {}).get(name, {}).get("generation", "0")

        def send_response(self, *arguments: Any) -> None:
            super().send_response(*arguments)
            if getattr(self, "generation", "0") not in ("", "0"):
                self.send_header("x-goog-generation", self.generation)

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Quiet(http.server.ThreadingHTTPServer):
        request_queue_size = 256

        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are no news."""

    storage = Storage(use_memory_fs=False, data_dir=str(directory))
    buckets.create_bucket(BUCKET, storage)
    Quiet(("127.0.0.1", port), functools.partial(Handler, storage)).serve_forever()


def _amazon(port: int, faults: Faults) -> None:
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    backend = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: Any) -> Any:
        if environ["PATH_INFO"] == CONTROL:
            start("200 OK", [("Content-Type", "application/json")])
            return [faults.control(environ["QUERY_STRING"])]
        if faults.is_down:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        faults.received += int(environ.get("CONTENT_LENGTH") or 0)
        if faults.fails(environ["REQUEST_METHOD"]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "text/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>try later</Message></Error>"]
        body = list(backend(environ, start))
        faults.sent += sum(map(len, body))
        return body

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            """No line for each request."""

    def create_bucket() -> None:
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        client.create_bucket(Bucket=BUCKET)

    threading.Timer(0.5, create_bucket).start()
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=Quiet)


class StoreServer:
    """A server that runs in a process of its own."""

    def __init__(self, scheme: str, port: int) -> None:
        self.scheme, self.address = scheme, f"http://127.0.0.1:{port}"
        self.root = f"{scheme}://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which every library finds the server."""
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": self.address}
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def control(self, query: str = "") -> dict[str, Any]:
        """See `Faults.control`."""
        with urllib.request.urlopen(f"{self.address}{CONTROL}?{query}", timeout=10) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def store_server(scheme: str, directory: pathlib.Path) -> Iterator[StoreServer]:
    """Starts a server of "gs" or "s3" objects, with the bucket `BUCKET`; stops it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = StoreServer(scheme, port)
    command = [sys.executable, "-m", __name__, scheme, f"--port={port}", f"--dir={directory}"]
    environment = {**os.environ, **server.environment}
    root = pathlib.Path(__file__).resolve().parent.parent
    process = subprocess.Popen(command, env=environment, cwd=root)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                server.control()
                break
            assert process.poll() is None, "the server has stopped"
            time.sleep(0.1)
        # The bucket of moto is made by way of the server itself.
        time.sleep(1.0 if scheme == "s3" else 0.0)
        server.control("reset")
        yield server
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def find_server(server: StoreServer) -> Iterator[None]:
    """Lets the libraries of this process find a server, as its environment lets those of others."""
    from marco_jax.stores.connect import configure, file_system

    cached = (configure, file_system)
    before = dict(os.environ)
    os.environ.update(server.environment)
    for function in cached:
        function.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        for function in cached:
            function.cache_clear()


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheme", choices=("gs", "s3"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if arguments.scheme == "gs":
        _google(arguments.port, arguments.dir, Faults())
    else:
        _amazon(arguments.port, Faults())


if __name__ == "__main__":
    main()
