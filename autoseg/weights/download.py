"""One plain download: resumed where it broke off, never longer than announced, and only from where the user was told."""

from __future__ import annotations

import fcntl
import http.client
import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import autoseg
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.weights.connection import hosts, proxies, refused, unreachable, without_secrets

logger = logging.getLogger(__name__)

_BLOCK = 1 << 18
_TIMEOUT = 30.0
_TRIES, _PAUSE = 4, 1.0
_LARGEST = 32 << 30
_BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file to download. size: announced bytes, 0 if not known. sha256: announced, "" if not. revision: commit in its
    repository. token: sent to the host of `url` only."""

    url: str
    size: int = 0
    sha256: str = ""
    revision: str = ""
    token: str = ""


def download(remote: Remote, part: Path) -> None:
    """Write the file to `part`, from where an earlier download stopped. Raises AutosegError; what has arrived is kept."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AutosegError(f"{part} is being written by another process", "wait for it, or end it") from error
        for attempt in range(1, _TRIES + 1):
            try:
                with os_errors_as_autoseg_errors(part):
                    _receive(remote, stream, part)
                break
            except AutosegError:
                if not stream.seek(0, 2):
                    discard(part)
                raise
            except _BROKEN as error:
                stream.flush()
                done = f"after {stream.tell():,} bytes"
                if attempt == _TRIES:
                    broken = unreachable(remote.url, f"the connection broke off {done} ({error or type(error).__name__})")
                    raise AutosegError(broken.problem, f"the same command goes on from there; {broken.remedy}") from error
                logger.warning(f"the connection to {urlsplit(remote.url).hostname} broke off {done}: going on from there")
                time.sleep(_PAUSE)
    _mark(part).unlink(missing_ok=True)


def discard(part: Path) -> None:
    """Remove a download that is of no use."""
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def _mark(part: Path) -> Path:
    """Holds the server's mark of the version (ETag) while a download is not complete."""
    return part.with_name(f"{part.name}.etag")


def _receive(remote: Remote, stream: IO[bytes], part: Path) -> None:
    """One request for what is missing."""
    start = stream.seek(0, 2)
    mark = _mark(part).read_text(encoding="utf-8") if start and _mark(part).is_file() else ""
    if start and not mark:
        # Nothing says that the server still has the same file.
        start = stream.truncate(0)
    headers = {"User-Agent": f"autoseg/{autoseg.__version__}", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-", "If-Range": mark} if start else {}
    answer = _open(remote, headers)
    if answer is None:
        # Nothing lies beyond what has arrived: all of it, or parts of a file that was longer.
        if start != remote.size:
            stream.truncate(0)
            raise http.client.HTTPException("the server has another file by now")
        return
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT or not _starts_at(answer, start):
            start = stream.truncate(0)
        total = _total(answer, start)
        _check_announced(remote, total, part, start)
        etag = answer.headers.get("ETag", "")
        _mark(part).write_text("" if etag.startswith("W/") else etag, encoding="utf-8")
        limit = total or remote.size or _LARGEST
        for block in progress_bar(_blocks(answer), part.stem, math.ceil((limit - start) / _BLOCK) if total else None):
            stream.write(block)
            if stream.tell() > limit:
                raise AutosegError(f"{without_secrets(remote.url)} is longer than announced", "get it from elsewhere")
        if total and stream.tell() < total:
            raise http.client.IncompleteRead(b"", total - stream.tell())


def _open(remote: Remote, headers: dict[str, str]) -> Any:
    """The server's answer; None if it says that nothing lies beyond the part that was asked for."""
    _check_scheme(remote.url, remote.url)
    request = Request(remote.url, headers=headers)
    if remote.token:
        # Never sent to where the server redirects.
        request.add_unredirected_header("Authorization", f"Bearer {remote.token}")
    try:
        return build_opener(ProxyHandler(proxies()), _Redirects()).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            gated = error.headers.get("X-Error-Code") == "GatedRepo"
            raise refused(error.url or remote.url, error.code, gated) from error
    except URLError as error:
        if "Tunnel connection failed: 407" in str(error.reason):
            raise refused(remote.url, http.client.PROXY_AUTHENTICATION_REQUIRED) from error
        raise unreachable(remote.url, error.reason) from error


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to another kind."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _check_scheme(newurl, req.full_url)
        if urlsplit(newurl).hostname not in hosts(req.full_url):
            logger.info(f"{urlsplit(req.full_url).hostname} sends it from {urlsplit(newurl).hostname}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, before: str) -> None:
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    if scheme not in ("https", "http") or not host:
        raise AutosegError(f"{without_secrets(url)} is no address of a web server", "give one that begins with https://")
    if scheme == "http" and urlsplit(before).scheme == "https":
        raise AutosegError(
            f"{urlsplit(before).hostname} redirects to {without_secrets(url)}, which is not encrypted: not followed",
            "get the file from elsewhere",
        )


def _starts_at(answer: Any, start: int) -> bool:
    """Whether a partial answer is the part that was asked for."""
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _total(answer: Any, start: int) -> int:
    """Bytes of the whole file, 0 if the server does not say."""
    length = str(answer.headers.get("Content-Length", ""))
    return start + int(length) if length.isdigit() else 0


def _check_announced(remote: Remote, total: int, part: Path, start: int) -> None:
    if remote.size and total and total != remote.size:
        problem = f"{without_secrets(remote.url)} has {total:,} bytes, {remote.size:,} were expected"
        raise AutosegError(problem, "it is another file by now: get it from elsewhere")
    if total > _LARGEST:
        raise AutosegError(f"{without_secrets(remote.url)} has {total:,} bytes: too much for weights", "get it from elsewhere")
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise AutosegError(f"{total - start:,} bytes are missing of {part.stem}, {free:,} are free", "free some space")


def _blocks(answer: Any) -> Iterator[bytes]:
    while block := answer.read(_BLOCK):
        yield block
