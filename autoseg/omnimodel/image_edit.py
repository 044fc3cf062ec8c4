"""Any service with OpenAI's image-edit API, for example one in the hospital's own network."""

from __future__ import annotations

import base64
import binascii
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
)
from autoseg.support.errors import AutosegError

KEYS = ("AUTOSEG_IMAGE_EDIT_KEY", "OPENAI_API_KEY")
# These always send pictures inside the answer and reject the option for it.
_INLINE_ONLY = ("gpt-image", "chatgpt-image")
_REFUSALS = ("moderation", "content_policy", "safety")


class ImageEdit:
    """POST ENDPOINT/images/edits with an image and a prompt; the edited image comes back inside the answer."""

    name = "image_edit"

    def __init__(self, key: str, model: str, endpoint: str, timeout: float = 60.0) -> None:
        """endpoint: with its version, such as http://server:8000/v1. timeout: seconds of one request."""
        if not endpoint or not model:
            raise AutosegError(
                "image_edit needs an endpoint and a model", "--endpoint http://server:8000/v1 --omnimodel NAME"
            )
        try:
            import openai
        except ImportError as error:
            raise AutosegError("image_edit needs the package openai", 'pip install "autoseg[omnimodel]"') from error
        self.model = model
        self.endpoint = endpoint
        self._openai = openai
        # The package needs a key, even for servers without keys.
        # A redirect would send the key and the image to a server that nobody named.
        transport = openai.DefaultHttpxClient(follow_redirects=False, timeout=timeout)
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=endpoint, timeout=timeout, max_retries=0, http_client=transport
        )

    def ask(self, picture: bytes, prompt: str) -> Answer:
        """See Backend."""
        options: dict[str, Any] = {} if self.model.startswith(_INLINE_ONLY) else {"response_format": "b64_json"}
        try:
            reply = self._client.images.edit(
                model=self.model, image=("image.png", picture, "image/png"), prompt=prompt, n=1, **options
            )
        except self._openai.APIStatusError as error:
            return _refusal_or_error(error, self.model)
        except self._openai.APIConnectionError as error:
            raise TransientError(f"no answer: {type(error).__name__}") from error
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            raise PermanentError("the answer cannot be read: it does not follow the API") from error
        data = getattr(reply, "data", None) or []
        if not data:
            return Answer(None, "the answer contains no picture")
        if data[0].b64_json:
            try:
                return Answer(base64.b64decode(data[0].b64_json, validate=True))
            except (binascii.Error, ValueError) as error:
                raise PermanentError("the picture within the answer is damaged") from error
        if data[0].url:
            raise PermanentError(
                "the service answered with a link, and links are not followed: configure it to send pictures inside the answer"
            )
        return Answer(None, str(data[0].revised_prompt or ""))


def _refusal_or_error(error: Any, model: str) -> Answer:
    """The answer if the service refused; otherwise raises the error of the status code."""
    code, body = int(error.status_code), error.body if isinstance(error.body, dict) else {}
    reason, message = str(body.get("code") or body.get("type") or ""), str(body.get("message") or "")
    if code in ACCESS_CODES:
        raise AutosegError(f"image_edit refuses the key ({code})", f"put a valid key into {KEYS[0]}") from error
    if is_redirect(code):
        raise PermanentError(REDIRECTED) from error
    if code == 404:
        raise AutosegError(f"{error.request.url.host} has no image-edit service for {model!r}", "check --endpoint") from error
    if code in TRANSIENT_CODES:
        raise TransientError(f"{code} {reason} {message}", retry_after(error.response.headers)) from error
    if any(word in reason for word in _REFUSALS):
        return Answer(None, message or reason, refused=True)
    raise PermanentError(f"{code} {reason} {message}") from error
