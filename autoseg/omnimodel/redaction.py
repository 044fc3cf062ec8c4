"""Keeps keys out of everything that services say: error texts repeat them, and these reach the screen and files."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote

_MASK = "[key]"
# Shorter parts of a key are ordinary words; a longer part, such as one that a service cut off, is a secret too.
_PART = 8


class Redactor:
    """Replaces keys in texts, also URL-encoded, in base64, in other letter case, and in parts of eight characters or more."""

    def __init__(self, keys: Iterable[str]) -> None:
        forms = {form for key in keys if key for form in _forms(key)}
        self._whole = tuple(form.encode() for form in forms)
        # Folded letter by letter: positions must stay.
        lowered = [form.lower() for form in forms]
        self._parts = {form[start : start + _PART] for form in lowered for start in range(max(1, len(form) - _PART + 1))}

    def text(self, text: str) -> str:
        """The text with "[key]" in place of each key and each part of one."""
        lowered = "".join(letter.lower()[0] for letter in text)
        hidden = [False] * len(text)
        for part in self._parts:
            start = lowered.find(part)
            while start >= 0:
                hidden[start : start + len(part)] = [True] * len(part)
                start = lowered.find(part, start + 1)
        pieces = []
        for place, letter in enumerate(text):
            if not hidden[place]:
                pieces.append(letter)
            elif not (place and hidden[place - 1]):
                pieces.append(_MASK)
        return "".join(pieces)

    def is_in(self, data: bytes) -> bool:
        """Whether a file holds a whole key."""
        return any(form in data for form in self._whole)


def _forms(key: str) -> set[str]:
    encoded = key.encode("utf-8", "surrogateescape")
    # Base64 of three positions within a longer text, without the letters that depend on the neighbours.
    shifted = {base64.b64encode(b"\0" * shift + encoded).decode()[shift and shift + 1 :].rstrip("=")[:-1] for shift in range(3)}
    return {key, quote(key, safe=""), *(one for one in shifted if len(one) >= _PART)}
