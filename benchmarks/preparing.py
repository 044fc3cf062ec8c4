"""What preparing an image is made of: `python -m benchmarks.preparing [--kind gray8] [--count 200] [--low 256] [--high 640]`.

Measures generated images on one thread with Python's profiler, and prints milliseconds an image of each step, what it calls
included: of the fingerprint first, then of the arrays (384 x 384). Steps within another are counted in both.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from autoseg.fingerprint.case import measure_case
from autoseg.io import Case, Kept, RawDataset, read_case
from autoseg.preprocessing.build import _prepare
from autoseg.preprocessing.store import StoreWriter
from autoseg.schema.plan import Preparation
from autoseg.support.allocator import hold_memory
from autoseg.support.workspace import Workspace
from benchmarks.suite.images import KINDS, write_raw

_SIZE = (384, 384)
STEPS = (
    "measure_case", "load_case", "case_faults", "classes_in", "_thickness", "count", "brightness", "layering", "overlay_share",
    "busy_box", "thumbnail", "perceptual_hash", "_hash", "outline", "_prepare", "prepare_image", "prepare_label", "add",
)  # fmt: skip


def profile(raw: RawDataset, cases: Sequence[Case], kept: Kept, store: Path) -> pstats.Stats:
    pixels = read_case(cases[0].images).array
    preparation = Preparation(key="whole", geometry="whole", dtype=str(pixels.dtype), channels=len(pixels), size=_SIZE)
    profiler = cProfile.Profile()
    with StoreWriter(store, preparation.dtype, None) as writer:
        profiler.enable()
        for case in cases:
            measure_case(case, raw.spec, raw.scheme, "", kept)
        for case in cases:
            one = _prepare(case, preparation, kept)
            writer.add(one.name, one.image, one.label, one.before)
        profiler.disable()
    return pstats.Stats(profiler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(KINDS), default="gray8")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--low", type=int, default=256)
    parser.add_argument("--high", type=int, default=640)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    hold_memory(128 << 20)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_raw(root / "raw" / "Dataset901_Drawn", options.kind, options.count, options.low, options.high)
        raw = RawDataset.open(Workspace.at(root).dataset(901))
        with Kept(root / "kept") as kept:
            found = profile(raw, raw.cases, kept, root)
    seconds = dict.fromkeys(STEPS, 0.0)
    for (path, _, step), (*_, within, _) in found.stats.items():  # type: ignore[attr-defined]
        if step in seconds and "autoseg" in path:
            seconds[step] += within
    print(f"| step | ms an image ({options.kind}, {options.low}-{options.high} px) |\n|---|---|")
    for step, taken in seconds.items():
        print(f"| `{step}` | {taken / options.count * 1e3:.2f} |")


if __name__ == "__main__":
    main()
