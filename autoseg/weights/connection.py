"""What a failed connection means: which host, through which proxy, and which variable or option helps."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from autoseg.support.errors import AutosegError
from autoseg.support.workspace import variable

OFFLINE, ENDPOINT = "HF_HUB_OFFLINE", "HF_ENDPOINT"
_WITHOUT_NETWORK = (
    "or, where there is a network: autoseg_weights export kit.zip, and here: autoseg_weights add kit.zip; "
    "--mirror URL and --from DIR take the files from your own server or folder"
)
# Hosts to which the addresses of the catalogue lead in the end.
_STORAGE = {
    "github.com": ("release-assets.githubusercontent.com", "objects.githubusercontent.com"),
    "huggingface.co": ("cas-bridge.xethub.hf.co", "cdn-lfs.hf.co"),
}


def hosts(url: str) -> tuple[str, ...]:
    """The host of an address, and those to which it is known to lead."""
    host = urlsplit(url).hostname or ""
    return (host, *_STORAGE.get(host, ()))


def hub_endpoint() -> str:
    """The hub's address, HF_ENDPOINT if it is set."""
    return variable(ENDPOINT).rstrip("/") or "https://huggingface.co"


def refuse_offline() -> None:
    """Raises AutosegError if HF_HUB_OFFLINE says that no connection may be opened."""
    if variable(OFFLINE).upper() in ("1", "ON", "YES", "TRUE"):
        raise AutosegError(f"{OFFLINE} is set, so nothing is fetched", f"unset {OFFLINE}, {_WITHOUT_NETWORK}")


def without_secrets(url: str) -> str:
    """An address without user, password and query, to be shown and stored."""
    parts = urlsplit(url)
    return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def proxies() -> dict[str, str]:
    """Scheme -> proxy, as the environment says. ALL_PROXY stands for those that are not named."""
    named = getproxies()
    everything = {scheme: named["all"] for scheme in ("http", "https") if "all" in named}
    return {**everything, **named}


def proxy_of(url: str) -> tuple[str, str]:
    """The proxy that connections to an address go through, without its password, and the variable that names it; or ""."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname) or parts.scheme not in proxies():
        return "", ""
    name = parts.scheme if parts.scheme in getproxies() else "all"
    return without_secrets(proxies()[parts.scheme]).rstrip("/"), f"{name.upper()}_PROXY"


def unreachable(url: str, reason: BaseException | str) -> AutosegError:
    """No connection, or it was refused on the way."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    proxy, name = proxy_of(url)
    way = f" through the proxy {proxy} ({name})" if proxy else ""
    certificate = _certificate_error(reason)
    if certificate is not None:
        return AutosegError(
            f"{host} was not trusted{way}: {certificate.verify_message or certificate}",
            "if your network has its own certificate, set SSL_CERT_FILE to the file that holds it (PEM), " + _WITHOUT_NETWORK,
        )
    hints = [f"check {name}" if proxy else "check the network; set HTTPS_PROXY if it needs a proxy"]
    if url.startswith(hub_endpoint()):
        hints.append(f"check {ENDPOINT} ({hub_endpoint()})" if variable(ENDPOINT) else f"set {ENDPOINT} to a mirror of the hub")
    return AutosegError(f"{host} cannot be reached{way}: {_cause(reason)}", f"{'; '.join(hints)}; {_WITHOUT_NETWORK}")


def refused(url: str, status: int, gated: bool = False) -> AutosegError:
    """An answer of the server, or of the proxy, that is no file."""
    host, shown = urlsplit(url).netloc.rpartition("@")[2], without_secrets(url)
    proxy, name = proxy_of(url)
    if status == 407:
        return AutosegError(f"the proxy {proxy} asks for a login", f"write it into {name}: http://USER:PASSWORD@HOST:PORT")
    if gated or status in (401, 403):
        return AutosegError(
            f"{host} gives {shown} only to users with access ({status})",
            "ask for access on its page, log in (hf auth login, or HF_TOKEN), and fetch with --token",
        )
    if status in (404, 410):
        remedy = "another file may do: autoseg_weights list MODEL, then fetch MODEL --file FILE"
        return AutosegError(f"{host} has no {shown} ({status})", remedy)
    return AutosegError(f"{host} answers {shown} with the error {status}", f"try again later; {_WITHOUT_NETWORK}")


def _causes(reason: object) -> Iterator[BaseException]:
    """An error and those that it was made from: libraries wrap the system's error several times."""
    seen: list[object] = []
    while isinstance(reason, BaseException) and reason not in seen:
        yield reason
        seen.append(reason)
        reason = reason.__cause__ or reason.__context__ or getattr(reason, "reason", None)


def _cause(reason: BaseException | str) -> str:
    """The first cause in words."""
    return next((str(one) for one in reversed(list(_causes(reason))) if str(one)), str(reason))


def _certificate_error(reason: object) -> ssl.SSLCertVerificationError | None:
    """The failed check of a certificate behind an error."""
    return next((one for one in _causes(reason) if isinstance(one, ssl.SSLCertVerificationError)), None)
