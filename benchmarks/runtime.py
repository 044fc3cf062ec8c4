"""The folder of `autoseg_export --runtime` against `autoseg_predict`: start-up, memory, size on disk, and pixels that differ.

    python -m benchmarks.runtime --bundle FILE.zip --folder FILE.runtime --images DIR --python PYTHON [--repeat 3]

PYTHON: of an environment with NumPy, ONNX Runtime and Pillow only. Both predict the first image, for the start-up, and all
images, in turn; medians.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.suite.processes import Ended, must, run

_FULL = "from autoseg.cli import predict; raise SystemExit(predict.main())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    images = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".png", ".jpg", ".tif", ".bmp"))
    full = [sys.executable, "-c", _FULL, "--bundle", str(options.bundle)]
    runtime = [str(options.python), "-I", str(options.folder / "run.py")]
    with tempfile.TemporaryDirectory() as place:
        sides = {
            "autoseg_predict": ([*full, "--device", "cpu", "--keep-names"], Path(place) / "full"),
            "run.py": (runtime, Path(place) / "runtime"),
        }
        ended: dict[tuple[str, int], list[Ended]] = {}
        for _ in range(options.repeat):
            for name, (words, output) in sides.items():
                for several in (images[:1], images):
                    command = [*words, "-i", *map(str, several), "-o", str(output)]
                    ended.setdefault((name, len(several)), []).append(must(run(command, dict(os.environ)), name))
        print(f"{'':16s} images  seconds  processor seconds  peak MB")
        for (name, count), runs in ended.items():
            wall, cpu, memory = (median(getattr(one, key) for one in runs) for key in ("seconds", "cpu", "memory"))
            print(f"{name:16s} {count:6d} {wall:8.2f} {cpu:18.2f} {memory / 1e6:8.0f}")
        different, pixels = _compare(Path(place) / "full", Path(place) / "runtime")
    print(f"{different} of {pixels} pixels differ")
    for name, python in (("autoseg", Path(sys.executable)), ("run.py", options.python)):
        print(f"packages of {name}: {_size(python.absolute().parent.parent) / 1e9:.2f} GB")


def _compare(full: Path, runtime: Path) -> tuple[int, int]:
    different = pixels = 0
    for path in full.glob("*.*"):
        if path.suffix != ".json":
            ours, theirs = np.array(Image.open(path)), np.array(Image.open(runtime / path.name))
            different, pixels = different + int((ours != theirs).sum()), pixels + ours.size
    return different, pixels


def _size(environment: Path) -> int:
    return sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
