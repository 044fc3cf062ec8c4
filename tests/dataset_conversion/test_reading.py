"""GIF and PPM files: sizes are limited before anything is decoded, and damaged files are user errors."""

import gzip
import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg.support import archives
from autoseg.support.errors import AutosegError
from dataset_conversion.reading import read_image_entry, read_label_entry
from dataset_conversion.source import Source


def entry_of(folder, name, content):
    (folder / name).write_bytes(content)
    (entry,) = Source(folder).entries
    return entry


def gif(width=20, height=10, screen=None, frame=None):
    """A GIF of a gray ramp. screen, frame: (width, height) to write into the headers instead of the real ones."""
    stream = io.BytesIO()
    ramp = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, axis=0)
    Pillow.fromarray(ramp).save(stream, "GIF")
    content = bytearray(stream.getvalue())
    if screen:
        content[6:10] = struct.pack("<HH", *screen)
    if frame:
        # The image descriptor: a comma, x, y, width, height.
        start = content.index(b"," + struct.pack("<HHHH", 0, 0, width, height))
        content[start + 5 : start + 9] = struct.pack("<HH", *frame)
    return bytes(content)


@pytest.mark.parametrize("header", [{"screen": (60_000, 60_000)}, {"frame": (60_000, 60_000)}])
@pytest.mark.parametrize("read", [read_image_entry, read_label_entry])
def test_gifs_with_too_many_pixels_raise(tmp_path, header, read):
    entry = entry_of(tmp_path, "a.gif", gif(**header))
    with pytest.raises(AutosegError, match=r"a\.gif is too large"):
        read(entry)


def test_large_gifs_are_read_without_a_warning_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100)
    entry = entry_of(tmp_path, "a.gif", gif())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image_entry(entry).array.shape == (1, 10, 20)


@pytest.mark.parametrize("size", [(70_000, 70_000), (2_000_000, 10), (-1, 5), (10**14, 1)])
def test_ppm_files_with_impossible_sizes_raise(tmp_path, size):
    entry = entry_of(tmp_path, "a.ppm", b"P6\n%d %d\n255\n" % size + bytes(100))
    with pytest.raises(AutosegError, match=r"a\.ppm (is too large|cannot be read)"):
        read_image_entry(entry)


@pytest.mark.parametrize("name", ["a.gif", "a.ppm", "a.gif.gz", "a.ppm.gz"])
def test_empty_and_damaged_files_raise(tmp_path, name):
    contents = [gzip.compress(b"")] if name.endswith(".gz") else [gif()[:30], b"P6\n20", b"GIF89a"]
    for content in contents:
        with pytest.raises(AutosegError, match="cannot be read"):
            read_image_entry(entry_of(tmp_path, name, content))


def test_gzip_files_that_expand_beyond_the_limit_raise(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_HARMLESS", 1000)
    entry = entry_of(tmp_path, "a.ppm.gz", gzip.compress(b"P5\n100 20\n255\n" + bytes(2000)))
    with pytest.raises(AutosegError, match=r"a\.ppm\.gz would unpack to"):
        read_image_entry(entry)
    monkeypatch.setattr(archives, "_HARMLESS", 3000)
    assert read_image_entry(entry).array.shape == (1, 20, 100)
