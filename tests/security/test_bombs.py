"""Small files that unpack to large ones, and short expressions that take for ever, are refused before they cost anything."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.cli import convert, plan_and_preprocess
from autoseg.comparison import strata
from autoseg.evaluation.case import read_probabilities
from autoseg.io import read_image, write_image
from autoseg.prediction.bundle import CONTENTS, export_bundle, read_bundle
from autoseg.prediction.predictor import Predictor
from autoseg.support import archives, patterns
from autoseg.support.errors import AutosegError
from autoseg.support.patterns import search
from dataset_conversion.source import Source
from tests import generated
from tests.prediction.conftest import bright_is_registered
from tests.prediction.stand_in import picture, trained

__all__ = ["bright_is_registered"]
MEGABYTE = 1 << 20


def zeros(count: int) -> Iterator[bytes]:
    """So many megabytes."""
    for _ in range(count):
        yield bytes(MEGABYTE)


def packed_zeros(count: int) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=9) as packed:
        for block in zeros(count):
            packed.write(block)
    return stream.getvalue()


def zip_of(
    path: Path, members: dict[str, bytes], extra: tuple[str, int] | None = None, how: int = zipfile.ZIP_DEFLATED
) -> Path:
    """extra: name and megabytes of a member of zeros."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if extra is not None:
            with archive.open(extra[0], "w", force_zip64=True) as stream:
                for block in zeros(extra[1]):
                    stream.write(block)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def tar_gz(path: Path, megabytes: int) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("images/a.png")
        info.size = megabytes * MEGABYTE

        class Stream(io.RawIOBase):
            def read(self, count: int = -1) -> bytes:
                return bytes(count)

        archive.addfile(info, Stream())
    return path


def test_a_small_tar_gz_is_refused_before_a_byte_is_written(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tar_gz(temporary.parent / "bomb.tar.gz", 300)
    assert bomb.stat().st_size < MEGABYTE
    monkeypatch.setattr(gzip, "open", lambda *_: pytest.fail("it must not be unpacked"))
    with pytest.raises(AutosegError, match=r"bomb\.tar\.gz would unpack to"):
        Source(bomb)
    assert not any(temporary.iterdir())


def test_a_tar_gz_that_lies_about_its_size_is_stopped_at_the_limit(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_HARMLESS", 8 * MEGABYTE)
    liar = temporary.parent / "liar.tar.gz"
    # The stated size is that of the last part, of several.
    liar.write_bytes(b"".join(packed_zeros(5) for _ in range(4)) + packed_zeros(0))
    with pytest.raises(AutosegError, match="would unpack to"):
        Source(liar)
    assert not any(temporary.rglob("*.tar"))


def test_a_full_disk_of_temporary_files_is_not_filled(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 4 * MEGABYTE})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(AutosegError, match="set TMPDIR"):
        Source(tar_gz(temporary.parent / "large.tar.gz", 10))
    assert not any(temporary.iterdir())


def nested(folder: Path) -> Path:
    inner = {f"{number}.zip": zip_of(folder / "inner", {}, extra=("a.png", 10)).read_bytes() for number in range(4)}
    return zip_of(folder / "nested.zip", inner)


def overlapping(folder: Path) -> Path:
    """Many members of the directory share one body (as in Fifield's zip bombs)."""
    path = zip_of(folder / "one.zip", {"a.png": np.random.default_rng(0).bytes(5000)})
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry, number = content[start:end], 300
    directory = b"".join(entry.replace(b"a.png", f"{index:05d}".encode()) for index in range(number))
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, len(directory), start, 0)
    (folder / "overlapping.zip").write_bytes(content[:start] + directory + ending)
    return folder / "overlapping.zip"


@pytest.mark.parametrize("make", [
    lambda folder: zip_of(folder / "total.zip", {}, extra=("a.png", 30)),
    lambda folder: zip_of(folder / "notes.zip", {}, extra=("notes.txt", 30)),
    nested,
    lambda folder: zip_of(folder / "tar.zip", {"inner.tar.gz": packed_zeros(30)}),
    overlapping,
], ids=["one member", "no image", "archives in an archive", "tar.gz in a zip", "overlapping members"])  # fmt: skip
def test_zip_archives_have_limits_too(temporary: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_HARMLESS", 25 * MEGABYTE)
    with pytest.raises(AutosegError, match=r"would unpack to|overlap"):
        Source(make(temporary.parent))
    assert not any(temporary.rglob("*.png")) and not any(temporary.rglob("*.tar"))


def test_archives_have_a_limit_of_members(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    path = zip_of(temporary.parent / "many.zip", {f"{number}.txt": b"" for number in range(6)})
    with tarfile.open(temporary.parent / "many.tar", "w") as archive:
        for number in range(6):
            archive.addfile(tarfile.TarInfo(f"{number}.txt"))
    for many in (path, temporary.parent / "many.tar"):
        with pytest.raises(AutosegError, match="more than 5 files"):
            Source(many)


def test_masks_that_shrink_to_a_two_hundredth_are_no_bomb(tmp_path: Path) -> None:
    mask = np.zeros((1000, 1000), np.uint8)
    mask[200:700, 300:800] = 255
    bitmap = cv2.imencode(".bmp", mask)[1].tobytes()
    with Source(zip_of(tmp_path / "masks.zip", {f"{number}.bmp": bitmap for number in range(20)})) as source:
        assert len(source.entries) == 20 and source.entries[0].bytes() == bitmap


@pytest.fixture
def bundle(tmp_path: Path, bright_is_registered: None) -> Path:
    export_bundle(Predictor([trained()]), [tmp_path], tmp_path / "b.zip")
    return tmp_path / "b.zip"


def contents_of(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_large_member(contents: dict[str, bytes], path: Path, megabytes: int, name: str = "bright/fold_0/extra.bin") -> Path:
    """The bundle lists the member with its true size and hash."""
    listed = json.loads(contents[CONTENTS])
    digest = hashlib.sha256()
    for block in zeros(megabytes):
        digest.update(block)
    listed["files"][name] = {"sha256": digest.hexdigest(), "size": megabytes * MEGABYTE}
    return zip_of(path, {**contents, CONTENTS: json.dumps(listed).encode()}, extra=(name, megabytes))


def test_a_bundle_with_a_member_of_zeros_is_refused_before_it_is_unpacked(bundle: Path, tmp_path: Path) -> None:
    bomb = with_large_member(contents_of(bundle), tmp_path / "bomb.zip", 100)
    assert bomb.stat().st_size < MEGABYTE
    tracemalloc.start()
    try:
        with pytest.raises(AutosegError, match=r"bomb\.zip would unpack to"):
            read_bundle(bomb)
        assert tracemalloc.get_traced_memory()[1] < 5 * MEGABYTE
    finally:
        tracemalloc.stop()
    hidden = zip_of(tmp_path / "hidden.zip", contents_of(bundle), extra=("unlisted.bin", 100))
    with pytest.raises(AutosegError, match="would unpack to"):
        read_bundle(hidden)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bundles_have_the_packing_of_the_export(bundle: Path, tmp_path: Path, how: int) -> None:
    assert read_bundle(zip_of(tmp_path / "again.zip", contents_of(bundle)))[0].members, "deflated by a program"
    with pytest.raises(AutosegError, match="packed in a way"):
        read_bundle(zip_of(tmp_path / "other.zip", contents_of(bundle), how=how))


def test_encrypted_bundles_and_two_files_of_one_name_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 1)
    (tmp_path / "encrypted.zip").write_bytes(content)
    with pytest.raises(AutosegError, match="is encrypted"):
        read_bundle(tmp_path / "encrypted.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(CONTENTS, "{}")
    with pytest.raises(AutosegError, match="two files of one name"):
        read_bundle(bundle)


def test_probabilities_of_another_size_are_not_unpacked(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": (2, 10_000, 100_000)})
    header = stream.getvalue()
    path = zip_of(tmp_path / "a.npz", {"probabilities.npy": header + bytes(MEGABYTE)})
    with pytest.raises(AutosegError, match=r"shape \(2, 10000, 100000\), not \(2, 30, 40\)"):
        read_probabilities(path, 2, (30, 40))
    np.savez_compressed(tmp_path / "b.npz", probabilities=np.zeros((2, 30, 40), np.float16))
    assert read_probabilities(tmp_path / "b.npz", 2, (30, 40)).shape == (2, 30, 40)


def test_what_follows_the_pixels_of_a_volume_is_not_unpacked(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii.gz", picture(channels=1)[0])
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    # A member of 4 GB of zeros would take seconds; a damaged one shows whether it is read at all.
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content + bytes(2 * MEGABYTE)) + b"\x1f\x8b" + b"damaged" * 20)
    assert read_image(tmp_path / "b.nii.gz").array.shape == (1, 48, 80)
    for offset in (1e9, -5.0, float("inf"), float("nan")):
        far = content[:108] + struct.pack("<f", offset) + content[112:]
        (tmp_path / "c.nii.gz").write_bytes(gzip.compress(far))
        with pytest.raises(AutosegError, match="has its pixels at byte"):
            read_image(tmp_path / "c.nii.gz")


@pytest.mark.parametrize(("height", "width"), [(100_000, 100_000), (-5, 20), (0, 0)])
def test_annotations_that_state_a_size_of_their_own(tmp_path: Path, height: int, width: int) -> None:
    write_image(tmp_path / "set" / "a.png", picture()[0])
    shapes = [{"label": "x", "points": [[1, 1], [9, 1], [9, 9]]}]
    table = {"imagePath": "a.png", "imageHeight": height, "imageWidth": width, "shapes": shapes}
    (tmp_path / "set" / "a.json").write_text(json.dumps(table))
    with pytest.raises(AutosegError, match=r"is too large: 100000 x 100000|state a size of"):
        api.convert("labelme", tmp_path / "set", "Set", root=tmp_path / "root")


def test_a_table_of_names_that_multiply_is_refused(tmp_path: Path) -> None:
    """Ten lines of YAML whose text has 10^9 letters."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{one}: &{one} [{', '.join([f'*{before}'] * 10)}]" for before, one in zip("abcdefgh", "bcdefghi", strict=True)]
    write_image(tmp_path / "set" / "images" / "a.png", picture()[0])
    (tmp_path / "set" / "labels").mkdir()
    (tmp_path / "set" / "labels" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")
    (tmp_path / "set" / "data.yaml").write_text("\n".join([*lines, "names: [*i]"]))
    with pytest.raises(AutosegError, match="names are no list of texts"):
        api.convert("yolo", tmp_path / "set", "Set", root=tmp_path / "root")


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the usual limit, which is a second of processor time."""
    assert patterns._SECONDS == 1
    monkeypatch.setattr(patterns, "_SECONDS", 0.2)


@pytest.mark.parametrize("expression", [
    r"((?:a+)+)b", r"((?:x+x+)+)y", r"((?:\w+\s?)*)!$", r"(?:.*a){25}(b)", r"((?:a|aa)+)c",
])  # fmt: skip
def test_expressions_that_take_for_ever_end_with_a_message(
    tmp_path: Path, short_time: None, expression: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = generated.write_folders(tmp_path, "lesion", 3)
    for folder in (images, masks):
        (folder / "lesion_000.png").rename(folder / f"{'a' * 60} {'x' * 60}.png")
    where = ["--root", str(tmp_path / "root")]
    folders = ["folders", "--images", str(images), "--masks", str(masks), "--name", "X"]
    assert convert.main([*where, *folders, "--groups", expression]) == 2
    assert "takes too long" in capsys.readouterr().err
    assert not list((tmp_path / "root").rglob("*.png"))


def test_every_place_that_takes_an_expression_has_the_limit(
    tmp_path: Path, short_time: None, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = generated.write_folders(tmp_path, "lesion", 3)
    for folder in (images, masks):
        (folder / "lesion_000.png").rename(folder / f"{'a' * 60}!.png")
    root = tmp_path / "root"
    api.convert_folders(images, masks, "X", root=root)
    assert plan_and_preprocess.main(["501", "--root", str(root), "--groups", r"((?:a+)+)b"]) == 2
    assert "takes too long" in capsys.readouterr().err
    fingerprint = SimpleNamespace(cases=[SimpleNamespace(case="a" * 60, group="")], dataset="X")
    with pytest.raises(AutosegError, match="takes too long"):
        strata._by_name("case", r"(?:a+)+b", fingerprint)  # type: ignore[arg-type]
    layout = ["mask_per_class", str(tmp_path), "--name", "Y", "--groups", r"((?:a+)+)b", "--root", str(root)]
    assert convert.main(layout) == 2
    assert "takes too long" in capsys.readouterr().err


@pytest.mark.parametrize("expression", [
    "(", "(a)(b)", "a", "*", "(" * 5000 + ")" * 5000, "(a{99999999999999999999})", "(?P<n>a)(?P=n",
])  # fmt: skip
def test_expressions_that_are_none_are_refused(tmp_path: Path, expression: str, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = generated.write_folders(tmp_path, "lesion", 3)
    folders = ["folders", "--images", str(images), "--masks", str(masks), "--name", "X", "--groups", expression]
    assert convert.main(["--root", str(tmp_path / "root"), *folders]) == 2
    assert "expression for groups" in capsys.readouterr().err


def test_what_a_search_finds() -> None:
    names = ["patient01_a", "none", "Grün 7", "\udcff3", ""]
    assert search(r"\d+", names, "it", "") == [["01"], None, ["7"], ["3"], None]
    assert search(r"(x)?\d", names, "it", "") == [["0", None], None, ["7", None], ["3", None], None]
    assert search(r"a", [], "it", "") == []
    assert len(search(r"(\d+)$", [f"case_{number}" for number in range(100_000)], "it", "")) == 100_000
