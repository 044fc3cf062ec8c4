"""What was read once is not decoded again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import DecodedImageCache, read_case, read_label
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
    with DecodedImageCache(tmp_path) as cache:
        cache.image(paths), cache.label(mask)
        for path in (*paths, mask):
            path.unlink()
        again, labels = cache.image(paths), cache.label(mask)
    assert again.array.dtype == np.uint16 and np.array_equal(again.array, image.array) and again.notes == image.notes
    assert labels.array.dtype == np.uint8 and np.array_equal(labels.array, label.array)


def test_colours_come_back_in_their_order(tmp_path: Path) -> None:
    picture = RANDOM.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with DecodedImageCache(tmp_path) as cache:
        first, second = cache.image([tmp_path / "a.png"]), cache.image([tmp_path / "a.png"])
    assert np.array_equal(first.array, np.moveaxis(picture[..., ::-1], 2, 0)) and np.array_equal(second.array, first.array)


def test_beyond_the_limit_files_are_read_again(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    with DecodedImageCache(tmp_path, limit=700) as cache:
        cache.image(paths), cache.label(mask)
        for path in (*paths, mask):
            path.unlink()
        assert cache.label(mask).array.shape == (20, 30), "600 bytes"
        with pytest.raises(AutosegError, match="does not exist"):
            cache.image(paths)


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    paths, _ = files(tmp_path)
    before = set(tmp_path.iterdir())
    with DecodedImageCache(tmp_path) as cache:
        cache.image(paths)
    assert set(tmp_path.iterdir()) == before


def test_what_is_read_last_is_not_kept(tmp_path: Path) -> None:
    paths, mask = files(tmp_path)
    with DecodedImageCache(tmp_path) as cache:
        cache.label(mask)
        cache.stop_caching()
        assert cache.image(paths).array.shape == (2, 20, 30)
        for path in (*paths, mask):
            path.unlink()
        assert cache.label(mask).array.shape == (20, 30), "it was kept before"
        with pytest.raises(AutosegError, match="does not exist"):
            cache.image(paths)


def test_a_full_disk_ends_the_keeping_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, mask = files(tmp_path)

    class Full:
        def seek(self, place: int, whence: int) -> int:
            return 0

        def write(self, data: object) -> None:
            raise OSError("no space left on device")

        def close(self) -> None:
            pass

    with DecodedImageCache(tmp_path) as cache:
        cache._stream.close()
        monkeypatch.setattr(cache, "_stream", Full())
        assert cache.image(paths).array.shape == cache.image(paths).array.shape == (2, 20, 30)
        assert cache.label(mask).array.shape == (20, 30)
