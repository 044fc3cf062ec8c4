from __future__ import annotations

import errno
import hashlib
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash

from autoseg.schema.audit import Decisions
from autoseg.schema.fingerprint import CaseFingerprint, ClassInCase, Fingerprint
from autoseg.support import files
from autoseg.support.errors import AutosegError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with files.atomic_directory(folder, "index.json", Decisions) as temporary:
        files.write_artefact(temporary / "index.json", Decisions("a"))
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_directory(folder, "index.json", Decisions) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_only_folders_that_autoseg_wrote_are_replaced(tmp_path: Path) -> None:
    """Neither a folder of the user, nor one whose file has the right name by chance, nor what a link leads to."""
    contents = {"photos": None, "project": '{"name": "index of another program"}', "broken": "{", "linked": None}
    for name, index in contents.items():
        victim = tmp_path / name
        victim.mkdir()
        (victim / "keep.txt").write_text("irreplaceable")
        if index is not None:
            (victim / "index.json").write_text(index)
    (tmp_path / "link").symlink_to(tmp_path / "linked")
    (tmp_path / "file").write_text("irreplaceable")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("photos", "project", "broken", "link", "file"):
        with pytest.raises(AutosegError, match=name), files.atomic_directory(tmp_path / name, "index.json", Decisions):
            pytest.fail("the work must not begin")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    files.write_artefact(tmp_path / "damaged" / "index.json", Decisions("a"))
    with (tmp_path / "damaged" / "index.json").open("a") as stream:
        stream.write("{")
    for name in ("empty", "damaged", "new"):
        with files.atomic_directory(tmp_path / name, "index.json", Decisions) as temporary:
            (temporary / "a").write_text("new")
        assert [path.name for path in (tmp_path / name).iterdir()] == ["a"]


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="disk is full"), files.atomic_write(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_written_files_are_as_readable_as_others(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    files.write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_writers_in_threads_keep_to_the_umask_and_leave_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the umask means setting it for a moment, for all threads: one that writes then makes files open to all."""
    before = os.umask(0o077)
    monkeypatch.setattr(os, "umask", None)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: files.write_text(tmp_path / f"{number}", "x"), range(40)))
            with files.atomic_directory(tmp_path / "folder", "index.json", Decisions):
                pass
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()} == {0o600}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_an_artefact_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    files.write_artefact(path, Decisions("a"))
    with pytest.raises(TypeError):
        files.write_artefact(path, Decisions("a", {"0": object()}))  # type: ignore[dict-item]
    assert files.read_artefact(path, Decisions) == Decisions("a")
    assert list(tmp_path.iterdir()) == [path]


def test_many_cases_are_written_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.json"
    classes = {"e": ClassInCase(pixels=1, objects=2, largest=3, thickness=4.5)}
    case = CaseFingerprint(
        case="a",
        size=(3, 4),
        channels=1,
        dtype="uint8",
        spacing=None,
        file_hash="b" * 64,
        pixel_hash="c" * 64,
        low=0.0,
        high=1.0,
        border=0.5,
        classes=classes,
    )
    fingerprint = Fingerprint(
        dataset="x",
        content_hash="y",
        modality="gray",
        evidence="",
        gray_as_rgb=False,
        dtype="uint8",
        channels=(),
        classes=(),
        cases=(case,) * 3000,
        median_size=(3, 4),
        median_spacing=None,
    )
    tracemalloc.start()
    try:
        files.write_artefact(path, fingerprint)
        _, wrote = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert files.read_artefact(path, Fingerprint) == fingerprint
    assert wrote < path.stat().st_size / 2


@pytest.mark.parametrize(("text", "says"), [(None, "missing"), ("{", "not valid JSON"), ("\xff\xfe", "JSON")])
def test_a_bad_artefact_names_its_file(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(AutosegError, match="plan.json") as caught:
        files.read_artefact(path, Decisions, "plan again")
    assert says in str(caught.value) or "cannot be read" in str(caught.value)


def test_hashes_know_where_a_text_ends() -> None:
    assert files.hash_text("ab", "c") != files.hash_text("a", "bc")


@pytest.mark.parametrize("size", [0, 10, 3 << 18, (1 << 18) + 1])
def test_files_are_hashed_whole(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert files.hash_file(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()
    assert files.fast_hash_file(tmp_path / "a") == xxhash.xxh3_128(content[:size]).hexdigest()
