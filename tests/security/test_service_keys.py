"""A hostile service gets the key, but cannot have it written, shown, or sent to another server."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from autoseg.cli import predict
from autoseg.omnimodel import client as client_module
from autoseg.omnimodel.backends import Answer
from autoseg.omnimodel.client import Cache, Client
from autoseg.omnimodel.redaction import Redactor
from autoseg.support.errors import AutosegError
from tests.omnimodel import mock_server
from tests.omnimodel.conftest import polyps
from tests.omnimodel.mock_server import Server

__all__ = ["polyps"]
pytest.importorskip("google.genai")
pytest.importorskip("openai")
KEY = "sk-Proj+7f3/Nq0Zx9LmT2vB8wYc4dKeRgHs6"
# The key, its beginning or its end, in all forms that appear in the answers below.
TRACES = (KEY, KEY[:12], KEY[-12:], quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()[:20], KEY.lower(), KEY.upper())


class _Hostile(mock_server._Handler):
    """Answers that hold the key, and redirects. how: by the server's script."""

    def do_POST(self) -> None:  # noqa: N802 (the name of the base class)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server, how = self.server_, self.server_.next()
        google = "generateContent" in self.path
        key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        server.requests.append({"path": self.path, "key": key, "body": body, "how": how})
        kind, _, detail = how.partition(" ")
        if kind == "redirect":
            code, target = detail.split(" ")
            self.send_response(int(code))
            self.send_header("Location", target + self.path)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        forms = {
            "plain": key, "encoded": quote(key, safe=""), "base64": base64.b64encode(f"key={key}".encode()).decode(),
            "lower": key.lower(), "cut": key[:20], "late": "x" * 170 + key, "twice": f"{key}{key}",
            "header": f"Authorization: Bearer {key}",
        }  # fmt: skip
        if kind == "error":
            code, form = detail.split(" ")
            message = f"bad request: {forms[form]}"
            return self._send(int(code), {"error": {"code": int(code), "message": message, "status": message, "type": message}})
        if kind == "text":
            message = f"I got {forms[detail]}"
            content = [{"content": {"parts": [{"text": message}]}, "finishReason": "STOP"}]
            data = [{"revised_prompt": message}]
            return self._send(200, {"candidates": content} if google else {"created": 1, "data": data})
        assert kind == "picture"
        picture = base64.b64encode(mock_server.png(__import__("numpy").zeros((4, 4), "uint8")) + key.encode()).decode()
        part = {"inlineData": {"mimeType": "image/png", "data": picture}}
        google_answer = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
        return self._send(200, google_answer if google else {"created": 1, "data": [{"b64_json": picture}]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(client_module.time, "sleep", lambda _: None)
    monkeypatch.setattr(mock_server, "_Handler", _Hostile)
    with mock_server.running() as running:
        yield running


def ask(root: Path, url: str, reader: str, *more: str) -> int:
    endpoint = url if reader == "gemini" else f"{url}/v1"
    image, out = root.parent / "images" / "polyp_0.png", root.parent / "out"
    arguments = ["-i", str(image), "-o", str(out), "-d", "Polyps", "-m", reader]
    arguments += ["--root", str(root), "--endpoint", endpoint, "--rate", "0", "--yes", "--send-images-to", reader]
    return predict.main([*arguments, "--omnimodel", "painter-1", "--attempts", "2", *more])


def expect_no_trace(folder: Path, printed: str) -> None:
    assert not [trace for trace in TRACES if trace in printed], printed
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [trace for trace in TRACES if trace.encode() in content], path


FORMS = ("plain", "encoded", "base64", "lower", "cut", "late", "twice", "header")


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
def test_no_answer_brings_the_key_to_the_screen_or_into_a_file(
    polyps: Path, server: Server, reader: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scripts = [f"error 400 {form}" for form in FORMS] + [f"text {form}" for form in FORMS[::2]] + ["picture"]
    scripts[:0] = [f"error {code} plain" for code in (401, 403, 404, 408, 418, 429, 451, 500)]
    for script in scripts:
        server.script = [script]
        code = ask(polyps, server.url, reader, "--ask-again")
        assert code == (2 if script.startswith(("error 401", "error 403", "error 404")) else 1), script
        expect_no_trace(polyps.parent, "".join(capfd.readouterr()) + caplog.text)
        caplog.clear()
    assert {request["key"] for request in server.requests} == {KEY}, "the service must have got it"
    failed = json.loads((polyps.parent / "out" / "prediction.json").read_text())["failed"]
    assert "repeats the key" in next(iter(failed.values()))


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    polyps: Path, server: Server, reader: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with mock_server.running() as other:
        for target in (other.url, f"http://localhost:{other.url.rpartition(':')[2]}", server.url):
            server.requests.clear()
            server.script = [f"redirect {code} {target}"]
            assert ask(polyps, server.url, reader) == 1
            assert "redirects to another address" in capfd.readouterr().out
            assert not other.requests and len(server.requests) == 1, "sent once, and not again"


def test_answers_that_an_older_release_cached_are_redacted(tmp_path: Path) -> None:
    class Silent:
        name, model, endpoint = "silent", "one", ""

        def ask(self, picture: bytes, prompt: str) -> Answer:
            raise AssertionError("not asked")

    cache = Cache(tmp_path)
    cache.put(cache.key(Silent(), "image", "draw"), Answer(None, f"the key {KEY} is wrong"))
    answer = Client(Silent(), cache, keys=[KEY]).ask(b"", "image", "draw").answer
    assert answer is not None and answer.text == "the key [key] is wrong"


def test_errors_of_packages_show_no_key_in_their_traceback(tmp_path: Path) -> None:
    class Broken:
        name, model, endpoint = "broken", "one", ""

        def ask(self, picture: bytes, prompt: str) -> Answer:
            raise UnicodeEncodeError("ascii", f"Bearer {KEY}", 0, 1, f"cannot send Bearer {KEY}")

    with pytest.raises(AutosegError, match=r"UnicodeEncodeError") as caught:
        Client(Broken(), Cache(tmp_path), keys=[KEY]).ask(b"", "image", "draw")
    assert KEY not in str(caught.value) and KEY not in str(caught.getrepr(chain=True, style="short"))


@pytest.mark.parametrize("key", [f"{KEY} {KEY}", f"{KEY}\n{KEY}", f"{KEY}ü", f"\u201c{KEY}\u201d"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(
    polyps: Path, server: Server, key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", key)
    assert ask(polyps, server.url, "gemini") == 2
    expect_no_trace(polyps.parent, message := capfd.readouterr().err)
    assert "GEMINI_API_KEY" in message and not server.requests


@pytest.mark.parametrize("address", [
    "http://user:{key}@127.0.0.1:1", "http://127.0.0.1:1/?key={key}", "http://127.0.0.1:1/#{key}", "ftp://127.0.0.1", "file:///etc",
    "127.0.0.1:80", "http://[broken",
])  # fmt: skip
def test_addresses_hold_no_secret_and_are_addresses(
    polyps: Path, server: Server, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(polyps, address.format(key=KEY), "gemini") == 2
    expect_no_trace(polyps.parent, message := capfd.readouterr().err)
    assert "the endpoint" in message and not server.requests


def test_a_key_in_the_name_of_the_model_or_in_the_path_is_refused(
    polyps: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(polyps, f"{server.url}/{KEY}", "image_edit") == 2
    assert ask(polyps, server.url, "image_edit", "--omnimodel", KEY) == 2
    expect_no_trace(polyps.parent, message := capfd.readouterr().err)
    assert message.count("holds the key") == 2 and not server.requests


def redacted(text: str, *keys: str) -> Any:
    return Redactor(keys).text(text)


def test_what_is_redacted_and_what_is_not() -> None:
    assert redacted(f"a {KEY}, b", KEY) == "a [key], b"
    assert redacted(f"{KEY[:9]}... is short", KEY) == "[key]... is short"
    assert redacted("nothing to hide: sk-Proj", KEY) == "nothing to hide: sk-Proj", "seven letters are no secret"
    assert redacted("EMPTY is wrong", "EMPTY") == "[key] is wrong" and redacted("İstanbul", KEY) == "İstanbul"
    assert redacted("plain", "", "") == "plain" and redacted("", KEY) == ""
    for shift in range(4):
        assert "[key]" in redacted(base64.b64encode(b"x" * shift + KEY.encode() + b"yz").decode(), KEY)
