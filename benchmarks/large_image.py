"""A 20,000 x 20,000 picture: how much memory its prediction takes above the loaded model.

    python -m benchmarks.large_image --bundle FILE.zip [--side 20000]

Prints the peak of the process's memory before and after, the difference, and the seconds. The picture is a gray or RGB
TIFF in tiles, made of repeated noise; the network is the bundle's.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tifffile

from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.files import predict_files

_TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--png", action="store_true", help="a PNG, which has to be decoded at once")
    options = parser.parse_args()
    predictor = load_bundle(options.bundle, device="cpu")
    small = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    predictor(cv2.GaussianBlur(small, (0, 0), 3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("scan.png" if options.png else "scan.tif")
        _write(path, options.side, small)
        before, began = _memory(), time.perf_counter()
        report = predict_files(predictor, path, Path(folder) / "out")
        assert not report.failed, report
        print(f"{path.name}, {options.side} x {options.side} pixels")
        print(f"{_memory() - before:.2f} GB above {before:.2f} GB with the model")
        print(f"{time.perf_counter() - began:.0f} s, geometry {predictor.preparations[0].geometry}")


def _write(path: Path, side: int, small: np.ndarray) -> None:
    """Tile by tile where the format allows, in a process of its own where not, so that writing leaves no peak behind."""
    tile = np.ascontiguousarray(small[:_TILE, :_TILE])
    if path.suffix == ".tif":
        blocks = (tile for _ in range((-(-side // _TILE)) ** 2))
        tifffile.imwrite(
            path, blocks, shape=(side, side, 3), dtype=np.uint8, photometric="rgb", tile=(_TILE, _TILE), compression="zlib"
        )
        return
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_write_png, args=(path, side, tile))
    process.start()
    process.join()


def _write_png(path: Path, side: int, tile: np.ndarray) -> None:
    times = -(-side // _TILE)
    cv2.imwrite(str(path), np.tile(tile, (times, times, 1))[:side, :side], [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
