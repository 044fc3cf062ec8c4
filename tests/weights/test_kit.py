"""Kits: export where there is a network, add where there is none."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoseg import api
from autoseg.cli import weights as command
from autoseg.support.errors import AutosegError
from autoseg.weights.kit import CONTENTS
from tests.weights.conftest import NAME, small_file, with_facts

HUB_FILE, PLAIN_FILE = "owner/small/model.safetensors", "small_one.pth"


@pytest.fixture
def kit(tmp_path: Path, small_net: SimpleNamespace) -> Path:
    """Made under another root: files of two repositories of the hub, and two put there by hand."""
    for repository, variant in (("small", "one"), ("other", "two")):
        small_file(tmp_path / "copy" / "owner" / repository / "model.safetensors", variant)
    api.add_weights(tmp_path / "copy", root=tmp_path / "online")
    small_file(tmp_path / "online" / "weights" / PLAIN_FILE, seed=3)
    (tmp_path / "online" / "weights" / "mine.pth").write_bytes(b"of no model")
    api.export_weights(tmp_path / "kit.zip", root=tmp_path / "online")
    return tmp_path / "kit.zip"


def rewrite(kit: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(kit) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(kit, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_kit_carries_files_and_records(tmp_path: Path, kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added = api.add_weights(kit, root=tmp_path / "offline")
    assert {record.path for record in added} == {HUB_FILE, "owner/other/model.safetensors", PLAIN_FILE}
    for path in (HUB_FILE, "owner/other/model.safetensors", PLAIN_FILE):
        online, offline = (tmp_path / root / "weights" / path for root in ("online", "offline"))
        assert online.read_bytes() == offline.read_bytes()
    record = json.loads((tmp_path / "offline" / "weights" / f"{HUB_FILE}.json").read_text())
    assert record["source"] == f"copy/{HUB_FILE}" and record["licence"] == "MIT"
    assert not [check for check in api.verify_weights(tmp_path / "offline") if check.faults]
    assert command.main(["export", str(tmp_path / "one.zip"), f"{NAME}:two", "--root", str(tmp_path / "offline")]) == 0
    assert "owner/other/model.safetensors: " in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == [CONTENTS, "owner/other/model.safetensors"]


def test_a_checkpoint_is_no_kit_although_it_is_an_archive(tmp_path: Path, small_net: SimpleNamespace) -> None:
    (record,) = api.add_weights(small_file(tmp_path / PLAIN_FILE), root=tmp_path / "r")
    assert record.path == PLAIN_FILE
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(AutosegError, match="other.zip is the name of no published weights"):
        api.add_weights(tmp_path / "other.zip", root=tmp_path / "r")


def outside(members: dict[str, bytes]) -> None:
    contents = json.loads(members[CONTENTS])
    contents["files"][0]["path"] = "../../outside.pth"
    members["../../outside.pth"] = members.pop(HUB_FILE)
    members[CONTENTS] = json.dumps(contents).encode()


def other_model(members: dict[str, bytes]) -> None:
    members[CONTENTS] = members[CONTENTS].replace(HUB_FILE.encode(), b"sam/model.safetensors")
    members["sam/model.safetensors"] = members.pop(HUB_FILE)


def other_content(members: dict[str, bytes]) -> None:
    members[HUB_FILE] = members[HUB_FILE][:-1] + b"x"


def shorter(members: dict[str, bytes]) -> None:
    members[HUB_FILE] = members[HUB_FILE][:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "path within its folder"),
        (other_model, "sam/model.safetensors: of no model that is known here"),
        (other_content, "is not what was exported"),
        (shorter, "missing, or not stored as it was exported"),
        (lambda members: members.pop(HUB_FILE), "missing, or not stored"),
        (lambda members: members.update({"more.pth": b"x"}), "more.pth: not in the list"),
        (lambda members: members.update({CONTENTS: b"{}"}), CONTENTS),
        (lambda members: members.update({CONTENTS: b"x" * (2 << 20)}), f"has no usable {CONTENTS}"),
    ],
)
def test_a_kit_that_was_changed_is_refused_and_nothing_is_added(
    tmp_path: Path, kit: Path, change: Callable[[dict[str, bytes]], None], message: str
) -> None:
    rewrite(kit, change)
    with pytest.raises(AutosegError, match=message):
        api.add_weights(kit, root=tmp_path / "offline")
    assert not [path for path in (tmp_path / "offline").rglob("*") if path.is_file()]
    assert not (tmp_path / "outside.pth").exists()


def test_a_compressed_kit_is_refused(tmp_path: Path, kit: Path) -> None:
    """What is stored has the size that was checked."""
    rewrite(kit, lambda members: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(AutosegError, match="not stored as it was exported"):
        api.add_weights(kit, root=tmp_path / "offline")


def test_a_kit_with_another_file_than_the_published_one_is_refused(
    tmp_path: Path, kit: Path, small_net: SimpleNamespace
) -> None:
    with_facts(small_net, 0, sha256="0123abcd")
    with pytest.raises(AutosegError, match=f"{HUB_FILE} is not the published file"):
        api.add_weights(kit, root=tmp_path / "offline")


def test_export_needs_files_that_are_as_they_were_recorded(tmp_path: Path, kit: Path, small_net: SimpleNamespace) -> None:
    with pytest.raises(AutosegError, match="has no published weights to export"):
        api.export_weights(tmp_path / "empty.zip", root=tmp_path / "nothing")
    small_file(tmp_path / "online" / "weights" / HUB_FILE, seed=8)
    with pytest.raises(AutosegError, match=r"have changed since they were recorded:(.|\n)*owner/small"):
        api.export_weights(tmp_path / "again.zip", root=tmp_path / "online")
    assert not (tmp_path / "empty.zip").exists() and not (tmp_path / "again.zip").exists()
