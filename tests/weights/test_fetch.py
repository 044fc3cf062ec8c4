"""Fetching, against a local server: what is asked before, what is checked after, and everything that can go wrong."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from autoseg import api
from autoseg.cli import weights as command
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, write_artefact
from autoseg.weights import download
from tests.training import tiny
from tests.weights.conftest import NAME, small_file, with_facts
from tests.weights.server import COMMIT, Server, make_certificate, proxy, serve

HUB_FILE, PLAIN_FILE = "owner/small/model.safetensors", "small_one.pth"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxies, tokens or mirrors of this machine, and no pauses."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0)
    forget_connections()
    yield
    forget_connections()


def forget_connections() -> None:
    """The hub's library keeps a client with the environment of its first use."""
    huggingface_hub.close_session()


@pytest.fixture
def server(tmp_path: Path, small_net: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The publishers of the small network: its file of the hub, and the plain one."""
    with serve() as state:
        state.files[f"/{HUB_FILE}"] = small_file(tmp_path / "published" / "hub").read_bytes()
        state.files[f"/{PLAIN_FILE}"] = small_file(tmp_path / "published" / "plain", seed=1).read_bytes()
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        with_facts(small_net, 1, url=f"{state.url}/{PLAIN_FILE}")
        yield state


def fetch(root: Path, file: str = HUB_FILE, **options: object) -> list[api.WeightsCheck]:
    return api.fetch_weights(NAME, file=file, root=root, **options)  # type: ignore[arg-type, return-value]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leftovers(root: Path) -> list[str]:
    return [path.name for path in (root / "weights").rglob("*") if path.suffix in (".part", ".etag", ".adding")]


def test_a_file_of_the_hub_is_fetched_at_its_commit_and_recorded(tmp_path: Path, server: Server) -> None:
    (record,) = fetch(tmp_path)
    path = tmp_path / "weights" / HUB_FILE
    assert path.read_bytes() == server.files[f"/{HUB_FILE}"]
    assert (record.path, record.sha256, record.revision) == (HUB_FILE, hash_file(path), "a" * 40)
    assert json.loads(path.with_name("model.safetensors.json").read_text())["source"].startswith(server.url)
    assert not leftovers(tmp_path)
    (check,) = api.verify_weights(tmp_path)
    assert not check.faults and check.fits == {f"{NAME}:one": 16}


def test_nothing_but_the_file_is_asked_for_and_nothing_is_told(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No telemetry, no token although there is one, no signature in the record."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_user")
    fetch(tmp_path)
    assert {path.partition("?")[0] for _, path, _ in server.requests} == {
        f"/owner/small/resolve/{'a' * 40}/model.safetensors", f"/stored/{HUB_FILE}",
    }  # fmt: skip
    for _, _, headers in server.requests:
        agent = headers.get("User-Agent", headers.get("user-agent", ""))
        assert "torch" not in agent and "agent/" not in agent
        assert "hf_secret" not in str(headers)
    assert "signature" not in (tmp_path / "weights" / f"{HUB_FILE}.json").read_text()


def test_the_token_goes_to_the_hub_only_and_only_if_asked_for(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AutosegError, match=r"no token of the Hugging Face hub(.|\n)*HF_TOKEN"):
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        fetch(tmp_path, with_token=True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(tmp_path, with_token=True)
    told = {path.partition("?")[0] for _, path, headers in server.requests if "hf_secret" in str(headers)}
    assert told == {f"/owner/small/resolve/{'a' * 40}/model.safetensors"}


def test_a_commit_that_is_not_pinned_is_that_of_the_first_fetch(
    tmp_path: Path, server: Server, small_net: SimpleNamespace
) -> None:
    with_facts(small_net, 0, revision="")
    (record,) = fetch(tmp_path)
    assert record.revision == COMMIT and any("/resolve/main/" in path for path in server.paths("HEAD"))
    server.requests.clear()
    fetch(tmp_path)
    assert all(f"/resolve/{COMMIT}/" in path for path in server.paths("HEAD"))


def test_a_plain_file_is_fetched_and_what_is_present_is_not(tmp_path: Path, server: Server) -> None:
    (record,) = fetch(tmp_path, PLAIN_FILE)
    assert record.path == PLAIN_FILE and record.source == f"{server.url}/{PLAIN_FILE}" and len(server.requests) == 1
    assert api.fetch_weights(NAME, root=tmp_path) == [] and len(server.requests) == 1


@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_a_connection_that_breaks_off_is_resumed(tmp_path: Path, server: Server, file: str) -> None:
    server.break_after = [4000, 3000, None]
    fetch(tmp_path, file)
    assert (tmp_path / "weights" / file).read_bytes() == server.files[f"/{file}"]
    ranges = [headers["Range"] for method, _, headers in server.requests if method == "GET" and "Range" in headers]
    assert list(dict.fromkeys(ranges)) == ["bytes=4000-", "bytes=7000-"]


@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_the_next_command_goes_on_where_the_last_one_stopped(tmp_path: Path, server: Server, file: str) -> None:
    server.break_after = [1000]
    with pytest.raises(AutosegError, match=r"broke off after 4,000 bytes(.|\n)*goes on from there"):
        fetch(tmp_path, file)
    part = tmp_path / "weights" / f"{file}.part"
    assert part.stat().st_size == 4000 and not (tmp_path / "weights" / file).exists()
    server.break_after = [None]
    server.requests.clear()
    fetch(tmp_path, file)
    assert (tmp_path / "weights" / file).read_bytes() == server.files[f"/{file}"] and not leftovers(tmp_path)
    assert "bytes=4000-" in {headers.get("Range") for _, _, headers in server.requests}


@pytest.mark.parametrize("cause", ["other content", "no etag", "no ranges", "shorter"])
def test_a_part_of_another_file_is_not_continued(tmp_path: Path, server: Server, cause: str) -> None:
    server.break_after, server.etag = [2000], cause != "no etag"
    with pytest.raises(AutosegError, match="broke off"):
        fetch(tmp_path, PLAIN_FILE)
    server.break_after = [None]
    if cause in ("other content", "shorter"):
        server.files[f"/{PLAIN_FILE}"] = small_file(tmp_path / "published" / "new", seed=5).read_bytes()
    if cause == "shorter":
        (tmp_path / "weights" / f"{PLAIN_FILE}.part").write_bytes(b"x" * 50_000)
    server.ranges = cause != "no ranges"
    fetch(tmp_path, PLAIN_FILE)
    assert (tmp_path / "weights" / PLAIN_FILE).read_bytes() == server.files[f"/{PLAIN_FILE}"]


def test_a_download_that_was_complete_is_not_repeated(tmp_path: Path, server: Server, small_net: SimpleNamespace) -> None:
    content = server.files[f"/{PLAIN_FILE}"]
    with_facts(small_net, 1, size=len(content))
    part = tmp_path / "weights" / f"{PLAIN_FILE}.part"
    part.parent.mkdir()
    part.write_bytes(content)
    part.with_name(f"{part.name}.etag").write_text(f'"{hashlib.md5(content).hexdigest()}"')
    (record,) = fetch(tmp_path, PLAIN_FILE)
    assert record.sha256 == sha256(content) and len(server.requests) == 1


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sha256": "0123abcd"}, "is not the published file: its SHA-256 is .* begins with 0123abcd"),
        ({"sha256": "0" * 64}, "is not the published file: its SHA-256 is .* is 0000"),
        ({"size": 12}, "bytes, 12 were expected"),
    ],
)
@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_another_file_than_the_published_one_is_refused_and_the_old_one_kept(
    tmp_path: Path, server: Server, small_net: SimpleNamespace, facts: dict[str, object], message: str, file: str
) -> None:
    fetch(tmp_path, file)
    before = (tmp_path / "weights" / file).read_bytes()
    with_facts(small_net, (HUB_FILE, PLAIN_FILE).index(file), **facts)
    with pytest.raises(AutosegError, match=message):
        fetch(tmp_path, file)
    assert (tmp_path / "weights" / file).read_bytes() == before and not leftovers(tmp_path)
    assert api.verify_weights(tmp_path)[0].fits


def test_the_hash_recorded_at_the_first_fetch_holds(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, PLAIN_FILE)
    before = (tmp_path / "weights" / PLAIN_FILE).read_bytes()
    server.files[f"/{PLAIN_FILE}"] = small_file(tmp_path / "published" / "replaced", seed=9).read_bytes()
    with pytest.raises(AutosegError, match=r"that of the file fetched on .* was (.|\n)*small_one.pth in the folder was kept"):
        fetch(tmp_path, PLAIN_FILE)
    assert (tmp_path / "weights" / PLAIN_FILE).read_bytes() == before and not leftovers(tmp_path)


def test_a_server_that_lies_about_the_hash_is_named(tmp_path: Path, server: Server) -> None:
    server.sha256 = "1" * 64
    with pytest.raises(AutosegError, match=r"127.0.0.1.*: its SHA-256 is .*, the server announced 1111"):
        fetch(tmp_path)
    assert not (tmp_path / "weights" / HUB_FILE).exists() and not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("length", "message"), [(500, "is not a readable checkpoint"), (10**6, "broke off"), (10**15, "too much")]
)
def test_a_server_that_lies_about_the_size_is_noticed(tmp_path: Path, server: Server, length: int, message: str) -> None:
    server.length = length
    with pytest.raises(AutosegError, match=message):
        fetch(tmp_path, PLAIN_FILE)
    assert not (tmp_path / "weights" / PLAIN_FILE).exists()


def test_a_file_that_does_not_fit_its_model_is_refused(tmp_path: Path, server: Server) -> None:
    server.files[f"/{PLAIN_FILE}"] = small_file(tmp_path / "published" / "two", "two").read_bytes()
    with pytest.raises(AutosegError, match="these weights do not fit Tiny"):
        fetch(tmp_path, PLAIN_FILE)
    server.files[f"/{PLAIN_FILE}"] = b"<!doctype html><title>Log in</title>"
    with pytest.raises(AutosegError, match="is a web page"):
        fetch(tmp_path, PLAIN_FILE)
    assert not (tmp_path / "weights" / PLAIN_FILE).exists() and not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "", "only to users with access (.|\n)*HF_TOKEN(.|\n)*--token"),
        (403, "GatedRepo", "only to users with access (.|\n)*--token"),
        (401, "RepoNotFound", "only to users with access"),
        (404, "EntryNotFound", r"has no .*\(404\)(.|\n)*--file FILE"),
        (404, "", "has no "),
        (500, "", "the error 500(.|\n)*try again later"),
        (429, "", "the error 429"),
    ],
)
@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_answers_that_are_no_file_are_explained(
    tmp_path: Path, server: Server, status: int, code: str, message: str, file: str
) -> None:
    server.status, server.error_code = status, code
    with pytest.raises(AutosegError, match=message) as raised:
        fetch(tmp_path, file)
    assert "127.0.0.1" in str(raised.value) and not leftovers(tmp_path)


@needs_openssl
def test_redirects_are_followed_but_not_away_from_encryption(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.redirect_to = server.url.replace("127.0.0.1", "localhost")
    fetch(tmp_path, PLAIN_FILE)
    assert f"/stored/{PLAIN_FILE}" in server.paths()
    server.redirect_to = "ftp://127.0.0.1"
    with pytest.raises(AutosegError, match="is no address of a web server"):
        fetch(tmp_path, PLAIN_FILE)
    certificate = make_certificate(tmp_path, "files.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with serve(certificate) as encrypted:
        encrypted.redirect_to = server.url
        with pytest.raises(AutosegError, match=r"redirects to http://127.0.0.1.*, which is not encrypted: not followed"):
            fetch(tmp_path / "other", PLAIN_FILE, mirror=encrypted.url)


def test_offline_means_no_connection(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for file in (HUB_FILE, PLAIN_FILE):
        with pytest.raises(AutosegError, match=r"HF_HUB_OFFLINE is set(.|\n)*autoseg_weights add kit.zip"):
            fetch(tmp_path, file)
    assert server.connections == 0
    fetch(tmp_path, source=tmp_path_with(tmp_path, server))


def tmp_path_with(tmp_path: Path, server: Server) -> Path:
    """A folder with the layout of the weights folder."""
    for path, content in server.files.items():
        (tmp_path / "stick" / path.strip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stick" / path.strip("/")).write_bytes(content)
    return tmp_path / "stick"


@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_a_folder_stands_for_the_servers(tmp_path: Path, server: Server, file: str) -> None:
    (record,) = fetch(tmp_path, file, source=tmp_path_with(tmp_path, server))
    assert record.source == f"stick/{file}" and server.connections == 0
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "empty", f"has no {file}"), (tmp_path / "gone", "there is no folder")):
        with pytest.raises(AutosegError, match=message):
            fetch(tmp_path, file, source=folder)


@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_a_mirror_stands_for_the_servers(tmp_path: Path, server: Server, file: str) -> None:
    with serve() as mirror:
        mirror.files = dict(server.files)
        (record,) = fetch(tmp_path, file, mirror=f"{mirror.url}/")
        assert record.source == f"{mirror.url}/{file}" and mirror.paths() == [f"/{file}"]
    assert server.connections == 0


@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_an_unreachable_host_is_named_with_what_helps(
    tmp_path: Path, server: Server, small_net: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    with_facts(small_net, 1, url=f"{nowhere}/{PLAIN_FILE}")
    with pytest.raises(AutosegError, match=r"127.0.0.1:9 cannot be reached: .*refused(.|\n)*HTTPS_PROXY") as raised:
        fetch(tmp_path, file)
    assert "kit.zip" in str(raised.value) and "--mirror" in str(raised.value)
    assert "check HF_ENDPOINT (http://127.0.0.1:9)" in str(raised.value)
    monkeypatch.setenv("http_proxy", "http://user:password@127.0.0.1:9")
    forget_connections()
    through = r"through the proxy http://127.0.0.1:9 \(HTTP_PROXY\)(.|\n)*check HTTP_PROXY"
    with pytest.raises(AutosegError, match=through) as raised:
        fetch(tmp_path, file)
    assert "password" not in str(raised.value)


@needs_openssl
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("file", [HUB_FILE, PLAIN_FILE])
def test_proxies_and_certificates_of_the_environment_are_used(
    tmp_path: Path, server: Server, small_net: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, file: str, variable: str
) -> None:
    """An encrypted server under a name that only the proxy knows, with a certificate that only SSL_CERT_FILE knows."""
    certificate = make_certificate(tmp_path, "files.example.org")
    monkeypatch.setenv("HF_ENDPOINT", "https://files.example.org")
    with_facts(small_net, 1, url=f"https://files.example.org/{PLAIN_FILE}")
    with serve(certificate) as encrypted, proxy(encrypted.url) as (address, asked):
        encrypted.files, encrypted.redirect_to = dict(server.files), "https://files.example.org"
        monkeypatch.setenv(variable, address)
        untrusted = r"files.example.org was not trusted through the proxy .*: self.signed(.|\n)*SSL_CERT_FILE"
        with pytest.raises(AutosegError, match=untrusted):
            fetch(tmp_path, file)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        forget_connections()
        fetch(tmp_path, file)
        assert set(asked) == {"CONNECT files.example.org:443"} and server.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_login_is_explained(
    tmp_path: Path, server: Server, small_net: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with_facts(small_net, 1, url=f"{scheme}://files.example.org/{PLAIN_FILE}")
    with proxy(server.url, login=True) as (address, _):
        monkeypatch.setenv(f"{scheme}_proxy", address)
        with pytest.raises(AutosegError, match=rf"the proxy {address} asks for a login(.|\n)*{scheme.upper()}_PROXY"):
            fetch(tmp_path, PLAIN_FILE)


def test_nothing_is_fetched_without_a_yes(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fetch", NAME, "--root", str(tmp_path)]
    assert command.main(arguments) == 2
    shown = capsys.readouterr()
    assert "add --yes" in shown.err and server.connections == 0
    text = " ".join(shown.out.split())
    for part in (HUB_FILE, f"{NAME}:one", f"{server.url}/owner/small/resolve/", "hosts: 127.0.0.1"):
        assert part in text
    assert "licence: MIT (commercial use allowed)" in text and "no login" in text and "its hash is recorded" in text
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, connected in (("n", False), ("", False), ("y", True)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert command.main(arguments) == 0
        assert bool(server.connections) == connected
    assert f"in weights/{HUB_FILE}" in capsys.readouterr().out
    assert command.main([*arguments, "--yes"]) == 0
    assert "nothing was fetched" in capsys.readouterr().out


def test_requests_are_checked_before_any_connection(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "nothing to fetch was named"),
        ([NAME, "--all"], "give one of them"),
        (["no_net"], "there is no model 'no_net'"),
        ([f"{NAME}:three"], "has no variant 'three'"),
        ([NAME, "--file", "else.pth"], "is none of the files"),
        (["nnunet"], "no published weights are known for nnunet"),
        ([f"{NAME}:two", "--licence", "commercial"], "known to allow commercial use (NC-1.0)"),
        (["segformer", "--licence", "commercial"], "known to allow commercial use"),
    ):
        assert command.main(["fetch", *arguments, "--yes", "--root", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err, arguments
    assert server.connections == 0 and not (tmp_path / "weights").exists()


def test_what_could_be_fetched_is_kept_if_other_files_fail(tmp_path: Path, server: Server) -> None:
    with pytest.raises(AutosegError, match=r"1 of 2 files could not be fetched:(.|\n)*small_net:two: 127.0.0.1"):
        api.fetch_weights([f"{NAME}:one", f"{NAME}:two"], root=tmp_path)
    assert (tmp_path / "weights" / HUB_FILE).is_file()


def test_the_plan_of_a_dataset_names_models_and_variants(tmp_path: Path, server: Server) -> None:
    dataset, plan, _ = tiny.prepare(tmp_path)
    one = replace(plan.models[tiny.NAME], model=NAME, pretrained="auto")
    other = replace(one, model="hsnet", pretrained="none")
    write_artefact(dataset.plan, replace(plan, models={NAME: one, "hsnet": other}))
    assert command.main(["fetch", "--plan", "Discs", "--yes", "--root", str(tmp_path)]) == 0
    assert (tmp_path / "weights" / HUB_FILE).is_file() and len(list((tmp_path / "weights").rglob("*.json"))) == 1
    write_artefact(dataset.plan, replace(plan, models={NAME: replace(one, variant="two")}))
    with pytest.raises(AutosegError, match="owner/other"):
        api.fetch_weights(dataset="Discs", root=tmp_path)


def test_all_means_the_default_variant_of_every_model(tmp_path: Path) -> None:
    """And so many networks start from published weights then: before, only the one whose weights a package carries."""
    shown: list[api.WeightsDownload] = []

    def show_and_refuse(downloads: Sequence[api.WeightsDownload]) -> bool:
        shown[:] = downloads
        return False

    def ready() -> int:
        return sum(row.weights_present for row in api.model_table(tmp_path))

    assert ready() == 1
    assert api.fetch_weights(confirm=show_and_refuse, root=tmp_path) == []
    assert len(shown) == 14 and len({model for one in shown for model in one.models}) == 15
    for one in shown:
        (tmp_path / "weights" / one.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "weights" / one.file).touch()
    assert ready() == 16
    api.fetch_weights(study=True, confirm=show_and_refuse, root=tmp_path)
    assert {model for one in shown for model in one.models} == {"unet:64", "missformer:224"}


def test_two_processes_do_not_write_one_download(tmp_path: Path, server: Server) -> None:
    part = tmp_path / "weights" / f"{PLAIN_FILE}.part"
    part.parent.mkdir()
    with part.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(AutosegError, match="is being written by another process"):
            fetch(tmp_path, PLAIN_FILE)
