"""Resized images against patches: each dataset trained both ways, all else equal.

    python -m benchmarks.geometry --data DIR [--sets drive,neopolyp] [--seeds 0,1] [--steps 120] [--ways chosen,other]

DIR holds one folder per set, each with images/ and masks/ of the same names. One fold, the same folds for both ways; a fixed
number of steps, the weights of the last one. Trainings in ROOT/geometry.json are skipped, so that a run can resume.
Prints a table.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

from autoseg import api
from autoseg.schema.plan import Plan
from autoseg.support.log import configure_logging
from benchmarks.end_to_end import bring_in

OTHER = {"resize": "patch", "patch": "resize"}


def plan(dataset: str, root: Path, options: argparse.Namespace, geometry: str | None = None) -> Plan:
    """A `quick` plan with a fixed number of steps, validated after the last epoch only."""
    first = api.plan_and_preprocess(dataset, protocol="quick", models=[options.model], preprocess=False, root=root)
    cases = len(api.fingerprint(dataset, root=root).cases)
    batch = first.models[options.model].batch_size
    epochs = str(math.ceil(options.steps / math.ceil(cases * 4 / 5 / batch)))
    settings = {"training.epochs": epochs, "training.validate_every": epochs}
    if geometry is not None:
        settings["geometry"] = geometry
    return api.plan_and_preprocess(dataset, protocol="quick", models=[options.model], settings=settings, root=root)


def kind(result_plan: Plan, model: str) -> str:
    return result_plan.preprocessing[result_plan.models[model].preprocessing].geometry


def run(name: str, way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    root = options.root / way
    dataset = bring_in(options.data, name, root)
    result_plan = plan(dataset, root, options)
    if way == "other":
        result_plan = plan(dataset, root, options, OTHER[kind(result_plan, options.model)])
    reason = next(decision.reason for decision in result_plan.decisions if decision.subject == "geometry")
    settings = {"training.seed": str(seed)}
    (trained,) = api.train(dataset, options.model, [options.fold], settings=settings, restart=True, root=root)
    model = result_plan.models[options.model]
    return {
        "set": name, "way": way, "seed": seed, "model": options.model, "geometry": kind(result_plan, options.model),
        "input_size": model.input_size, "epochs": result_plan.training.epochs, "seconds": round(trained.record.seconds),
        "reason": reason, "dice": {name: scores.pooled["dice"] for name, scores in trained.scores.classes.items()},
        "dice_per_image": {name: scores.per_image["dice"].mean for name, scores in trained.scores.classes.items()},
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    """One row for each set and geometry: mean over seeds, and each seed's."""
    print("| set | geometry | input | epochs | seeds | Dice of all pixels, mean (each seed) |\n|---|---|---|---|---|---|")
    for name, way in dict.fromkeys((row["set"], row["way"]) for row in rows):
        same = [row for row in rows if (row["set"], row["way"]) == (name, way)]
        first = same[0]
        dice = "; ".join(_of_seeds(label, [row["dice"][label] for row in same]) for label in first["dice"])
        size = "x".join(map(str, first["input_size"]))
        seeds = ", ".join(str(row["seed"]) for row in same)
        print(f"| {name} | {first['geometry']} ({way}) | {size} | {first['epochs']} | {seeds} | {dice} |")


def _of_seeds(label: str, dice: list[float]) -> str:
    return f"{label} {mean(dice):.3f} ({', '.join(f'{value:.3f}' for value in dice)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="drive,neopolyp")
    parser.add_argument("--ways", default="chosen,other")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--model", default="efficientnet_lite0_upernet")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/geometry"))
    options = parser.parse_args()
    configure_logging()
    options.root.mkdir(parents=True, exist_ok=True)
    results = options.root / "geometry.json"
    rows = json.loads(results.read_text()) if results.exists() else []
    finished = {(row["set"], row["way"], row["seed"]) for row in rows}
    for name in options.sets.split(","):
        for way in options.ways.split(","):
            for seed in map(int, options.seeds.split(",")):
                if (name, way, seed) not in finished:
                    rows.append(run(name, way, seed, options))
                    results.write_text(json.dumps(rows, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
