"""What no program could do without: read, resize and write. One thread, OpenCV.

    python -m benchmarks.suite.bounds prepare RAW OUTPUT --size 512x512 --count 200
    python -m benchmarks.suite.bounds masks FOLDER --count 200
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def read(path: Path) -> NDArray[np.generic]:
    """(H, W) or (H, W, 3)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


def prepare(raw: Path, output: Path, size: tuple[int, int] | None, count: int) -> None:
    """Decode every image and mask, bring them to `size` (height, width; None: as they are), append them to two files."""
    output.mkdir(parents=True, exist_ok=True)
    for part, interpolation in (("imagesTr", cv2.INTER_AREA), ("labelsTr", cv2.INTER_NEAREST)):
        with (output / part).open("wb") as stream:
            for path in islice(sorted((raw / part).iterdir()), count):
                pixels = read(path)
                if size is not None:
                    pixels = cv2.resize(pixels, size[::-1], interpolation=interpolation)
                stream.write(pixels.data)


def read_masks(folder: Path, count: int) -> None:
    for part in ("predictions", "references"):
        for path in islice(sorted((folder / part).glob("*.png")), count):
            read(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "masks"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--size", default="", help="HxW; as it is where it is not given")
    parser.add_argument("--count", type=int, default=1 << 30)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.what == "masks":
        read_masks(options.folder, options.count)
        return
    height, _, width = options.size.partition("x")
    prepare(options.folder, options.output, (int(height), int(width)) if height else None, options.count)


if __name__ == "__main__":
    main()
