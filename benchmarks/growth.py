"""How processor time and memory grow with the number of images, and with the members of an ensemble.

    python -m benchmarks.growth [--counts 100,1000,10000] [--side 96] [--root ROOT]
    python -m benchmarks.growth --trained ROOT --dataset D --model M [--folds 5]

First: generated RGB images; fingerprint, then plan and splits, then the arrays, then the evaluation of the
same number of masks, each in its own process. Second: images predicted by 1, 2, ... trained folds. Memory is peak memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import command
from benchmarks.suite.environment import Sides
from benchmarks.suite.processes import Ended, must
from benchmarks.suite.stages import Bench

_FIRST = 940


def shown(ended: Ended) -> str:
    return f"{ended.cpu:.1f} s, {ended.memory / 2**20:.0f} MiB"


def images(bench: Bench, number: int, count: int, side: int) -> list[str]:
    """Cost of each command for a number of images."""
    raw = bench.raw(number, "Grown", "rgb", count, (side, side))
    masks = bench.masks(count, side)
    root = ("--root", str(bench.root))
    for path in ("fingerprint.json", "plan.json", "splits.json"):
        (bench.root / "preprocessed" / raw.name / path).unlink(missing_ok=True)
    plan = ("plan_and_preprocess", raw.name, "--models", "nnunet", "--device", "cpu", *root)
    measured = must(command("fingerprint", raw.name, *root), "fingerprint")
    planned = must(command(*plan, "--no-preprocess"), "plan")
    prepared = must(command(*plan, "--set", "side=64"), "arrays")
    scored = must(command("evaluate", str(masks / "predictions"), str(masks / "references")), "evaluation")
    return [shown(one) for one in (measured, planned, prepared, scored)]


def members(options: argparse.Namespace) -> None:
    """Prediction of the dataset's own images by an increasing number of folds."""
    inputs = options.trained / "raw" / options.dataset / "imagesTr"
    chosen = [str(path) for path in sorted(inputs.iterdir())[: options.images]]
    print("| folds | processor time | peak memory |\n|---|---|---|")
    for count in range(1, options.folds + 1):
        folds = map(str, range(count))
        words = ("-d", options.dataset, "-m", options.model, "-o", str(options.root / "ensemble"), "-f", *folds)
        ended = must(command("predict", "-i", *chosen, *words, "--root", str(options.trained)), "prediction")
        print(f"| {count} | {ended.cpu:.1f} s | {ended.memory / 2**20:.0f} MiB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100,1000,10000")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/growth"))
    parser.add_argument("--trained", type=Path, help="the root of trained folds")
    parser.add_argument("--dataset")
    parser.add_argument("--model")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    if options.trained:
        members(options)
        return
    bench = Bench(options.root.absolute(), Sides("", "cpu", 1))
    print("| images | fingerprint | plan and splits | with arrays | evaluation |\n|---|---|---|---|---|")
    for place, count in enumerate(map(int, options.counts.split(","))):
        cells = images(bench, _FIRST + place, count, options.side)
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
