"""Draws the images and masks for both programs: smooth photographs with grain, and blobs of two classes.

python -m benchmarks.suite.images raw FOLDER --kind rgb --count 200 --low 384 --high 768
python -m benchmarks.suite.images masks FOLDER --count 200 --high 512
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = {"rgb": (3, np.uint8), "gray8": (1, np.uint8), "gray16": (1, np.uint16)}
_CHANNELS = {1: {"0": "gray"}, 3: {"0": "R", "1": "G", "2": "B"}}
_GRAIN = 2.0
Array = NDArray[np.generic]


def draw(kind: str, index: int, low: int, high: int) -> tuple[Array, Array]:
    """Image (H, W) or (H, W, 3), and label map (H, W) of 0, 1, 2; both sides between `low` and `high` pixels."""
    channels, dtype = KINDS[kind]
    rng = np.random.default_rng((list(KINDS).index(kind), index))
    height, width = (int(side) for side in rng.integers(low, high + 1, 2))
    label = blobs(rng, height, width)
    coarse = rng.uniform(40, 215, (9, 9, channels)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    picture += 25.0 * cv2.GaussianBlur(label, (9, 9), 0)[..., None] + rng.normal(0, _GRAIN, picture.shape)
    values = picture.clip(0, 255) * (np.iinfo(dtype).max / 255)
    return values.astype(dtype)[..., 0] if channels == 1 else values.astype(dtype), label


def blobs(rng: np.random.Generator, height: int, width: int, shift: int = 0) -> Array:
    """Three ellipses of the first class, one disc of the second."""
    label, side = np.zeros((height, width), np.uint8), min(height, width)
    for value in (1, 1, 1, 2):
        centre = tuple(int(rng.uniform(0.15, 0.85) * length) + shift for length in (width, height))
        axes = tuple(int(part) for part in rng.uniform(0.05, 0.15, 2) * side)
        cv2.ellipse(label, centre, axes, float(rng.uniform(0, 180)), 0, 360, value, -1)
    return label


def write_raw(folder: Path, kind: str, count: int, low: int, high: int) -> None:
    """A raw dataset in nnU-Net v2's layout."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        image, label = draw(kind, index, low, high)
        _write(folder / "imagesTr" / f"case{index:05d}_0000.png", image)
        _write(folder / "labelsTr" / f"case{index:05d}.png", label)
    description = {
        "channel_names": _CHANNELS[KINDS[kind][0]],
        "labels": {"background": 0, "blob": 1, "disc": 2},
        "numTraining": count,
        "file_ending": ".png",
    }
    # Written last: marks a complete folder.
    (folder / "dataset.json").write_text(json.dumps(description))


def write_masks(folder: Path, count: int, side: int) -> None:
    """references/ and predictions/: the same blobs, shifted by a few pixels in the predictions."""
    for part, shift in (("predictions", 5), ("references", 0)):
        (folder / part).mkdir(parents=True)
        for index in range(count):
            _write(folder / part / f"case{index:05d}.png", blobs(np.random.default_rng((7, index)), side, side, shift))


def _write(path: Path, pixels: Array) -> None:
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels), path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("raw", "masks"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), default="rgb")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--low", type=int, default=384)
    parser.add_argument("--high", type=int, default=768)
    options = parser.parse_args()
    if options.what == "raw":
        write_raw(options.folder, options.kind, options.count, options.low, options.high)
    else:
        write_masks(options.folder, options.count, options.high)


if __name__ == "__main__":
    main()
