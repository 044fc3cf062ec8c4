"""Serves the review page to the person who started it, and to nobody else.

Other users of the machine, and pages in the same browser, can reach its port. So every request needs the token of the
printed address and names the server by its own address: a page elsewhere whose name is made to lead here (DNS rebinding)
sends another Host, and its scripts another Origin. Uploads lie in a folder that only this user can read, until the end.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from autoseg.support.errors import AutosegError
from autoseg.support.workspace import set_or_remove_variable, variable

if TYPE_CHECKING:
    from types import TracebackType

LOCAL = "127.0.0.1"
_LOCAL_NAMES = (LOCAL, "localhost")
_FIRST_PORT, _PORTS, _LAST_PORT = 7860, 100, 65535
_CACHE_VARIABLE = "GRADIO_TEMP_DIR"
_SECONDS_TO_START, _SECONDS_BETWEEN_LOOKS = 60, 0.2
_PREFIX, _LOCK = "autoseg_review_", ".lock"
# The page loads nothing from elsewhere, and the token does not leave in a Referer.
_HEADERS = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'",
    ),
)
_REFUSED = "refused: open the whole address that autoseg_review printed"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware: passes only requests with the token, for one of `hosts` ("name:port"), from a page of that host."""

    def __init__(self, app: App, token: str, hosts: Iterable[str]) -> None:
        self._app, self._token, self._hosts = app, token.encode(), frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See https://asgi.readthedocs.io."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif self._is_allowed(scope):
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await _with_headers(send)(
                {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
            )
            await send({"type": "http.response.body", "body": _REFUSED.encode()})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_allowed(self, scope: Scope) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        return (
            secrets.compare_digest(first.encode(), self._token)
            and len(hosts) == 1
            and hosts[0] in self._hosts
            and all(origin in {f"http://{host}" for host in self._hosts} for origin in origins)
        )


def _with_headers(send: Send) -> Send:
    async def sent(message: Scope) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _HEADERS}
            message["headers"] = [*(pair for pair in message.get("headers", ()) if pair[0].lower() not in ours), *_HEADERS]
        await send(message)

    return sent


class ReviewServer:
    """A server for one page, in a `with` block. address: what to open, with the token.

    build: makes the page (gradio Blocks); it is called when the private cache is set up. host: another address or name of
    this machine, for other machines. port: None for the first free one from 7860. Raises AutosegError if it cannot be had.
    """

    def __init__(self, build: Callable[[], Any], host: str = LOCAL, port: int | None = None) -> None:
        if host in ("", "0.0.0.0", "::", "*"):
            raise AutosegError(
                f"--host {host!r} is every address of this machine, so no request could be checked", "give the one to use"
            )
        self._socket = _bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._host, self._token = host, secrets.token_urlsafe(32)
        self._cache = _PrivateFolder()
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._before = variable(_CACHE_VARIABLE)
        set_or_remove_variable(_CACHE_VARIABLE, self.cache)
        try:
            self._server = self._make_server(build())
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"http://{_bracketed(self._host)}:{self.port}/{self._token}/"

    @property
    def cache(self) -> str:
        """The private folder of uploads."""
        return self._cache.path

    def run(self, stop: threading.Event | None = None) -> None:
        """Serve until Ctrl-C, or until `stop` is set; then close."""
        stop = stop or threading.Event()
        try:
            with suppress(KeyboardInterrupt):
                self.start()
                while self._thread is not None and self._thread.is_alive() and not stop.is_set():
                    stop.wait(_SECONDS_BETWEEN_LOOKS)
        finally:
            self.close()

    def start(self) -> None:
        """Serve in a thread; returns when the page can be opened."""
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        pause = threading.Event()
        for _ in range(_SECONDS_TO_START * 20):
            if self._server.started:
                return
            pause.wait(0.05)
        raise AutosegError(f"the page did not start within {_SECONDS_TO_START} s", "try again")

    def close(self) -> None:
        """Stop serving and delete all uploads."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=_SECONDS_TO_START)
        self._socket.close()
        if variable(_CACHE_VARIABLE) == self.cache:
            set_or_remove_variable(_CACHE_VARIABLE, self._before)
        self._cache.remove()

    def __enter__(self) -> ReviewServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _make_server(self, page: Any) -> Any:
        import fastapi
        import gradio as gr
        import uvicorn

        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gr.mount_gradio_app(
            app, page, path=f"/{self._token}", server_name=self._host, server_port=self.port, ssr_mode=False, mcp_server=False,
            pwa=False, show_error=True, enable_monitoring=False, footer_links=[],
        )  # fmt: skip
        names = _LOCAL_NAMES if self._host in _LOCAL_NAMES else (self._host,)
        hosts = [f"{_bracketed(name).lower()}:{self.port}" for name in names]
        # No log of accesses, whose paths hold the token, nor of open connections that the end cuts off.
        config = uvicorn.Config(
            Guard(app, self._token, hosts),
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        return uvicorn.Server(config)


class _PrivateFolder:
    """A temporary folder that only this user can read. Those of killed servers are removed when the next one starts."""

    def __init__(self) -> None:
        _remove_stale_folders()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        # The system releases the lock when the process ends, however it ends.
        self._lock = (Path(self.path) / _LOCK).open("w")
        _try_lock(self._lock)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_stale_folders() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with lock.open("r+") as stream:
                if _try_lock(stream):
                    shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            continue  # Of another user.


def _try_lock(stream: IO[str]) -> bool:
    """Lock a file; False if another process has it. Windows, where open files cannot be deleted, needs no lock."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bind(host: str, port: int | None) -> socket.socket:
    """A socket that listens nowhere else. Raises AutosegError if no port is free, or the address is not this machine's."""
    if port is not None and not 0 <= port <= _LAST_PORT:
        raise AutosegError(f"port {port} cannot be used", f"ports are 1 to {_LAST_PORT}; 0 takes a free one")
    tried = [port] if port is not None else range(_FIRST_PORT, _FIRST_PORT + _PORTS)
    problem: OSError | None = None
    for number in tried:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise AutosegError(f"there is no address {host}: {error}", "give an address of this machine") from error
        try:
            bound.bind(address)
            bound.listen(128)
        except OSError as error:
            bound.close()
            problem = error
            continue
        return bound
    text = f"port {port}" if port is not None else f"no port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1}"
    raise AutosegError(f"{text} of {host} cannot be used: {problem}", "give another --port, or --host") from problem


def _bracketed(host: str) -> str:
    """IPv6 addresses are in brackets where a port follows."""
    return f"[{host}]" if ":" in host else host
