"""A 20,000 x 20,000 picture: how much memory its prediction takes above the loaded model.

    python -m benchmarks.large_image --bundle FILE.zip [--side 20000] [--rows 20000] [--png | --jpeg] [--light]

Prints the peak memory above the memory of the process with the loaded model, after a first small prediction, and the
seconds (Linux only). The picture is an RGB TIFF in tiles, of repeated noise; the networks are the bundle's. --light replaces
each by one convolution, as thousands of tiles would take hours; the memory of everything else is the same.
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
import torch

from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.files import predict_files

_TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--rows", type=int, help="of a picture that is not square")
    parser.add_argument("--light", action="store_true", help="one convolution in place of each network")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--png", action="store_true", help="a PNG, which has to be decoded at once")
    kind.add_argument("--jpeg", action="store_true", help="a JPEG, which has to be decoded at once")
    options = parser.parse_args()
    predictor = load_bundle(options.bundle, device="cpu")
    if options.light:
        for engine, _ in predictor.engines:
            engine.network = torch.nn.Conv2d(engine.preprocessing.channels, engine.scheme.outputs, 3, padding=1)
    rows = options.rows or options.side
    small = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    predictor(cv2.GaussianBlur(small, (0, 0), 3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("scan.png" if options.png else "scan.jpg" if options.jpeg else "scan.tif")
        _write(path, (rows, options.side), small)
        before, began = _held(), time.perf_counter()
        report = predict_files(predictor, path, Path(folder) / "out")
        assert not report.failed, report
        print(f"{path.name}, {rows} x {options.side} pixels{', light network' if options.light else ''}")
        print(f"{_peak() - before:.2f} GB above {before:.2f} GB with the model")
        print(f"{time.perf_counter() - began:.0f} s, geometry {predictor.preprocessing_configs[0].geometry}")


def _write(path: Path, size: tuple[int, int], small: np.ndarray) -> None:
    """Write tile by tile if the format allows it, else in a separate process, so that writing does not raise the peak."""
    tile = np.ascontiguousarray(small[:_TILE, :_TILE])
    if path.suffix == ".tif":
        blocks = (tile for _ in range(-(-size[0] // _TILE) * -(-size[1] // _TILE)))
        tifffile.imwrite(
            path, blocks, shape=(*size, 3), dtype=np.uint8, photometric="rgb", tile=(_TILE, _TILE), compression="zlib"
        )
        return
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_write_at_once, args=(path, size, tile))
    process.start()
    process.join()


def _write_at_once(path: Path, size: tuple[int, int], tile: np.ndarray) -> None:
    down, across = (-(-length // _TILE) for length in size)
    cv2.imwrite(str(path), np.tile(tile, (down, across, 1))[: size[0], : size[1]], [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _held() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
