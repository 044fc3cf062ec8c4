"""The full pipeline on real folders of images: decisions, time, Dice per class.

    python -m benchmarks.end_to_end --data DIR [--sets neopolyp,drive] [--models nnunet,...] [--protocol quick] [--fold 0]

DIR holds one folder per set, each with images/ and masks/ of the same names (masks: pixels are class ids). Work goes to
--root (default: ./benchmark_data). Prints a table and writes it, with the planner's reasons, to ROOT/end_to_end.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from autoseg import api
from autoseg.schema.plan import Plan
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Workspace

# Not visible in the files: class names, and the patient of each case.
SPECIFICATIONS: dict[str, dict[str, Any]] = {
    "neopolyp": {"labels": ["background", "neoplastic", "non_neoplastic"]},
    "isic": {"labels": ["background", "lesion"]},
    "busi": {"labels": ["background", "lesion"]},
    "drive": {"labels": ["background", "vessel"]},
    "acdc": {"labels": ["background", "right_ventricle", "myocardium", "left_ventricle"], "groups": r"(patient\d+)"},
    "nuclei_histology": {"labels": ["background", "nucleus"]},
}


def bring_in(data: Path, name: str, root: Path) -> str:
    """Full name of the dataset, converted if necessary."""
    for dataset in Workspace.at(root).datasets():
        if dataset.short_name == name:
            return dataset.name
    api.convert_folders(data / name / "images", data / name / "masks", name, root=root, **SPECIFICATIONS.get(name, {}))
    return Workspace.at(root).dataset(name).name


def run(data: Path, name: str, models: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    started = time.perf_counter()
    dataset = bring_in(data, name, options.root)
    converted = time.perf_counter()
    plan = api.plan_and_preprocess(dataset, protocol=options.protocol, models=models, root=options.root)
    prepared = time.perf_counter()
    rows = []
    for model in models:
        begun = time.perf_counter()
        (trained,) = api.train(dataset, model, [options.fold], restart=options.restart, root=options.root)
        rows.append(
            {
                "dataset": dataset,
                "model": model,
                "seconds": {
                    "convert": round(converted - started, 1),
                    "plan_and_preprocess": round(prepared - converted, 1),
                    "train_and_validate": round(time.perf_counter() - begun, 1),
                    "training": round(trained.record.seconds, 1),
                },
                "epochs": trained.record.epochs_done,
                "pooled_dice": {name: s.pooled["dice"] for name, s in trained.scores.classes.items()},
                "per_image_dice": {name: s.per_image["dice"].mean for name, s in trained.scores.classes.items()},
                "hd95": {name: s.per_image["hd95"].mean for name, s in trained.scores.classes.items()},
                "plan": _model_row(plan, model),
                "decisions": {d.subject: f"{d.value}: {d.reason}" for d in plan.decisions},
            }
        )
    return rows


def _model_row(plan: Plan, model: str) -> dict[str, Any]:
    chosen = plan.models[model]
    return {
        "variant": chosen.variant,
        "geometry": plan.preprocessing[chosen.preprocessing].geometry,
        "input_size": chosen.input_size,
        "batch_size": chosen.batch_size,
        "precision": chosen.precision,
        "epochs": plan.training.epochs,
        "loss": plan.training.loss,
        "normalisation": chosen.normalisation.scheme,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="neopolyp,acdc,drive,busi")
    parser.add_argument("--models", default="nnunet,efficientnet_lite0_upernet")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data"))
    parser.add_argument("--restart", action="store_true")
    options = parser.parse_args()
    configure_logging()
    rows = []
    for name in options.sets.split(","):
        rows += run(options.data, name, options.models.split(","), options)
        (options.root / "end_to_end.json").write_text(json.dumps(rows, indent=1))
    print("| set | model | variant | geometry | input | batch | epochs | minutes | Dice of all pixels per class |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        plan, size = row["plan"], "x".join(map(str, row["plan"]["input_size"]))
        dice = ", ".join(f"{name} {value:.3f}" for name, value in row["pooled_dice"].items())
        minutes = row["seconds"]["train_and_validate"] / 60
        print(
            f"| {row['dataset']} | {row['model']} | {plan['variant']} | {plan['geometry']} | {size} | {plan['batch_size']} "
            f"| {row['epochs']} | {minutes:.1f} | {dice} |"
        )


if __name__ == "__main__":
    main()
