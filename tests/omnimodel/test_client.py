from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.omnimodel.backends import Answer, PermanentError, TransientError
from autoseg.omnimodel.client import Cache, Client, RetryPolicy, check_consent
from autoseg.support.errors import AutosegError


class Scripted:
    name, model, endpoint = "scripted", "one", ""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script, self.num_requests = list(script), 0

    def ask(self, picture: bytes, prompt: str) -> Answer:
        self.num_requests += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


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


def test_the_rate_limit_holds(tmp_path: Path) -> None:
    clock = Clock()
    service_client = client(tmp_path, Scripted(Answer(b"x")), clock, rate=30)
    for index in range(4):
        service_client.ask(b"", f"image {index}", "draw")
    assert clock.slept == [2.0, 2.0, 2.0]


def test_the_services_waiting_time_is_used(tmp_path: Path) -> None:
    clock = Clock()
    service_client = client(tmp_path, Scripted(TransientError("busy", 17.0), Answer(b"x")), clock)
    assert service_client.ask(b"", "image", "draw").tries == 2
    assert clock.slept == [17.0]


def test_requests_stop_if_the_service_is_down(tmp_path: Path) -> None:
    backend = Scripted(TransientError("down"))
    service_client = client(tmp_path, backend, Clock())
    failures = [service_client.ask(b"", f"image {index}", "draw").failure for index in range(20)]
    assert backend.num_requests == 5 * 3
    assert failures[0].startswith("no answer in 3 tries") and failures[-1].startswith("not asked")


def test_permanent_errors_are_not_retried(tmp_path: Path) -> None:
    backend = Scripted(PermanentError("no"), Answer(b"x"))
    service_client = client(tmp_path, backend, Clock())
    assert service_client.ask(b"", "image", "draw").failure == "no"
    assert service_client.ask(b"", "image", "draw").answer == Answer(b"x")


def test_answers_are_cached_by_image_prompt_and_model(tmp_path: Path) -> None:
    backend = Scripted(Answer(b"x", "some text"))
    service_client = client(tmp_path, backend, Clock())
    service_client.ask(b"", "image", "draw")
    assert service_client.ask(b"", "image", "draw").cached
    assert backend.num_requests == 1
    service_client.ask(b"", "image", "draw it")
    service_client.ask(b"", "other", "draw")
    backend.model = "two"
    service_client.ask(b"", "image", "draw")
    assert backend.num_requests == 4


def test_a_damaged_cache_file_causes_a_new_request(tmp_path: Path) -> None:
    backend = Scripted(Answer(b"x"))
    service_client = client(tmp_path, backend, Clock())
    service_client.ask(b"", "image", "draw")
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    assert not service_client.ask(b"", "image", "draw").cached


def test_consent_must_name_the_service() -> None:
    check_consent("gemini", "gemini")
    for named in (None, "", "image_edit"):
        with pytest.raises(AutosegError, match="--send-images-to gemini"):
            check_consent("gemini", named)
