"""What autoseg_select is worth: on each set its choice, against single networks that have all of the time.

    python -m benchmarks.select --data DIR --work WORK [--sets busi,isic] [--hours 1] [--models A,B] [--alone A,B]

DIR holds one folder per set, each with images/ and masks/ of the same names. For each set: `autoseg_select` among the models;
then each model of --alone is planned for and trained in the same hours on the cases that the selection did not hold back, and
both are scored on the held-back ones. Prints a table of mean Dice with 95 % intervals, how often the recommended candidate was
the best of those confirmed, and how much of the time was not training; writes WORK/select.json. The same command continues an
interrupted one. Use a quiet machine: steps are measured on the clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from autoseg.io.raw_dataset import read_description
from autoseg.schema.plan import Fold, Splits
from autoseg.schema.scores import Scores
from autoseg.schema.selection import ModelSelection
from autoseg.selection.confirm import intervals, paired
from autoseg.selection.search import read_selection
from autoseg.support.files import read_artefact, write_artefact, write_text
from autoseg.support.workspace import Dataset, Workspace

MODELS = "efficientnet_lite0_upernet,unet,nnunet,segformer,hiformer,ukan"
ALONE = "efficientnet_lite0_upernet,nnunet"
SETS = "acdc,busi,drive,isic,neopolyp,nuclei_histology"
LABELS = {
    "acdc": "background,right_ventricle,myocardium,left_ventricle", "drive": "background,vessel",
    "neopolyp": "background,neoplastic,non_neoplastic", "nuclei_histology": "background,nucleus",
}  # fmt: skip
GROUPS = {"acdc": r"(patient\d+)"}
SELECTED = "selected"


def convert(data: Path, name: str, root: Path) -> Dataset:
    """The set as the raw dataset of a root, unless it is there."""
    workspace = Workspace.at(root)
    if not workspace.datasets():
        labels = LABELS.get(name, "background,lesion")
        folders = ["--images", data / name / "images", "--masks", data / name / "masks"]
        groups = ["--groups", GROUPS[name]] if name in GROUPS else []
        _run("autoseg_convert", "folders", *folders, "--name", name, "--labels", labels, *groups, "--root", root)
    return workspace.datasets()[0]


def select(dataset: Dataset, models: str, hours: float) -> tuple[ModelSelection, float]:
    """The selection, and the seconds of this call."""
    begun = time.perf_counter()
    _run("autoseg_select", dataset.number, "--models", models, "--hours", hours, "--root", dataset.root)
    return read_selection(dataset), time.perf_counter() - begun


def train_alone(dataset: Dataset, model: str, selection: ModelSelection, hours: float) -> Scores:
    """Scores of the held-back cases, of one network that had all of the time, trained on the other cases."""
    fold = Fold(tuple(sorted({*selection.training, *selection.deciding})), selection.held_back)
    file = dataset.root / "held_back.json"
    write_artefact(file, Splits(folds=(fold,), reason="what autoseg_select held back is scored"))
    if not dataset.plan.exists():
        options = ["--models", model, "--hours", hours, "--splits", file]
        _run("autoseg_plan_and_preprocess", dataset.number, *options, "--root", dataset.root)
    _run("autoseg_train", dataset.number, model, 0, "--root", dataset.root)
    return read_artefact(dataset.fold(model, 0) / "validation" / "scores.json", Scores)


def row_of(name: str, dataset: Dataset, selection: ModelSelection, alone: dict[str, Scores], seconds: float) -> dict[str, Any]:
    """What the table shows of a set."""
    chosen = next(one for one in selection.confirmed if one.name == selection.recommended)
    default = selection.confirmed_as("default")
    confirmed = [one for one in selection.confirmed if not one.failed]
    best = max(confirmed, key=lambda one: one.value.mean if selection.higher_is_better else -one.value.mean)
    folders = {fold: dataset.fold(chosen.run, fold) / "validation" for fold in range(chosen.folds)}
    folds = {fold: read_artefact(folder / "scores.json", Scores) for fold, folder in folders.items()}
    scores = {SELECTED: folds, **{model: {0: one} for model, one in alone.items()}}
    values = paired(dataset, read_description(dataset.description), scores, "dice", selection.held_back)
    dice = {key: (one.mean, one.low, one.high) for key, one in intervals(values).items()}
    whole = sum(selection.job_seconds.values())
    return {
        "set": name, "chosen": chosen.name, "cases": chosen.cases, "dice": dice,
        "default_in_folds": default.dice.mean if default is not None else None,
        "told_apart": any(test.p_adjusted < 0.05 for test in selection.tests), "chose_best": chosen.name == best.name,
        "hours": selection.spent_hours, "not_training": selection.overhead_seconds / whole if whole else 0.0,
        "last_call_seconds": round(seconds, 1),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    alone = [name for name in rows[0]["dice"] if name != SELECTED]
    heads = ["set", "chosen", *[f"`{name}` alone" for name in alone], "default in folds", "best of confirmed", "not training"]
    lines = [f"| {' | '.join(['set', 'chosen', 'its Dice', *heads[2:]])} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        dice = {name: f"{mean:.3f} ({low:.3f} to {high:.3f})" for name, (mean, low, high) in row["dice"].items()}
        default = "–" if row["default_in_folds"] is None else f"{row['default_in_folds']:.3f}"
        cells = [row["set"], f"`{row['chosen']}`", dice[SELECTED], *(dice[name] for name in alone), default]
        cells += ["yes" if row["chose_best"] else "no", f"{row['not_training']:.0%} of {row['hours']:.2f} h"]
        lines.append(f"| {' | '.join(cells)} |")
    chosen = sum(row["chose_best"] for row in rows)
    lines += ["", f"The recommended candidate was the best of the confirmed ones on {chosen} of {len(rows)} sets."]
    return "\n".join(lines)


def _run(command: str, *arguments: object) -> None:
    """A command of the running environment. It continues what it began in an earlier call."""
    print(f"$ {command} {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([Path(sys.executable).parent / command, *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.select", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--alone", default=ALONE)
    options = parser.parse_args()
    path = options.work / "select.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for name in options.sets.split(","):
        if any(row["set"] == name for row in rows):
            continue
        dataset = convert(options.data, name, options.work / name / SELECTED)
        selection, seconds = select(dataset, options.models, options.hours)
        alone = {}
        for model in options.alone.split(","):
            other = convert(options.data, name, options.work / name / f"{model}_alone")
            alone[model] = train_alone(other, model, selection, options.hours)
        rows.append(row_of(name, dataset, selection, alone, seconds))
        write_text(path, json.dumps(rows, indent=1) + "\n")
        print(table(rows), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
