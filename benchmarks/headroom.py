"""Whether the loader could feed a GPU that is not here: `python -m benchmarks.headroom [--sizes 256,512] [--seconds 2]`.

No step times of these networks on an H100 are published, so they are reckoned from what is: PyTorch trains ResNet-50 at 2,600
images of 224 x 224 a second on an A100 (issue 1491 of pytorch-image-models; AMP, channels last), and an H100 is about twice as
fast at networks that see images (Lambda's analysis of the H100). With 8.2 billion operations a pass, and three passes a step,
that is 128 trillion operations a second. Networks less regular than ResNet-50 get less out of a GPU and ask less of the loader.
For each network's default variant: images a second at that rate, and the cores that the fast chain takes to make them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import torch

from autoseg.models import registry
from autoseg.planning.sizing import Need, flops_of
from autoseg.schema.plan import Augmentation
from benchmarks.loader import CASES, ours, store_of
from benchmarks.suite.images import write_raw

A100_RESNET50, H100_TO_A100, RESNET50 = 2600, 2.0, 8.2e9
# A backward pass costs twice a forward pass.
PASSES = 3
OPERATIONS = A100_RESNET50 * H100_TO_A100 * RESNET50 * PASSES


def wanted(name: str, side: int) -> float | None:
    """Images a second that the network takes at `OPERATIONS` a second; None where it has a smaller input of its own."""
    spec = registry.spec(name)
    inside = min(side, spec.size_inside(spec.default_variant) or side)
    if 2 * inside <= side:
        return None
    need = Need(spec=spec, channels=3, outputs=3, precision="bf16", optimizer="adamw", budget=0, batch=1)
    return OPERATIONS / (PASSES * flops_of(need, spec.default_variant, (inside, inside)))


def made(side: int, seconds: float) -> float:
    """Augmented images a second of one core's time."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_raw(raw, "rgb", CASES, side, side)
        rate = ours(store_of(raw, Path(folder) / "store", side), side, Augmentation())
        rate(seconds / 4)
        return rate(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256,512", help="sides of the square images (default: 256,512)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of processor time to measure the loader for")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sides = [int(text) for text in options.sizes.split(",")]
    rates = {side: made(side, options.seconds) for side in sides}
    print(f"The loader makes {', '.join(f'{rate:.0f} images a second at {side}' for side, rate in rates.items())}, one core.\n")
    headings = " | ".join(f"images/s at {side} | cores at {side}" for side in sides)
    print(f"| model | {headings} |\n|{'---|' * (1 + 2 * len(sides))}")
    for name in registry.names():
        asked = [(wanted(name, side), rates[side]) for side in sides]
        cells = [" | " if rate is None else f"{rate:,.0f} | {rate / core:.2g}" for rate, core in asked]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
