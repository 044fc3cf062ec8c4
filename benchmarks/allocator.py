"""Effect of keeping freed memory on a training step on a CPU: `python -m benchmarks.allocator [--models a,b]`.

The trainer's step with the plan of protocol `quick`, with and without, each in its own process, alternating. Prints medians of
processor seconds per step, kernel seconds per step, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from autoseg.support.malloc import configure_glibc_malloc
from benchmarks.training_speed import planned, some_batch, step_of

_STEPS = 4
PRECISIONS = ("fp32", "bf16")


def one(model: str, precision: str, held: bool, side: int, batch: int) -> dict[str, float]:
    """Seconds of a step, kernel seconds, and peak memory in MiB."""
    if held:
        configure_glibc_malloc(limit=None)
    torch.set_num_threads(1)
    variant, size = planned(model, side, batch)
    step, images = step_of(model, variant, size, batch, precision, "contiguous"), some_batch(size, batch)
    for number in range(2):
        step(images, 1e-4, number)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    for number in range(_STEPS):
        step(images, 1e-4, number)
    after, taken = resource.getrusage(resource.RUSAGE_SELF), time.process_time() - began
    return {
        "step": taken / _STEPS,
        "kernel": (after.ru_stime - before.ru_stime) / _STEPS,
        "memory": after.ru_maxrss / 1024,
    }


def row(model: str, precision: str, options: argparse.Namespace) -> str:
    measurements: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(options.rounds):
        for held, taken in measurements.items():
            words = ["--one", model, "--precision", precision, "--side", str(options.side), "--batch", str(options.batch)]
            command = [sys.executable, "-m", "benchmarks.allocator", *words, *(["--held"] if held else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken.append(json.loads(done.stdout.splitlines()[-1]))
    ratio = statistics.median(a["step"] / b["step"] for a, b in zip(measurements[False], measurements[True], strict=True))
    cells = []
    for taken in measurements.values():
        middle = {name: statistics.median(each[name] for each in taken) for name in taken[0]}
        cells.append(f"{middle['step']:.2f} s, {middle['kernel']:.2f} s, {middle['memory']:.0f} MiB")
    return f"| `{model}` | {precision} | {cells[0]} | {cells[1]} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="nnunet,unet,segformer,efficientnet_lite0_upernet,transnext")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.precision, options.held, options.side, options.batch)))
        return
    print("| model | precision | glibc default: step, kernel, peak | freed memory kept | times faster |\n|---|---|---|---|---|")
    for model in options.models.split(","):
        for precision in PRECISIONS:
            print(row(model, precision, options), flush=True)


if __name__ == "__main__":
    main()
