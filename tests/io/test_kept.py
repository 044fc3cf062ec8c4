"""What was read once is not decoded again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import Kept, read_case, read_label
from autoseg.support.errors import AutosegError

RANDOM = np.random.default_rng(0)


def files(folder: Path) -> tuple[list[Path], Path]:
    """Two channels of 16 bits, and a mask."""
    paths = [folder / f"case_000{place}.png" for place in range(2)]
    for path in paths:
        cv2.imwrite(str(path), RANDOM.integers(0, 65535, (20, 30), dtype=np.uint16))
    cv2.imwrite(str(folder / "mask.png"), RANDOM.integers(0, 3, (20, 30), dtype=np.uint8))
    return paths, folder / "mask.png"


def test_the_second_reading_is_the_first_one(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    image, label = read_case(paths), read_label(mask)
    with Kept(tmp_path) as kept:
        kept.image(paths), kept.label(mask)
        for path in (*paths, mask):
            path.unlink()
        again, labels = kept.image(paths), kept.label(mask)
    assert again.array.dtype == np.uint16 and np.array_equal(again.array, image.array) and again.notes == image.notes
    assert labels.array.dtype == np.uint8 and np.array_equal(labels.array, label.array)


def test_colours_come_back_in_their_order(tmp_path: Path) -> None:
    picture = RANDOM.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with Kept(tmp_path) as kept:
        first, second = kept.image([tmp_path / "a.png"]), kept.image([tmp_path / "a.png"])
    assert np.array_equal(first.array, np.moveaxis(picture[..., ::-1], 2, 0)) and np.array_equal(second.array, first.array)


def test_beyond_the_limit_files_are_read_again(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    with Kept(tmp_path, limit=700) as kept:
        kept.image(paths), kept.label(mask)
        for path in (*paths, mask):
            path.unlink()
        assert kept.label(mask).array.shape == (20, 30), "600 bytes"
        with pytest.raises(AutosegError, match="does not exist"):
            kept.image(paths)


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    paths, _ = files(tmp_path)
    before = set(tmp_path.iterdir())
    with Kept(tmp_path) as kept:
        kept.image(paths)
    assert set(tmp_path.iterdir()) == before


def test_what_is_read_last_is_not_kept(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    with Kept(tmp_path) as kept:
        kept.label(mask)
        kept.keep_no_more()
        assert kept.image(paths).array.shape == (2, 20, 30)
        for path in (*paths, mask):
            path.unlink()
        assert kept.label(mask).array.shape == (20, 30), "it was kept before"
        with pytest.raises(AutosegError, match="does not exist"):
            kept.image(paths)


def test_copies_keep_in_files_of_their_own_and_tell_it(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    with Kept(tmp_path, processes=2) as kept, Kept(tmp_path, processes=2) as copy:
        copy._streams = kept._streams  # As in a copy of the process.
        copy.write_to(1)
        kept.label(mask), copy.image(paths)
        assert kept.news().keys() == {(str(mask),)} and not kept.news()
        kept.hear(copy.news())
        assert kept.news().keys() == {tuple(map(str, paths))}, "what was heard is told as well"
        expected = read_case(paths)
        for path in (*paths, mask):
            path.unlink()
        assert kept.label(mask).array.shape == (20, 30) and np.array_equal(kept.image(paths).array, expected.array)


@pytest.mark.parametrize(("limit", "number", "keeps"), [(3000, 1, True), (2999, 1, False), (3000, 0, True), (3000, 2, False)])
def test_processes_share_the_limit_and_one_without_a_file_keeps_nothing(
    tmp_path: Path, limit: int, number: int, keeps: bool
) -> None:
    paths, mask = files(tmp_path)
    with Kept(tmp_path, limit, processes=2) as kept:
        kept.image(paths)  # 2400 bytes
        kept.write_to(number)
        kept.label(mask)  # 600
        assert ((str(mask),) in kept.news()) == keeps
