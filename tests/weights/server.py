"""A local server that speaks the hub's HTTP and plain HTTP, in all the ways that go wrong; and a local proxy."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40


@dataclass
class Server:
    """files: path -> content. requests: method, path and headers of each. connections: how many were opened.

    break_after: bytes of each answer, then the connection ends, for the next answers (the last one repeats; None: complete).
    length, sha256: lies about every file. status: answer to every request for a file. redirect_to: where files are redirected.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    break_after: list[int | None] = field(default_factory=lambda: [None])
    length: int | None = None
    sha256: str = ""
    status: int = 200
    error_code: str = ""
    redirect_to: str = ""
    etag: bool = True
    ranges: bool = True

    def next_break(self) -> int | None:
        return self.break_after.pop(0) if len(self.break_after) > 1 else self.break_after[0]

    def paths(self, method: str = "GET") -> list[str]:
        return [path for one, path, _ in self.requests if one == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        state = self.state
        self.requests_path = self.path.partition("?")[0]
        state.requests.append((self.command, self.path, dict(self.headers)))
        if state.status != 200:
            return self._end(state.status, {"X-Error-Code": state.error_code, "X-Error-Message": "no"})
        stored = self.requests_path.startswith("/stored/")
        if "/resolve/" in self.path and not stored:
            return self._hub()
        if state.redirect_to and not stored:
            return self._end(302, {"Location": f"{state.redirect_to}/stored{self.requests_path}"})
        content = state.files.get(self.requests_path.removeprefix("/stored"))
        if content is None:
            return self._end(404, {})
        self._send(content, body)

    def _hub(self) -> None:
        """The hub tells commit, size and hash, and redirects to where it stores the file."""
        repository, _, rest = self.requests_path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        content = self.state.files.get(f"/{repository}/{file}")
        if content is None:
            return self._end(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
        commit = revision if len(revision) == 40 else COMMIT
        sha256 = self.state.sha256 or hashlib.sha256(content).hexdigest()
        storage = self.state.redirect_to or self.state.url.replace("127.0.0.1", "localhost")
        self._end(
            302,
            {
                "X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "ETag": '"x"',
                "Location": f"{storage}/stored/{repository}/{file}?signature=secret",
            },
        )  # fmt: skip

    def _send(self, content: bytes, body: bool) -> None:
        state = self.state
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        wanted = self.headers.get("Range", "")
        if wanted and state.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._end(416, {"Content-Range": f"bytes */{len(content)}"})
        length = len(content) - start if state.length is None else state.length
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if body:
            stop = state.next_break()
            self.wfile.write(content[start:][: length if stop is None else stop])
            if stop is not None or state.length is not None:
                self.close_connection = True
        return None

    def _end(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serve(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """A running server. certificate: files of the certificate and its key, for HTTPS."""
    state = Server()

    class Counting(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            state.connections += 1
            return super().get_request()

        def handle_error(self, *_: Any) -> None:
            """Broken connections are meant to break."""

    server = Counting(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    with _running(server):
        yield state


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def proxy(target: str, login: bool = False) -> Iterator[tuple[str, list[str]]]:
    """A proxy through which every host is the server at `target` ("127.0.0.1:1234"); its address, and what was asked of it."""
    asked: list[str] = []
    host, _, port = target.rpartition("/")[2].rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Silence."""

        def do_CONNECT(self) -> None:
            asked.append(f"CONNECT {self.path}")
            if login:
                return self.send_error(407)
            with socket.create_connection((host, int(port))) as upstream:
                self.send_response(200)
                self.end_headers()
                _relay(self.connection, upstream)

        def do_GET(self) -> None:
            asked.append(f"GET {self.path}")
            if login:
                return self.send_error(407)
            path = "/" + self.path.split("/", 3)[3]
            with socket.create_connection((host, int(port))) as upstream:
                headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name != "Connection")
                upstream.sendall(f"{self.command} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                while block := upstream.recv(1 << 16):
                    self.connection.sendall(block)
            self.close_connection = True

        do_HEAD = do_GET  # noqa: N815 (the name http.server looks for)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _running(server):
        yield f"http://127.0.0.1:{server.server_port}", asked


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 5)[0]:
            block = ready.recv(1 << 16)
            if not block:
                return
            (other if ready is one else one).sendall(block)


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext",
            f"subjectAltName=DNS:{host},IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
