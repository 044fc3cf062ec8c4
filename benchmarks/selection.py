"""Which weights should a training give? Held-out Dice of four selections, on several sets, folds and seeds.

    python -m benchmarks.selection --data DIR [--sets busi,acdc] [--folds 0,1,2] [--seeds 0,1] [--protocol quick] [--set K=V]
        [--steps N]

DIR holds one folder per set (see `benchmarks.end_to_end`). Each fold is trained twice: once on all its training cases, which
gives the last weights, their moving average and those of the best epoch on the scored cases; and once without the inner
cases, on which the best epoch is chosen. Dice is that of the counts summed over the held-out cases, mean over classes, at the
preprocessed size. Results are added to OUTPUT after each fold, so that an interrupted run goes on; the table is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from autoseg import api
from autoseg.inference.engine import Engine
from autoseg.planning.overrides import apply_overrides
from autoseg.preprocessing.array_dataset import ArrayDataset, preprocessing_hash
from autoseg.schema.plan import Plan, Selection, Splits
from autoseg.support.files import read_artefact
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Dataset, Workspace
from autoseg.training import checkpoint, trainer
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from autoseg.training.validate import validate
from autoseg.training.weight_average import weight_average
from benchmarks.end_to_end import SPECIFICATIONS, bring_in

SHOWN = ("last", "average", "inner", "held_out")
_MODEL = "efficientnet_lite0_upernet"


def measure(dataset: Dataset, plan: Plan, splits: Splits, fold: int) -> dict[str, float]:
    """Held-out Dice of each selection."""
    averages: list[nn.Module] = []
    with _averaging(averages):
        _train(dataset, plan, splits, fold, "held_out")
    dice = {"held_out": _dice(dataset, splits, fold, "best"), "last": _dice(dataset, splits, fold, "last")}
    dice["average"] = _dice(dataset, splits, fold, "last", averages[-1])
    _train(dataset, plan, splits, fold, "inner")
    dice["inner"] = _dice(dataset, splits, fold, "best")
    return {name: round(value, 4) for name, value in dice.items()}


def _train(dataset: Dataset, plan: Plan, splits: Splits, fold: int, selection: Selection) -> None:
    plan = replace(plan, training=replace(plan.training, selection=selection))
    train_fold(dataset, plan, splits, _MODEL, fold, device="cpu", restart=True)


@contextmanager
def _averaging(averages: list[nn.Module]) -> Iterator[None]:
    """Trainings in the block put the moving average of their weights into the list."""

    class Averaging(Step):
        def __init__(self, network: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(network, *arguments, **options)
            self._followed, self._average = network, weight_average(network)
            averages.append(self._average.module)

        def __call__(self, *arguments: Any) -> float | None:
            loss = super().__call__(*arguments)
            if loss is not None:
                self._average.update_parameters(self._followed)
            return loss

    trainer.Step = Averaging  # type: ignore[misc]
    try:
        yield
    finally:
        trainer.Step = Step  # type: ignore[misc]


def _dice(dataset: Dataset, splits: Splits, fold: int, which: str, weights: nn.Module | None = None) -> float:
    trained = checkpoint.load_network(dataset.fold(_MODEL, fold), which)
    if weights is not None:
        trained.network.load_state_dict(weights.state_dict())
    config = trained.preprocessing
    store = ArrayDataset.open(dataset.array_folder(config.key), preprocessing_hash(config, trained.plan.content_hash))
    engine = Engine(trained.network, trained.model_plan, config, trained.scheme, activation=trained.activation)
    scores = validate(engine, store, splits.folds[fold].validation, trained.scheme, lambda: None)
    return scores.value("class_mean.dice")


def table(rows: list[dict[str, Any]]) -> str:
    """Mean over folds and seeds for each set, and how often each selection is the best of the three clean ones."""
    lines = [f"| set | trainings | {' | '.join(SHOWN)} |", "|" + "---|" * (len(SHOWN) + 2)]
    by_set: dict[str, list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        by_set[row["set"]].append(row["dice"])
    every = [dice for of_set in by_set.values() for dice in of_set]
    for name, of_set in [*by_set.items(), ("all", every)]:
        means = " | ".join(f"{statistics.mean(dice[shown] for dice in of_set):.3f}" for shown in SHOWN)
        lines.append(f"| {name} | {len(of_set)} | {means} |")
    for other in SHOWN[1:]:
        gains = [dice[other] - dice["last"] for dice in every]
        spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        lines.append(f"{other} against last: {statistics.mean(gains):+.4f} (standard error {spread:.4f})")
    return "\n".join(lines)


def _plan(dataset: str, options: argparse.Namespace) -> None:
    settings = dict(one.split("=", 1) for one in options.set)
    for _ in range(2 if options.steps else 1):
        plan = api.plan_and_preprocess(
            dataset, protocol=options.protocol, models=[_MODEL], settings=settings, hours=0, root=options.root
        )
        timing = plan.models[_MODEL].timing
        assert timing is not None
        if options.steps:
            settings["training.epochs"] = str(max(1, round(options.steps / timing.steps_per_epoch)))


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.selection", description=__doc__)
    parser.add_argument("--data", type=Path, help="without it the table of OUTPUT is printed")
    parser.add_argument("--sets", default=",".join(SPECIFICATIONS))
    parser.add_argument("--folds", default="0,1,2")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--steps", type=int, help="of a training, to the nearest epoch (default: the protocol's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/selection"))
    parser.add_argument("--output", type=Path, default=Path("documentation/selection.json"))
    options = parser.parse_args()
    configure_logging()
    rows: list[dict[str, Any]] = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(row["protocol"], row["set"], row["fold"], row["seed"]) for row in rows}
    protocol = " ".join([options.protocol, *([f"{options.steps} steps"] if options.steps else []), *options.set])
    places = [(seed, int(fold), name) for seed in options.seeds.split(",") for fold in options.folds.split(",")
              for name in options.sets.split(",")]  # fmt: skip
    for seed, fold, name in places if options.data else []:
        if (protocol, name, fold, int(seed)) in done:
            continue
        begun = time.perf_counter()
        full = bring_in(options.data, name, options.root)
        data = Workspace.at(options.root).dataset(full)
        if not data.plan.exists():
            _plan(full, options)
        plan = apply_overrides(read_artefact(data.plan, Plan), {"training.seed": seed})
        dice = measure(data, plan, read_artefact(data.splits, Splits), fold)
        rows.append({"protocol": protocol, "set": name, "fold": fold, "seed": int(seed), "dice": dice})
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name} fold {fold} seed {seed}: {dice} in {time.perf_counter() - begun:.0f} s", flush=True)
    print(table([row for row in rows if row["protocol"] == protocol]))


if __name__ == "__main__":
    main()
