"""Folders and archives as one list of files; archives that mean harm are refused."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from autoseg.support.errors import AutosegError
from dataset_conversion.reading import read_image_entry, read_label_entry
from dataset_conversion.source import Source
from tests.dataset_conversion.official import volume
from tests.dataset_conversion.pictures import box, colours, save


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def png(array):
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_folders_and_archives_hold_the_same(tmp_path):
    image, mask = colours(), box(255)
    save(tmp_path / "set" / "images" / "a (1).png", image)
    save(tmp_path / "set" / "masks" / "a (1).png", mask)
    save(tmp_path / "set" / "__MACOSX" / "._a.png", mask)
    (tmp_path / "set" / ".DS_Store").write_text("x")
    whole = packed(tmp_path / "set.zip", {f"images/{'a (1)'}.png": png(image), "masks\\a (1).png": png(mask)})
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "set" / "images", "images")
        archive.add(tmp_path / "set" / "masks", "masks")
    with tarfile.open(tmp_path / "plain.tar", "w") as archive:
        archive.add(tmp_path / "set" / "images", "images")
        archive.add(tmp_path / "set" / "masks", "masks")
    for path in (tmp_path / "set", whole, tmp_path / "set.tar.gz", tmp_path / "plain.tar"):
        with Source(path) as source:
            assert [entry.name for entry in source.entries] == ["images/a (1).png", "masks/a (1).png"]
            assert (read_image_entry(source.entries[0]).array == image.transpose(2, 0, 1)).all()
            assert (read_label_entry(source.entries[1]).array == mask).all()
            assert source.find(r"IMAGES/a.*\.png")[0][0] is source.entries[0] and not source.find(r"ges/a.*")


def test_archives_in_folders_and_in_archives(tmp_path):
    inner = packed(tmp_path / "inner.zip", {"x.txt": "inside"}).read_bytes()
    (tmp_path / "set").mkdir()
    packed(tmp_path / "set" / "one.zip", {"deep.zip": inner, "y.txt": "text"})
    with Source(tmp_path / "set") as source:
        assert [entry.name for entry in source.entries] == ["one/deep/x.txt", "one/y.txt"]
        assert source.entries[0].text() == "inside" and "one.zip" in source.entries[0].where


def test_files_that_need_others_are_read_from_archives(tmp_path):
    volume(tmp_path / "set" / "a.mhd", box(), (0.5, 0.25))
    names = sorted((tmp_path / "set").iterdir())
    archive = packed(tmp_path / "set.zip", {path.name: path.read_bytes() for path in names})
    with Source(archive) as source:
        header, pixels = sorted(source.entries, key=lambda entry: entry.suffix)
        decoded = read_image_entry(header, pixels)
        assert (decoded.array[0] == box()).all() and decoded.spacing == pytest.approx((0.5, 0.25))


def test_complaints_name_the_member_and_not_a_temporary_file(tmp_path):
    archive = packed(tmp_path / "set.zip", {"images/a.png": b"no picture"})
    with Source(archive) as source, pytest.raises(AutosegError) as caught:
        read_image_entry(source.entries[0])
    assert f"{archive}/images/a.png" in str(caught.value) and "autoseg_" not in str(caught.value)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "C:/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_unsafe_paths_are_refused(tmp_path, name):
    with pytest.raises(AutosegError, match="unsafe path"):
        Source(packed(tmp_path / "set.zip", {name: b"x"}))


def test_links_in_archives_are_refused(tmp_path):
    info = zipfile.ZipInfo("link.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        member = tarfile.TarInfo("link.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    for name in ("link.zip", "link.tar"):
        with pytest.raises(AutosegError, match="is a link"):
            Source(tmp_path / name)


def test_a_member_that_unpacks_to_far_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as stream:
        for _ in range(260):
            stream.write(bytes(2**20))
    with pytest.raises(AutosegError, match="would unpack to"):
        Source(tmp_path / "bomb.zip")


def test_damaged_archives(tmp_path):
    whole = packed(tmp_path / "a.zip", {"a.png": png(colours(size=(64, 64)))})
    content = bytearray(whole.read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[:200])
    with pytest.raises(AutosegError, match="cannot be read as a ZIP"):
        Source(tmp_path / "cut.zip")
    content[80:90] = bytes(10)
    (tmp_path / "bad.zip").write_bytes(content)
    with Source(tmp_path / "bad.zip") as source, pytest.raises(AutosegError, match=r"bad\.zip/a\.png cannot be read"):
        source.entries[0].bytes()
    (tmp_path / "x.tar").write_text("no archive at all")
    with pytest.raises(AutosegError, match="TAR"):
        Source(tmp_path / "x.tar")


def test_what_is_not_there_or_not_known(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.rar").write_text("x")
    for name, text in (("missing", "does not exist"), ("empty", "is empty"), ("a.rar", "does not read")):
        with pytest.raises(AutosegError, match=text):
            Source(tmp_path / name)


def test_signatures_change_with_the_files(tmp_path):
    save(tmp_path / "a.png", colours())
    with Source(tmp_path) as source:
        first = source.signature()
    with Source(tmp_path) as source:
        assert source.signature() == first
    save(tmp_path / "a.png", np.flipud(colours()).copy())
    with Source(tmp_path) as source:
        assert source.signature() != first
