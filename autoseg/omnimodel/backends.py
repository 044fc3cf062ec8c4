"""The interface of a service, and its errors."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """picture: an encoded image file, None if there is none. text: of the answer. refused: by the service's policy."""

    picture: bytes | None
    text: str = ""
    refused: bool = False


class Backend(Protocol):
    """A service. name: value of --send-images-to. model: its full name. endpoint: "" for the service's own address."""

    name: str
    model: str
    endpoint: str

    def ask(self, picture: bytes, prompt: str) -> Answer:
        """Send one request. picture: PNG. Raises TransientError, PermanentError; AutosegError if no request can succeed."""


class TransientError(Exception):
    """A retry may work: overload, time-out, lost connection. wait: seconds requested by the service, or 0."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class PermanentError(Exception):
    """A retry of this request will not work; other requests may."""


TRANSIENT_CODES = (408, 409, 425, 429, 500, 502, 503, 504, 529)
ACCESS_CODES = (401, 403)
REDIRECTED = (
    "the service redirects to another address, which is not followed: it would get the key and the image (check --endpoint)"
)


def is_redirect(code: int) -> bool:
    """Whether a status code asks to send the request elsewhere."""
    return 300 <= code < 400


def transport_errors() -> tuple[type[Exception], ...]:
    """Network errors that the services' packages do not wrap: those of httpx or its successor."""
    errors: list[type[Exception]] = [ConnectionError, TimeoutError]
    for name in ("httpx", "httpx2"):
        try:
            errors.append(importlib.import_module(name).HTTPError)
        except ImportError:
            continue
    return tuple(errors)


def retry_after(headers: object) -> float:
    """Seconds of the Retry-After header; 0 if it is missing or a date."""
    get = getattr(headers, "get", None)
    text = str(get("retry-after") or "") if get is not None else ""
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0
