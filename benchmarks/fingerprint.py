"""How time and memory of the fingerprint grow with the number of images: `python -m benchmarks.fingerprint [--root ROOT]`.

Generated RGB images of 384 x 384 with one class; each run of autoseg_fingerprint is a process of its own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.workspace import Workspace
from benchmarks.commands import command, must

SIDE = 384


def generate(count: int, root: Path) -> str:
    """Full name of a set of so many images, drawn unless it is there."""
    workspace, name = Workspace.at(root), f"Generated{count}"
    for known in workspace.datasets():
        if known.short_name == name:
            return known.name
    dataset = workspace.new_dataset(910 + len(list(workspace.datasets())), name)
    for folder in ("imagesTr", "labelsTr"):
        (dataset.raw / folder).mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        image = cv2.resize(rng.integers(0, 255, (12, 12, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(mask, (int(rng.integers(80, 300)), int(rng.integers(80, 300))), 40, 1, -1)
        cv2.imwrite(str(dataset.raw / "imagesTr" / f"case{index:05d}_0000.png"), image)
        cv2.imwrite(str(dataset.raw / "labelsTr" / f"case{index:05d}.png"), mask)
    write_description(
        dataset.description, DatasetSpec({"0": "R", "1": "G", "2": "B"}, {"background": 0, "disc": 1}, count, ".png")
    )
    return dataset.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100,1000,4000")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/fingerprint"))
    options = parser.parse_args()
    print("| images | seconds | processor seconds | peak memory |\n|---|---|---|---|")
    for count in map(int, options.counts.split(",")):
        name = generate(count, options.root)
        (options.root / "preprocessed" / name / "fingerprint.json").unlink(missing_ok=True)
        started = time.perf_counter()
        ended = must(command("fingerprint", name, "--root", str(options.root)), name)
        seconds = time.perf_counter() - started
        print(f"| {count:,} | {seconds:.1f} | {ended.cpu:.1f} | {ended.memory / 2**20:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
