"""Client for image services: cache, rate limit, retries with growing pauses, and a stop after repeated failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.omnimodel.backends import Answer, Backend, PermanentError, TransientError
from autoseg.omnimodel.redaction import Redactor
from autoseg.schema.omnimodel import CachedAnswer
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, hash_text, read_artefact, write_artefact

logger = logging.getLogger(__name__)

# Stop after this many consecutive questions without an answer: the service is down.
_MAX_UNANSWERED = 5
_MAX_PAUSE = 60.0
_LONGEST_ERROR, _LONGEST_ANSWER, _MOST_READ = 200, 500, 20_000


@dataclass(frozen=True)
class RetryPolicy:
    """rate: requests a minute, 0 for no limit. attempts: requests of one question. pause: seconds after the first failure;
    doubled after each further failure."""

    rate: float = 10.0
    attempts: int = 4
    pause: float = 2.0


@dataclass(frozen=True)
class Reply:
    """failure: why there is no answer. cached: nothing was sent. tries: requests."""

    answer: Answer | None
    failure: str = ""
    cached: bool = False
    tries: int = 0


class Cache:
    """A folder of answers, by service, model, image hash and prompt. Contains no key and no image that was sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, backend: Backend, image: str, prompt: str) -> str:
        """image: hash of the picture that would be sent."""
        return hash_text(backend.name, backend.endpoint, backend.model, image, prompt)

    def get(self, key: str) -> Answer | None:
        """The cached answer, which may be a refusal; None if missing or damaged."""
        path = self.folder / f"{key}.json"
        try:
            cached = read_artefact(path, CachedAnswer)
            picture = (self.folder / f"{key}.bin").read_bytes() if cached.picture else None
        except (OSError, AutosegError):
            return None
        return Answer(picture, cached.text, cached.refused)

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer: first the picture, then the text that refers to it."""
        if answer.picture is not None:
            with atomic_write(self.folder / f"{key}.bin") as temporary:
                temporary.write_bytes(answer.picture)
        write_artefact(self.folder / f"{key}.json", CachedAnswer(answer.picture is not None, answer.text, answer.refused))


class Client:
    """Asks a backend, one question at a time."""

    def __init__(
        self,
        backend: Backend,
        cache: Cache,
        retry_policy: RetryPolicy | None = None,
        again: bool = False,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        keys: Sequence[str] = (),
    ) -> None:
        """again: send the question again if the cached answer has no picture. keys: never to be shown or written."""
        self.backend = backend
        self.cache = cache
        self.retry_policy = retry_policy or RetryPolicy()
        self._again = again
        self._redactor = Redactor(keys)
        self._sleep, self._clock = sleep or time.sleep, clock
        self._next = 0.0
        self._unanswered = 0

    def cached_answer(self, image: str, prompt: str) -> Answer | None:
        """The cached answer, or None if a request is needed."""
        answer = self.cache.get(self.cache.key(self.backend, image, prompt))
        if answer is None or (answer.picture is None and self._again):
            return None
        return self._redacted(answer)

    def ask(self, picture: bytes, image: str, prompt: str) -> Reply:
        """picture: PNG; image: its hash. Raises AutosegError if the service cannot be used at all."""
        answer = self.cached_answer(image, prompt)
        if answer is not None:
            return Reply(answer, cached=True)
        if self._unanswered >= _MAX_UNANSWERED:
            return Reply(None, f"not asked: {self._unanswered} questions in a row got no answer")
        failure = ""
        for attempt in range(self.retry_policy.attempts):
            self._wait_for_turn()
            try:
                answer = self._ask_backend(picture, prompt)
            except TransientError as error:
                failure = str(error)
                pause = max(error.wait, min(self.retry_policy.pause * 2**attempt, _MAX_PAUSE))
                if attempt + 1 < self.retry_policy.attempts:
                    logger.info(f"{self.backend.name}: {failure}; trying again in {pause:.0f} s")
                    self._sleep(pause)
                continue
            except PermanentError as error:
                return Reply(None, str(error), tries=attempt + 1)
            self._unanswered = 0
            self.cache.put(self.cache.key(self.backend, image, prompt), answer)
            return Reply(answer, tries=attempt + 1)
        self._unanswered += 1
        return Reply(None, f"no answer in {self.retry_policy.attempts} tries: {failure}", tries=self.retry_policy.attempts)

    def _ask_backend(self, picture: bytes, prompt: str) -> Answer:
        """The backend's answer or error without keys. The only place where texts of services come in.

        Errors lose their cause, because tracebacks show it.
        """
        try:
            return self._redacted(self.backend.ask(picture, prompt))
        except TransientError as error:
            raise TransientError(self._short(str(error)), error.wait) from None
        except PermanentError as error:
            raise PermanentError(self._short(str(error))) from None
        except AutosegError as error:
            raise AutosegError(self._short(error.problem), error.remedy) from None
        except Exception as error:
            problem = f"{self.backend.name} failed: {type(error).__name__}: {self._short(str(error))}"
            raise AutosegError(problem, "report it as a fault of autoseg") from None

    def _redacted(self, answer: Answer) -> Answer:
        if answer.picture is not None and self._redactor.is_in(answer.picture):
            raise PermanentError("the answer's picture repeats the key, so it is not kept")
        return replace(answer, text=self._redactor.text(answer.text[:_MOST_READ])[:_LONGEST_ANSWER])

    def _short(self, text: str) -> str:
        # Redacted before it is cut: a key at the end would no longer be recognised.
        return self._redactor.text(text[:_MOST_READ])[:_LONGEST_ERROR]

    def _wait_for_turn(self) -> None:
        if self.retry_policy.rate <= 0:
            return
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + 60 / self.retry_policy.rate


def check_consent(backend: str, named: str | None) -> None:
    """Raises AutosegError unless the caller named exactly this service."""
    if named != backend:
        other = f" (it names {named})" if named else ""
        raise AutosegError(
            f"images would be sent to {backend}, but the call does not allow it{other}",
            f"--send-images-to {backend}, if the patients' consent and your rules allow it",
        )
