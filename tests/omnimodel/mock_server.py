"""A local server with the APIs of both services. It can fail in all the ways they fail."""

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
    """script: behaviour for the next requests, in order; the last one repeats. requests: the received requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: list[str] = ["mask"]
        self.requests: list[dict[str, Any]] = []

    def next(self) -> str:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def draw_answer(image: np.ndarray, behaviour: str) -> np.ndarray:
    """The picture that a model draws in the given style. The object is the bright part of the image."""
    mask = image.mean(axis=2) > 128
    white = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    if behaviour == "inverted":
        return 255 - white
    if behaviour == "coloured":
        return np.where(mask[..., None], np.array([220, 30, 40], np.uint8), np.array([20, 20, 90], np.uint8))
    if behaviour == "overlay":
        return np.where(mask[..., None], np.array([0, 255, 0], np.uint8), image)
    if behaviour == "echo":
        return image
    if behaviour == "resized":
        return np.asarray(Pillow.fromarray(white).resize((160, 128)))
    return white


class _Handler(BaseHTTPRequestHandler):
    server_: Server

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server, behaviour = self.server_, self.server_.next()
        google = "generateContent" in self.path
        image, prompt = _parse_request(body, self.headers, google)
        key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        server.requests.append({"path": self.path, "prompt": prompt, "image": image, "key": key, "how": behaviour})
        if behaviour.isdigit():
            error = {"code": int(behaviour), "message": f"made to fail with {key[:0]}", "status": "UNAVAILABLE"}
            return self._send(int(behaviour), {"error": error})
        if behaviour == "slow":
            threading.Event().wait(1.5)
        if behaviour == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            return self.connection.close()
        if behaviour == "nonsense":
            return self._send(200, [1, 2, 3])
        self._send(*(_google if google else _edit)(image, behaviour))

    def _send(self, code: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _parse_request(body: bytes, headers: Any, google: bool) -> tuple[bytes, str]:
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


def _google(image: bytes, behaviour: str) -> tuple[int, Any]:
    if behaviour == "blocked":
        return 200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    if behaviour == "refused":
        return 200, {"candidates": [{"finishReason": "IMAGE_SAFETY"}]}
    if behaviour == "text":
        return 200, {"candidates": [{"content": {"parts": [{"text": "I see a polyp."}]}, "finishReason": "STOP"}]}
    if behaviour == "empty":
        return 200, {"candidates": []}
    data = b"no picture" if behaviour == "garbage" else png(draw_answer(_array(image), behaviour))
    encoded = base64.b64encode(data).decode()
    if behaviour == "markdown":
        return 200, {"candidates": [{"content": {"parts": [{"text": f"![m](data:image/png;base64,{encoded})"}]}}]}
    part = {"inlineData": {"mimeType": "image/png", "data": encoded}}
    return 200, {"candidates": [{"content": {"parts": [{"text": "Here it is."}, part]}, "finishReason": "STOP"}]}


def _edit(image: bytes, behaviour: str) -> tuple[int, Any]:
    if behaviour == "refused":
        return 400, {"error": {"code": "moderation_blocked", "message": "not allowed", "type": "image_generation_user_error"}}
    if behaviour == "text":
        return 200, {"created": 1, "data": []}
    if behaviour == "link":
        return 200, {"created": 1, "data": [{"url": "http://elsewhere.invalid/mask.png"}]}
    data = b"no picture" if behaviour == "garbage" else png(draw_answer(_array(image), behaviour))
    return 200, {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}


@contextmanager
def running() -> Iterator[Server]:
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    handler.server_ = server
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
