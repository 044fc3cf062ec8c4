"""Readers that are not autoseg's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoseg.io import Image, Label, is_image, mask_ending, read_image, read_label, stem_of, suffix_of
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import READERS

PIXELS = np.arange(12, dtype=np.int16).reshape(1, 3, 4)


@pytest.fixture
def add() -> Iterator[Callable[..., None]]:
    """Adds readers for a test: suffix -> its parts."""
    added: list[str] = []

    def reader(suffix: str, **parts: Any) -> None:
        READERS.add(suffix, SimpleNamespace(**parts))
        added.append(suffix)

    yield reader
    for suffix in added:
        READERS.remove(suffix)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "one.two.SCAN"
    path.write_bytes(b"content")
    return path


def image(array: np.ndarray) -> Callable[[Path], Image]:
    return lambda path: Image(array=array, spacing=(0.5, 0.25))


def test_a_suffix_of_two_parts_is_whole_and_capitals_do_not_count(add: Callable[..., None], scan: Path) -> None:
    assert not is_image(scan) and suffix_of(scan) == ".scan"
    add(".two.scan", read_image=image(PIXELS))
    assert is_image(scan) and suffix_of(scan) == ".two.scan" and stem_of(scan) == "one"
    assert mask_ending(".two.scan") == ".png" and suffix_of("a.nii.gz") == ".nii.gz" and suffix_of("a.scan") == ".scan"


def test_values_become_what_stages_work_with(add: Callable[..., None], scan: Path) -> None:
    add(".scan", read_image=image(PIXELS), stored_as=".mha")
    read = read_image(scan)
    assert read.array.dtype == np.float32 and read.array.shape == (1, 3, 4) and read.spacing == (0.5, 0.25)
    label = read_label(scan)
    assert label.array.dtype == np.uint8 and label.array.shape == (3, 4) and label.spacing == (0.5, 0.25)
    assert mask_ending(".SCAN") == ".mha"


def test_it_may_read_masks_itself(add: Callable[..., None], scan: Path) -> None:
    mask = np.ones((3, 4), np.uint8)
    add(".scan", read_image=image(PIXELS), read_label=lambda path: Label(array=mask, spacing=None))
    assert read_label(scan).array is mask


def fails(path: Path) -> Image:
    raise EOFError("too short")


def refuses(path: Path) -> Image:
    raise AutosegError(f"{path} is of another machine", "export it again")


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        (fails, "one.two.SCAN cannot be read by this program: EOFError: too short"),
        (refuses, "one.two.SCAN is of another machine"),
        (image(PIXELS[0]), r"this program returns an array of shape \(3, 4\) for .*one.two.SCAN"),
        (image(PIXELS * np.nan), "12 values that are not finite"),
        (lambda path: None, "cannot be read by this program: AttributeError"),
    ],
)
def test_what_it_cannot_read_is_an_error_with_the_file(
    add: Callable[..., None], scan: Path, reader: Callable[[Path], Image], says: str
) -> None:
    add(".scan", read_image=reader)
    with pytest.raises(AutosegError, match=says):
        read_image(scan)


def test_a_mask_of_channels_or_fractions_is_none(add: Callable[..., None], scan: Path) -> None:
    add(".scan", read_image=image(PIXELS + 0.5))
    with pytest.raises(AutosegError, match="is no mask"):
        read_label(scan)


def test_what_reads_nothing_is_refused(add: Callable[..., None], scan: Path) -> None:
    add(".scan", read=image(PIXELS))
    with pytest.raises(AutosegError, match="'.scan' of this program has no read_image"):
        read_image(scan)
