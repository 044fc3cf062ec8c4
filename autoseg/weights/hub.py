"""Asks the Hugging Face hub, through its own library, where a file is: commit, size, hash, and who may have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError
from autoseg.weights.connection import hub_endpoint, refuse_offline, refused, unreachable
from autoseg.weights.download import Remote

_SHA256_DIGITS = 64
# Libraries by which versions of huggingface_hub connect; not all of them are installed.
_TRANSPORTS = ("httpx2", "httpx", "httpcore")


def resolve(weights: PublishedWeights, revision: str, with_token: bool) -> Remote:
    """The file at a commit or branch ("" for the main one). with_token: send the user's token of the hub.

    Raises AutosegError if the hub cannot be reached, has no such file, or gives it to registered users only.
    """
    token = _token() if with_token else ""
    url = huggingface_hub.hf_hub_url(
        weights.repository, weights.file, revision=revision or weights.revision or None, endpoint=hub_endpoint()
    )
    try:
        with _no_telemetry():
            found = huggingface_hub.get_hf_file_metadata(url, token=token or False)
    except OfflineModeIsEnabled:
        refuse_offline()
        raise
    except HfHubHTTPError as error:
        raise refused(url, error.response.status_code, isinstance(error, GatedRepoError)) from error
    except (OSError, ValueError) as error:
        # ValueError: a proxy's address that is none.
        raise unreachable(url, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in _TRANSPORTS:
            raise unreachable(url, error) from error
        raise
    commit = found.commit_hash or ""
    at_commit = huggingface_hub.hf_hub_url(weights.repository, weights.file, revision=commit or None, endpoint=hub_endpoint())
    etag = found.etag or ""
    return Remote(
        url=at_commit if commit else url,
        size=found.size or 0,
        sha256=etag if len(etag) == _SHA256_DIGITS else "",
        revision=commit,
        token=token,
    )


def _token() -> str:
    token = huggingface_hub.get_token()
    if not token:
        raise AutosegError("there is no token of the Hugging Face hub", "log in (hf auth login), or set HF_TOKEN")
    return token


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Without it the library describes this machine's software, and asks the hub how to."""
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
