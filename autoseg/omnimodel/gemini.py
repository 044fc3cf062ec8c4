"""Google's image models through google-genai."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from autoseg.omnimodel.backends import (
    ACCESS_CODES,
    REDIRECTED,
    TRANSIENT_CODES,
    Answer,
    PermanentError,
    TransientError,
    is_redirect,
    retry_after,
    transport_errors,
)
from autoseg.support.errors import AutosegError

# Successor of gemini-2.5-flash-image ("Nano Banana"), which the study used.
MODEL = "gemini-3.1-flash-image"
KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_INLINE = re.compile(r"data:image/[a-z.+-]+;base64,([A-Za-z0-9+/=\s]+)")
_REFUSALS = ("SAFETY", "PROHIBITED", "BLOCKLIST", "RECITATION", "SPII", "MODEL_ARMOR")


class Gemini:
    """One image and one prompt in, one image out, at temperature 0."""

    name = "gemini"

    def __init__(self, key: str, model: str = "", endpoint: str = "", timeout: float = 60.0) -> None:
        """endpoint: another address with the same API. timeout: seconds of one request."""
        try:
            from google import genai
            from google.genai import errors, types
        except ImportError as error:
            raise AutosegError("gemini needs the package google-genai", 'pip install "autoseg[omnimodel]"') from error
        self.model = model or MODEL
        self.endpoint = endpoint
        self._types, self._error = types, errors.APIError
        # No retries by the package: `Client` counts requests and pauses.
        no_retry = types.HttpRetryOptions(attempts=1)
        # A redirect would send the key and the image to a server that nobody named.
        options = types.HttpOptions(
            base_url=endpoint or None,
            timeout=round(timeout * 1000),
            retry_options=no_retry,
            client_args={"follow_redirects": False},
        )
        self._client = genai.Client(api_key=key, vertexai=False, http_options=options)

    def ask(self, picture: bytes, prompt: str) -> Answer:
        """See Backend."""
        types = self._types
        try:
            reply = self._client.models.generate_content(
                model=self.model,
                contents=[types.Part.from_bytes(data=picture, mime_type="image/png"), types.Part.from_text(text=prompt)],
                config=types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"], temperature=0),
            )
        except self._error as error:
            raise _to_error(error, self.model) from error
        except transport_errors() as error:
            raise TransientError(f"no answer: {type(error).__name__}") from error
        except ValueError as error:
            raise PermanentError("the answer cannot be read: it does not follow the API") from error
        return _to_answer(reply)


def _to_error(error: Any, model: str) -> Exception:
    code, status, message = int(error.code or 0), str(error.status or ""), str(error.message or "").strip()
    if code in ACCESS_CODES or "api key" in message.casefold():
        return AutosegError(f"gemini refuses the key ({code} {status})", f"put a valid key into {KEYS[0]}")
    if is_redirect(code):
        return PermanentError(REDIRECTED)
    if code == 404:
        return AutosegError(f"gemini knows no model {model!r}", "name another one with --omnimodel")
    if code in TRANSIENT_CODES:
        headers = getattr(getattr(error, "response", None), "headers", None)
        return TransientError(f"{code} {status}: {message}", retry_after(headers))
    return PermanentError(f"{code} {status}: {message}")


def _to_answer(reply: Any) -> Answer:
    blocked = getattr(getattr(reply, "prompt_feedback", None), "block_reason", None)
    if blocked:
        return Answer(None, f"blocked: {_enum_value(blocked)}", refused=True)
    candidates = reply.candidates or []
    if not candidates:
        return Answer(None, "the answer is empty")
    first = candidates[0]
    parts = (first.content.parts or []) if first.content else []
    text = " ".join(part.text.strip() for part in parts if part.text)
    for part in parts:
        if part.inline_data is not None and part.inline_data.data:
            return Answer(part.inline_data.data, text)
    embedded = _INLINE.search(text)
    if embedded:
        # Some models and gateways put the picture into the text.
        try:
            return Answer(base64.b64decode(embedded.group(1), validate=False), "")
        except binascii.Error as error:
            raise PermanentError("the picture within the answer's text is damaged") from error
    reason = _enum_value(first.finish_reason)
    refused = any(word in reason for word in _REFUSALS)
    return Answer(None, " ".join(filter(None, [reason if reason not in ("", "STOP") else "", text])), refused)


def _enum_value(value: Any) -> str:
    return str(getattr(value, "value", value) or "")
