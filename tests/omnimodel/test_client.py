from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.omnimodel.backends import Answer, PermanentError, TransientError
from autoseg.omnimodel.client import Cache, Client, RetryPolicy, check_consent
from autoseg.support.errors import AutosegError


class Scripted:
    name, model, endpoint = "scripted", "one", ""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script, self.asked = list(script), 0

    def ask(self, picture: bytes, prompt: str) -> Answer:
        self.asked += 1
        what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(what, Exception):
            raise what
        return what


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def client(folder: Path, backend: Scripted, clock: Clock, **retry_policy: float) -> Client:
    return Client(backend, Cache(folder), RetryPolicy(**{"rate": 0, "attempts": 3, **retry_policy}), False, clock.sleep, clock)


def test_the_rate_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    one = client(tmp_path, Scripted(Answer(b"x")), clock, rate=30)
    for index in range(4):
        one.ask(b"", f"image {index}", "draw")
    assert clock.slept == [2.0, 2.0, 2.0]


def test_a_service_that_says_how_long_to_wait_is_believed(tmp_path: Path) -> None:
    clock = Clock()
    one = client(tmp_path, Scripted(TransientError("busy", 17.0), Answer(b"x")), clock)
    assert one.ask(b"", "image", "draw").tries == 2
    assert clock.slept == [17.0]


def test_a_service_that_is_down_is_not_asked_for_ever(tmp_path: Path) -> None:
    backend = Scripted(TransientError("down"))
    one = client(tmp_path, backend, Clock())
    failures = [one.ask(b"", f"image {index}", "draw").failure for index in range(20)]
    assert backend.asked == 5 * 3
    assert failures[0].startswith("no answer in 3 tries") and failures[-1].startswith("not asked")


def test_what_will_not_work_is_tried_once(tmp_path: Path) -> None:
    backend = Scripted(PermanentError("no"), Answer(b"x"))
    one = client(tmp_path, backend, Clock())
    assert one.ask(b"", "image", "draw").failure == "no"
    assert one.ask(b"", "image", "draw").answer == Answer(b"x")


def test_cached_by_image_prompt_and_model(tmp_path: Path) -> None:
    backend = Scripted(Answer(b"x", "said"))
    one = client(tmp_path, backend, Clock())
    one.ask(b"", "image", "draw")
    assert one.ask(b"", "image", "draw").cached
    assert backend.asked == 1
    one.ask(b"", "image", "draw it")
    one.ask(b"", "other", "draw")
    backend.model = "two"
    one.ask(b"", "image", "draw")
    assert backend.asked == 4


def test_a_damaged_cache_is_asked_again(tmp_path: Path) -> None:
    backend = Scripted(Answer(b"x"))
    one = client(tmp_path, backend, Clock())
    one.ask(b"", "image", "draw")
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    assert not one.ask(b"", "image", "draw").cached


def test_consent_names_the_very_service() -> None:
    check_consent("gemini", "gemini")
    for named in (None, "", "image_edit"):
        with pytest.raises(AutosegError, match="--send-images-to gemini"):
            check_consent("gemini", named)
