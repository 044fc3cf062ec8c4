"""A server on this machine that speaks both services' interfaces, and fails in every way they do when told to."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import PIL.Image as Pillow

KEY = "key-that-nobody-may-see"


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


class Server:
    """script: what to do with the next requests, in order; the last one stays. requests: what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: list[str] = ["mask"]
        self.requests: list[dict[str, Any]] = []

    def next(self) -> str:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def drawn(image: np.ndarray, how: str) -> np.ndarray:
    """The picture an obedient or less obedient model draws: what is bright in the image is the object."""
    mask = image.mean(axis=2) > 128
    white = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    if how == "inverted":
        return 255 - white
    if how == "coloured":
        return np.where(mask[..., None], np.array([220, 30, 40], np.uint8), np.array([20, 20, 90], np.uint8))
    if how == "overlay":
        return np.where(mask[..., None], np.array([0, 255, 0], np.uint8), image)
    if how == "echo":
        return image
    if how == "resized":
        return np.asarray(Pillow.fromarray(white).resize((160, 128)))
    return white


class _Handler(BaseHTTPRequestHandler):
    server_: Server

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mine, how = self.server_, self.server_.next()
        google = "generateContent" in self.path
        image, prompt = _asked(body, self.headers, google)
        key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        mine.requests.append({"path": self.path, "prompt": prompt, "image": image, "key": key, "how": how})
        if how.isdigit():
            error = {"code": int(how), "message": f"made to fail with {key[:0]}", "status": "UNAVAILABLE"}
            return self._send(int(how), {"error": error})
        if how == "slow":
            threading.Event().wait(1.5)
        if how == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            return self.connection.close()
        if how == "nonsense":
            return self._send(200, [1, 2, 3])
        self._send(*(_google if google else _edit)(image, how))

    def _send(self, code: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _asked(body: bytes, headers: Any, google: bool) -> tuple[bytes, str]:
    if google:
        parts = json.loads(body)["contents"][0]["parts"]
        inline = next(part["inlineData"] for part in parts if "inlineData" in part)
        return base64.urlsafe_b64decode(inline["data"]), next(part["text"] for part in parts if "text" in part)
    boundary = b"--" + headers["Content-Type"].split("boundary=")[1].encode()
    fields = {}
    for piece in body.split(boundary)[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        fields[head.split(b'name="')[1].split(b'"')[0].decode()] = content[:-2]
    return fields["image"], fields["prompt"].decode()


def _array(image: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(image)).convert("RGB"))


def _google(image: bytes, how: str) -> tuple[int, Any]:
    if how == "blocked":
        return 200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    if how == "refused":
        return 200, {"candidates": [{"finishReason": "IMAGE_SAFETY"}]}
    if how == "text":
        return 200, {"candidates": [{"content": {"parts": [{"text": "I see a polyp."}]}, "finishReason": "STOP"}]}
    if how == "empty":
        return 200, {"candidates": []}
    data = b"no picture" if how == "garbage" else png(drawn(_array(image), how))
    encoded = base64.b64encode(data).decode()
    if how == "markdown":
        return 200, {"candidates": [{"content": {"parts": [{"text": f"![m](data:image/png;base64,{encoded})"}]}}]}
    part = {"inlineData": {"mimeType": "image/png", "data": encoded}}
    return 200, {"candidates": [{"content": {"parts": [{"text": "Here it is."}, part]}, "finishReason": "STOP"}]}


def _edit(image: bytes, how: str) -> tuple[int, Any]:
    if how == "refused":
        return 400, {"error": {"code": "moderation_blocked", "message": "not allowed", "type": "image_generation_user_error"}}
    if how == "text":
        return 200, {"created": 1, "data": []}
    if how == "link":
        return 200, {"created": 1, "data": [{"url": "http://elsewhere.invalid/mask.png"}]}
    data = b"no picture" if how == "garbage" else png(drawn(_array(image), how))
    return 200, {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}


@contextmanager
def running() -> Iterator[Server]:
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    mine = Server(f"http://127.0.0.1:{http.server_address[1]}")
    handler.server_ = mine
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
