"""What ImageNet weights are worth: the same network from published and from random weights, same budget and seeds.

    python -m benchmarks.pretraining --data DIR [--sets neopolyp,isic] [--seeds 0,1,2] [--steps 100] [--root ROOT]

DIR holds one folder per set, as for `benchmarks.end_to_end`. Trains `efficientnet_lite0_upernet` on fold 0 under the quick
protocol, cut to --steps steps; the seed changes what is drawn, not the folds. Prints each run's Dice of all held-out pixels
(best epoch, chosen on the same cases), then mean and standard deviation over the seeds and the gain pair by pair; writes
the runs to ROOT/pretraining.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from autoseg import api
from autoseg.support.log import configure_logging
from benchmarks.end_to_end import bring_in

MODEL = "efficientnet_lite0_upernet"
# What the quick protocol aims at.
QUICK_STEPS = 200


def run(dataset: str, weights: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    plan = api.plan_and_preprocess(dataset, protocol="quick", models=[MODEL], root=options.root)
    epochs = max(1, round(plan.training.epochs * options.steps / QUICK_STEPS))
    settings = {"training.epochs": str(epochs), "training.seed": str(seed), "training.validate_every": str(max(1, epochs // 4))}
    (trained,) = api.train(dataset, MODEL, [0], settings=settings, pretrained=weights, restart=True, root=options.root)
    classes = {name: scores.pooled["dice"] for name, scores in trained.scores.classes.items()}
    return {"set": dataset, "weights": weights, "seed": seed, "epochs": epochs, "dice": classes}


def mean_dice(row: dict[str, Any]) -> float:
    return statistics.fmean(row["dice"].values())


def summary(rows: list[dict[str, Any]], dataset: str) -> str:
    by_weights = {
        weights: {row["seed"]: mean_dice(row) for row in rows if row["set"] == dataset and row["weights"] == weights}
        for weights in ("auto", "none")
    }
    gains = [by_weights["auto"][seed] - value for seed, value in by_weights["none"].items()]
    cells = [
        f"{statistics.fmean(scores.values()):.3f} ± {statistics.stdev(scores.values()):.3f}" for scores in by_weights.values()
    ]
    return f"| {dataset} | {' | '.join(cells)} | {', '.join(f'{gain:+.3f}' for gain in gains)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="neopolyp,isic")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data"))
    options = parser.parse_args()
    configure_logging()
    rows: list[dict[str, Any]] = []
    datasets = [bring_in(options.data, name, options.root) for name in options.sets.split(",")]
    for dataset in datasets:
        for seed in map(int, options.seeds.split(",")):
            for weights in ("auto", "none"):
                rows.append(run(dataset, weights, seed, options))
                (options.root / "pretraining.json").write_text(json.dumps(rows, indent=1))
                print(rows[-1], flush=True)
    print("| set | ImageNet weights | random weights | gain, seed by seed |")
    print("|---|---|---|---|")
    for dataset in datasets:
        print(summary(rows, dataset))


if __name__ == "__main__":
    main()
