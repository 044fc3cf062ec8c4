"""The review page answers only who has the printed address, and keeps nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

import pytest

from autoseg import api
from autoseg.cli import review
from autoseg.io import write_image
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.review_app import Session, build
from autoseg.prediction.review_server import Guard, ReviewServer
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import variable
from tests.prediction.stand_in import picture, trained
from tests.support.waiting import seen

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKEN, HOST = "t0ken", "127.0.0.1:7860"


def answer(path: str = f"/{TOKEN}/", kind: str = "http", **headers: str | list[str]) -> str:
    """What a guarded app says: "passed", or how it was refused. headers: of the request; a list sends one twice."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "passed"})

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = {"host": HOST, **headers}
    lines = [(name, one) for name, value in pairs.items() for one in (value if isinstance(value, list) else [value])]
    scope = {"type": kind, "path": path, "headers": [(name.encode(), value.encode()) for name, value in lines]}
    asyncio.run(Guard(app, TOKEN, [HOST, "localhost:7860"])(scope, None, send))  # type: ignore[arg-type]
    return str(sent[0].get("status") or sent[0]["type"])


def test_requests_of_the_user_pass() -> None:
    assert answer() == answer(f"/{TOKEN}/gradio_api/queue/join") == answer(host="LOCALHOST:7860") == "passed"
    assert answer(origin=f"http://{HOST}") == answer(kind="websocket", origin="http://localhost:7860") == "passed"
    assert answer(kind="lifespan", path="") == "passed"


@pytest.mark.parametrize("path", [
    "/", "", "/other/", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/", f"//{TOKEN}/", f"/x/{TOKEN}/", f"/{TOKEN.upper()}/",
    f"/%74{TOKEN[1:]}/", "/gradio_api/upload", f"/?token={TOKEN}", f"/../{TOKEN}/", "/tökén/",
])  # fmt: skip
def test_requests_without_the_token_are_refused(path: str) -> None:
    assert answer(path) == "403" and answer(path, "websocket") == "websocket.close"


@pytest.mark.parametrize("host", [
    "evil.example:7860", "evil.example", "127.0.0.1", "127.0.0.1:7861", "127.0.0.1.evil.example:7860", "localhost.:7860",
    "0.0.0.0:7860", "[::1]:7860", "", "127.0.0.1:7860@evil.example", "2130706433:7860", "127.1:7860",
])  # fmt: skip
def test_foreign_hosts_are_refused(host: str) -> None:
    """With the token: whoever rebinds a name does not have it, but two locks are better than one."""
    assert answer(host=host) == "403"
    assert answer(host=[HOST, host]) == answer(host=[host, HOST]) == "403"


def test_requests_without_a_host_are_refused() -> None:
    assert answer(host=[]) == "403"


@pytest.mark.parametrize("origin", [
    "http://evil.example", "null", f"https://{HOST}", "http://127.0.0.1", "http://127.0.0.1:7861", f"http://{HOST}.evil.example",
    f"http://evil.example/http://{HOST}", "", "file://",
])  # fmt: skip
def test_foreign_origins_are_refused(origin: str) -> None:
    assert answer(origin=origin) == answer(origin=[f"http://{HOST}", origin]) == "403"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "*"])
def test_no_server_listens_everywhere(host: str) -> None:
    with pytest.raises(AutosegError, match="every address"):
        ReviewServer(lambda: pytest.fail("not built"), host)


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.name.invalid", None), ("192.0.2.1", None), ("127.0.0.1", 99999), ("a" * 300, 1)]
)
def test_addresses_that_cannot_be_had_are_named(host: str, port: int | None) -> None:
    with pytest.raises(AutosegError, match=r"there is no address|cannot be used"):
        ReviewServer(lambda: pytest.fail("not built"), host, port)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AutosegError, match="cannot be used"):
        ReviewServer(lambda: pytest.fail("not built"), port=taken.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.7.7"])
def test_the_command_prints_the_key_and_warns_of_the_network(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Page:
        address = f"http://{host}:7860/{TOKEN}/"
        options: ClassVar[dict[str, Any]] = {}

        def run(self, stop: Any) -> None:
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(10)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.options["closed"] = True

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(api, "review_page", lambda what, **options: Page.options.update(options) or Page())
    assert review.main(["501", "--host", host, "--port", "7860"]) == 0
    printed = capsys.readouterr()
    assert Page.address in printed.out and Page.options["host"] == host and Page.options["closed"]
    assert ("not encrypted" in printed.err) == (host != "127.0.0.1")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    return tmp_path / "temporary"


def test_a_page_that_cannot_be_built_leaves_nothing(temporary: Path) -> None:
    def fails() -> None:
        assert len(list(temporary.iterdir())) == 1
        raise AutosegError("no network")

    with pytest.raises(AutosegError, match="no network"):
        ReviewServer(fails)
    assert not list(temporary.iterdir()) and variable("GRADIO_TEMP_DIR") == ""


@pytest.fixture
def server(tmp_path: Path, temporary: Path) -> Iterator[ReviewServer]:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    session = Session({"usual": lambda: Predictor([trained()])}, tmp_path / "corrected")
    with ReviewServer(lambda: build(session)) as server:
        server.start()
        yield server


def request(
    server: ReviewServer, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    connection.close()
    return response.status, text, {name.lower(): value for name, value in response.getheaders()}


def upload(server: ReviewServer, token: str, **headers: str) -> tuple[int, str]:
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="erika.png"\r\n\r\nsecret image\r\n--b--\r\n'
    form = {"Content_Type": "multipart/form-data; boundary=b", **headers}
    return request(server, f"/{token}/gradio_api/upload", "POST", body, **form)[:2]


def test_the_whole_page_needs_the_token_and_the_own_address(server: ReviewServer, tmp_path: Path) -> None:
    token = server.address.split("/")[3]
    assert len(token) >= 40
    status, text, headers = request(server, f"/{token}/")
    assert status == 200 and "gradio" in text
    assert headers["referrer-policy"] == "no-referrer" and "default-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    for path in ("/", "/gradio_api/info", "/config", "/docs", "/openapi.json", f"/{token[:-1]}/config"):
        assert request(server, path)[0] == 403, path
    for foreign in ({"Host": f"evil.example:{server.port}"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        for path in ("", "config", "gradio_api/info"):
            assert request(server, f"/{token}/{path}", **foreign)[0] == 403
        assert upload(server, token, **foreign)[0] == 403
    assert upload(server, "no-token")[0] == 403
    assert not list(Path(server.cache).rglob("*.png")) and not (tmp_path / "corrected").exists()


def test_uploads_are_private_and_gone_at_the_end(server: ReviewServer, temporary: Path) -> None:
    status, text = upload(server, server.address.split("/")[3])
    assert status == 200 and server.cache in text
    (stored,) = Path(server.cache).rglob("erika.png")
    assert stored.read_bytes() == b"secret image"
    assert stat.S_IMODE(Path(server.cache).stat().st_mode) == 0o700
    server.close()
    assert not list(temporary.iterdir()) and variable("GRADIO_TEMP_DIR") == ""
    with pytest.raises(OSError):
        request(server, "/")


_PROCESS = """
import gradio
from autoseg.cli.review import serve
from autoseg.prediction.review_server import ReviewServer

def build():
    with gradio.Blocks() as page:
        gradio.Markdown("a page")
    return page

with ReviewServer(build, port=0) as server:
    print(server.port, server.address.split("/")[3], server.cache, flush=True)
    serve(server)
"""


def start_process(temporary: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=temporary.parent,
    )  # fmt: skip


def cache_of(process: subprocess.Popen[str]) -> Path:
    """The folder of a server that answers."""
    assert process.stdout is not None
    port, token, cache = process.stdout.readline().split()

    def is_up() -> bool:
        try:
            connection = HTTPConnection("127.0.0.1", int(port), timeout=10)
            connection.request("GET", f"/{token}/")
            return connection.getresponse().status == 200
        except OSError:
            return False

    assert seen(is_up)
    assert Path(cache).is_dir()
    return Path(cache)


def test_nothing_stays_however_the_server_ends(temporary: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    processes = {number: start_process(temporary) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)}
    for number, process in processes.items():
        cache = cache_of(process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert cache.exists(), "nobody can clean up after SIGKILL but the next server"
            with pytest.raises(AutosegError, match="no network"):
                ReviewServer(_no_network)
        else:
            assert process.returncode == 0 and not errors, (number, errors)
        assert not cache.exists(), number


def _no_network() -> None:
    raise AutosegError("no network")


def test_the_folder_of_a_running_server_stays(server: ReviewServer) -> None:
    with pytest.raises(AutosegError, match="no network"):
        ReviewServer(_no_network)
    assert Path(server.cache).is_dir()


def test_the_page_predicts_for_who_has_its_address(server: ReviewServer, tmp_path: Path) -> None:
    client = pytest.importorskip("gradio_client")
    write_image(tmp_path / "image.png", picture((60, 80), (15, 20, 45, 60))[0])
    user = client.Client(server.address, verbose=False)
    _, _, table = user.predict(client.handle_file(str(tmp_path / "image.png")), "usual", api_name="/predict")
    assert "| bright |" in table
    with pytest.raises(Exception, match=r"403|Could not fetch"):
        client.Client(f"http://127.0.0.1:{server.port}/", verbose=False)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
def test_in_a_real_browser(server: ReviewServer, tmp_path: Path) -> None:
    """The page is drawn with its own address; a name that is made to lead here (DNS rebinding) gets nothing."""

    def shown(address: str) -> str:
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=20000")
        rebinding = ("--host-resolver-rules=MAP evil.example 127.0.0.1", f"--user-data-dir={tmp_path / 'profile'}")
        command = [str(BROWSER), *options, *rebinding, "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout

    page = shown(server.address)
    assert "Save the correction as a training case" in page and "Drop" in page
    for address in (server.address.replace("127.0.0.1", "evil.example"), f"http://127.0.0.1:{server.port}/"):
        refused = shown(address)
        assert "open the whole address" in refused and "Save the correction" not in refused
