"""JSON read piece by piece: a long list is never held as text, nor as plain lists and dicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any, TextIO

_MORE = 1 << 16  # characters
# A number whose end has not been read yet is valid up to its point or exponent.
_AHEAD = 8


def read_object(stream: TextIO, items: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The object that a stream of JSON text holds.

    items: field -> what is made of each item of its list, as soon as the item has been read; the field becomes a tuple. Raises
    ValueError where the text is anything else, without saying where: `json` does that, given the whole text.
    """
    text = _Text(stream)
    content: dict[str, Any] = {}
    text.take("{")
    while text.next() != "}":
        if content:
            text.take(",")
        if text.next() != '"':
            raise ValueError("a name is missing")
        name = text.value()
        text.take(":")
        content[name] = _listed(text, items[name]) if name in items and text.next() == "[" else text.value()
    text.take("}")
    if text.next():
        raise ValueError("there is more than one object")
    return content


def _listed(text: _Text, made: Callable[[Any], Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    text.take("[")
    while text.next() != "]":
        if found:
            text.take(",")
        found.append(made(text.value()))
    text.take("]")
    return tuple(found)


class _Text:
    """The part of a stream that is being looked at."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is not white space, which is not taken; "" at the end."""
        while True:
            self._at = WHITESPACE.match(self._held, self._at).end()
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        """The next character, which must be this one."""
        if self.next() != wanted:
            raise ValueError(f"{wanted!r} is missing")
        self._at += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.next()
        while True:
            try:
                found, end = self._decode(self._held, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if len(self._held) - end >= _AHEAD or not self._more():
                self._at = end
                return found

    def _more(self) -> bool:
        # As much again as is held, so that a long value is not begun too often.
        fresh = self._stream.read(max(_MORE, len(self._held) - self._at))
        if fresh:
            self._held, self._at = self._held[self._at :] + fresh, 0
        return bool(fresh)
