"""How the cost of each network grows with the input.

    python -m benchmarks.input_growth [--models a,b:variant] [--sides 96,128,192,256,384,512] [--seconds 20]

Processor seconds of one thread for one image: forward in evaluation, and forward with backward in training, each at two
square images, random weights, at the precision the planner chooses. A model that names no variant has the one `quick` plans
at 224, the largest within 8 GFLOP an image: larger ones take too long here. A model stops at the side whose
measurement would take longer than --seconds. The exponent e in cost ~ pixels^e is the slope of log cost over log pixels,
least squares, over the upper half of the sides; and the same for counted floating-point operations at sides 512 and
1024, which no overhead blurs (scans and deformable sampling are not counted). Networks that resize inside cost the same at
any side.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from autoseg.inference.precision import autocast
from autoseg.models import registry
from autoseg.models.base import ModelOutput, SegmentationNetwork
from autoseg.planning.hardware import decide_precision
from autoseg.planning.memory import count_flops
from benchmarks.training_speed import CPU, planned

IMAGES = 2
COUNTED = (512, 1024)
# Below this fraction of the time limit a size is measured twice, and the faster time counts.
TWICE = 0.05
Growth = dict[int, float]


def passes(network: SegmentationNetwork, side: int, precision: str) -> dict[str, Callable[[], object]]:
    images = torch.rand(IMAGES, 3, side, side)
    target = torch.zeros(IMAGES, 2, side, side)
    target[:, 1, side // 4 : side // 2, side // 4 : side // 2] = 1
    target[:, 0] = 1 - target[:, 1]

    def forward() -> None:
        network.eval()
        with torch.inference_mode(), autocast(precision, CPU):
            network(images)

    def training() -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            output: ModelOutput = network(images)
        if output.own_loss is not None:
            loss = output.own_loss(target, torch.ones(IMAGES, 1, side, side))
        else:
            loss = output.logits.float().square().mean()
            for auxiliary, _ in output.auxiliary:
                loss = loss + auxiliary.float().square().mean()
        loss.backward()

    return {"forward": forward, "training": training}


def measure(model: str, variant: str, sides: list[int], allowed: float) -> dict[str, object]:
    torch.set_num_threads(1)
    spec = registry.spec(model)
    variant = variant or planned(model, 224, IMAGES)[0]
    precision, _ = decide_precision("cpu", spec.mixed_precision, model)
    results: dict[str, Growth] = {"forward": {}, "training": {}}
    for side in sides:
        # Build for each size: the depth of some networks depends on it.
        torch.manual_seed(0)
        network = registry.build(model, variant, num_classes=2, input_size=(side, side))
        for name, work in passes(network, side, precision).items():
            times = results[name]
            last = max(times, default=0)
            # Warm-up: the first pass includes one-time setup.
            expected = times[last] * IMAGES * (side / last) ** 2.5 if last else 0.0
            if expected > allowed or (last and last != max(s for s in sides if s < side)):
                continue
            rounds = 3 if not last else 2 if expected < TWICE * allowed else 1
            seconds = []
            for _ in range(rounds):
                begun = time.process_time()
                work()
                seconds.append(time.process_time() - begun)
            times[side] = min(seconds) / IMAGES
    return {"variant": variant, "precision": precision, **results, "counted": counted(model, variant)}


def counted(model: str, variant: str) -> Growth:
    results = {}
    for side in COUNTED:
        with torch.device("meta"):
            network = registry.build(model, variant, num_classes=2, input_size=(side, side))
        results[side] = float(count_flops(network, (1, 3, side, side)))
    return results


def exponent(growth: Growth) -> float:
    """Slope of log cost over log pixels in the upper half of the sides (at least two); NaN if there is only one."""
    sides = sorted(growth)[-max(2, math.ceil(len(growth) / 2)) :]
    if len(sides) < 2:
        return math.nan
    pixels, costs = [2 * math.log(side) for side in sides], [math.log(growth[side]) for side in sides]
    return statistics.linear_regression(pixels, costs).slope


def named(text: str) -> tuple[str, str]:
    """Model and variant, "" if not given."""
    name, _, variant = text.partition(":")
    return name, variant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(registry.names()))
    parser.add_argument("--sides", default="96,128,192,256,384,512")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sides = sorted(int(side) for side in options.sides.split(","))
    if options.one:
        print(json.dumps(measure(*named(options.one), sides, options.seconds)))
        return
    rows: dict[str, list[str]] = {"forward": [], "training": []}
    for model in options.models.split(","):
        words = ["--one", model, "--sides", options.sides, "--seconds", str(options.seconds)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.input_growth", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{model}:\n{done.stderr}")
        results = json.loads(done.stdout.splitlines()[-1])
        name, _ = named(model)
        inside = registry.spec(name).size_inside(results["variant"])
        for what, lines in rows.items():
            growth = {int(side): value for side, value in results[what].items()}
            cells = [f"{growth[side]:.3g}" if side in growth else "" for side in sides]
            slope = f"{exponent(growth):.2f}" + (f" (works at {inside} inside)" if inside else "")
            operations = exponent({int(side): value for side, value in results["counted"].items()})
            title = f"`{name}` {results['variant']}, {results['precision']}"
            lines.append(f"| {title} | {' | '.join(cells)} | {slope} | {operations:.2f} |")
        print(f"{model}: done", file=sys.stderr, flush=True)
    for what, lines in rows.items():
        print(f"\n{what}, processor seconds an image\n")
        print(f"| model | {' | '.join(map(str, sides))} | exponent | of counted operations |")
        print("|---|" + "---|" * (len(sides) + 2))
        print("\n".join(lines))


if __name__ == "__main__":
    main()
