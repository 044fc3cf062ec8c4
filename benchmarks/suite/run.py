"""Every stage of autoseg against nnU-Net v2, and against the network's bare passes, on the same generated images.

    python -m benchmarks [--stages A,B] [--pairs 5] [--nnunet PYTHON] [--quick]

nnU-Net v2 runs from this Python if it has it (`pip install ".[bench]"`), else from the one that --nnunet names:

    python -m venv nnunet && nnunet/bin/pip install nnunetv2
    python -m benchmarks --nnunet nnunet/bin/python

Each side of a stage runs in its own process, alternating; medians are printed. Processor time and memory
include children. Results are added to OUTPUT/performance.json and drawn to
OUTPUT/pictures/performance.png; stages can be measured one by one.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
import sys
from pathlib import Path

from benchmarks.suite import environment, report
from benchmarks.suite.measuring import joined, measure, summary
from benchmarks.suite.stages import QUICK, QUICK_STAGES, STAGES, Amounts, Bench


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", help=f"of: {', '.join(STAGES)} (default: all; with --quick one of each kind)")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--nnunet", default=sys.executable, metavar="PYTHON", help="that has nnU-Net v2 (default: this one)")
    parser.add_argument("--root", type=Path, help="for images and results (default: benchmark_data/suite or .../quick)")
    parser.add_argument("--output", type=Path, help="for performance.json and the picture (default: documentation)")
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: what is there)")
    parser.add_argument("--threads", type=int, default=1, help="of OpenMP in each process (default: 1)")
    parser.add_argument("--quick", action="store_true", help="few tiny images, one pair: does it run at all? (output: root)")
    parser.add_argument("--add", action="store_true", help="keep the pairs measured before, and add to them")
    parser.add_argument("--draw", action="store_true", help="measure nothing: table and picture of what is in performance.json")
    return parser


def main() -> None:
    parser = _arguments()
    options = parser.parse_args()
    chosen = options.stages.split(",") if options.stages else QUICK_STAGES if options.quick else STAGES
    names = [] if options.draw else list(chosen)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        parser.error(f"there is no stage {', '.join(unknown)}; there are: {', '.join(STAGES)}")
    version = environment.version(options.nnunet)
    if names and not version:
        parser.error(f"{options.nnunet} has no nnU-Net v2: pip install nnunetv2 into it, or name another with --nnunet")
    device = environment.device() if options.device == "auto" else options.device
    root = options.root or Path("benchmark_data") / ("quick" if options.quick else "suite")
    output = (options.output or (root if options.quick else Path("documentation"))).absolute()
    hands = environment.Sides(options.nnunet, device, options.threads)
    bench = Bench(root.absolute(), hands, QUICK if options.quick else Amounts())
    if names and not options.quick:
        for python in {sys.executable, options.nnunet}:
            _say(f"compiling the packages of {python}")
            environment.compile_packages(python)
    merged = report.merge(output / "performance.json", {}, {}, list(STAGES))
    for name in names:
        stage = STAGES[name](bench)
        _say(f"{name}: {stage.title}")
        machine = _machine(version, device, options.threads)
        known = merged[name]["runs"] if options.add and name in merged and merged[name]["title"] == stage.title else {}
        for pair in measure(stage, 1 if options.quick else options.pairs, _say):
            result = summary(stage, joined(known, pair))
            known = result["runs"]
            # After each stage, so that an interrupted run loses nothing.
            merged = report.merge(output / "performance.json", machine, {name: result}, list(STAGES))
    report.plot(merged, output / "pictures" / "performance.png")
    print(report.table(merged))


def _machine(version: str, device: str, threads: int) -> dict[str, str | int]:
    return {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "processor": environment.processor(),
        "cores": environment.cores(),
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "nnunetv2": version,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
