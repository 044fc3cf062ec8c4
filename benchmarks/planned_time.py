"""Planned against real time of a training, for several models.

    python -m benchmarks.planned_time --data DIR [--set busi:20] [--models A,B] [--minutes 3]

DIR holds one folder per set, each with images/ and masks/ of the same names. The first images of the set are planned for the
time limit, once with all models together, and fold 0 of each model is trained by `autoseg_train`. Prints a table of seconds.
Use a quiet machine: both sides are measured on the clock.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoseg.schema.plan import Plan
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from benchmarks.first_hour import LABELS, README_LABELS, lay_out

MODELS = "efficientnet_lite0_upernet,unet,nnunet,segformer,hiformer"


def measure(data: Path, name: str, count: int, models: list[str], minutes: float, work: Path) -> list[tuple[str, float, float]]:
    """Model, planned and real seconds of the command that trains a fold."""
    lay_out(data / name, work, count)
    labels = LABELS.get(name, README_LABELS)
    convert = ["folders", "--images", work / "photos", "--masks", work / "masks", "--name", "Timed", "--labels", labels]
    _run("autoseg_convert", *convert, "--root", work)
    _run("autoseg_plan_and_preprocess", "Timed", "--models", ",".join(models), "--minutes", minutes, "--root", work)
    plan = read_artefact(Workspace.at(work).dataset("Timed").plan, Plan)
    rows = []
    for model in models:
        begun = time.perf_counter()
        _run("autoseg_train", "Timed", model, 0, "--root", work)
        timing = plan.models[model].timing
        assert timing is not None
        rows.append((model, timing.hours * 3600, time.perf_counter() - begun))
        print(f"{model}: planned {rows[-1][1]:.0f} s, {timing.steps} steps in {rows[-1][2]:.0f} s", flush=True)
    return rows


def _run(command: str, *arguments: object) -> None:
    """A command of the running environment, without what it prints."""
    subprocess.run([Path(sys.executable).parent / command, *map(str, arguments)], check=True, capture_output=True)


def table(rows: list[tuple[str, float, float]]) -> str:
    """Markdown."""
    lines = ["| model | planned | real | planned / real |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| `{m}` | {p:.0f} s | {r:.0f} s | {p / r:.2f} |" for m, p, r in rows)])


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.planned_time", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default="busi:20", metavar="NAME:COUNT")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--minutes", type=float, default=3)
    options = parser.parse_args()
    matched = re.fullmatch(r"(\w+):(\d+)", options.set)
    if matched is None:
        parser.error(f"{options.set!r} is not NAME:COUNT")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.data, matched[1], int(matched[2]), options.models.split(","), options.minutes, Path(folder))
    print(table(rows))


if __name__ == "__main__":
    main()
