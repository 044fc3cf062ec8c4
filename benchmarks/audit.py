"""Precision and recall of autoseg_audit on planted errors.

    python -m benchmarks.audit plant --data DIR --sets neopolyp,acdc [--root ROOT] [--side 160] [--epochs 10]
    python -m benchmarks.audit score --sets neopolyp,acdc [--root ROOT]

DIR holds one folder per set with images/ and masks/ of the same names. `plant` copies each set to ROOT/planted/<set>/, spoils
20 of its masks (5 emptied, 5 with two classes swapped, 5 shifted by 15 px, 5 with an extra blob), plans and trains five
folds on the spoilt copy. `score` audits the out-of-fold predictions
and prints precision and recall of the top of the ranking, against the list of planted errors; it writes ROOT/audit.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from autoseg import api
from autoseg.io import read_label, write_label
from autoseg.support.log import configure_logging
from benchmarks.end_to_end import bring_in

KINDS = ("emptied", "swapped", "shifted", "blob")
EACH = 5
SHIFT = 15
MODEL = "efficientnet_lite0_upernet"


def spoil(labels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray | None:
    """A label map (H, W) with one error; None if the mask cannot have this kind of error."""
    present = [int(value) for value in np.unique(labels) if value]
    if not present:
        return None
    if kind == "emptied":
        return np.zeros_like(labels)
    if kind == "swapped":
        # With another class of the image if there is one, else with any.
        first = present[int(rng.integers(len(present)))]
        others = [value for value in (1, 2, 3) if value != first and (value in present or len(present) == 1)]
        return _swapped(labels, first, others[int(rng.integers(len(others)))])
    if kind == "shifted":
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = (round(SHIFT * float(part)) for part in (np.sin(angle), np.cos(angle)))
        move = np.array([[1, 0, columns], [0, 1, rows]], np.float32)
        return cv2.warpAffine(labels, move, labels.shape[::-1], flags=cv2.INTER_NEAREST)
    return _with_blob(labels, present, rng)


def _swapped(labels: np.ndarray, first: int, second: int) -> np.ndarray:
    changed = labels.copy()
    changed[labels == first], changed[labels == second] = second, first
    return changed


def _with_blob(labels: np.ndarray, present: list[int], rng: np.random.Generator) -> np.ndarray | None:
    """A disc of 1 % of the image, away from the foreground."""
    radius = max(4, round((0.01 * labels.size / np.pi) ** 0.5))
    free = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 5) > 2 * radius
    free[:radius], free[-radius:], free[:, :radius], free[:, -radius:] = False, False, False, False
    places = np.argwhere(free)
    if not len(places):
        return None
    row, column = (int(part) for part in places[int(rng.integers(len(places)))])
    return cv2.circle(labels.copy(), (column, row), radius, present[int(rng.integers(len(present)))], -1)


def plant(data: Path, name: str, root: Path, classes: int) -> dict[str, str]:
    """ROOT/planted/<name> with images/ and spoilt masks/; returns case -> kind of error."""
    target = root / "planted" / name
    if (target / "planted.json").is_file():
        planted: dict[str, str] = json.loads((target / "planted.json").read_text())
        return planted
    shutil.copytree(data / name / "images", target / "images", dirs_exist_ok=True)
    shutil.copytree(data / name / "masks", target / "masks", dirs_exist_ok=True)
    rng = np.random.default_rng(10)
    done: dict[str, str] = {}
    kinds_to_plant = [kind for kind in KINDS if kind != "swapped" or classes > 1 for _ in range(EACH)]
    paths = sorted((target / "masks").iterdir())
    for place in rng.permutation(len(paths)):
        path = paths[place]
        labels = read_label(path).array
        kind = next((kind for kind in kinds_to_plant if (spoilt := spoil(labels, kind, rng)) is not None), None)
        if not kinds_to_plant or kind is None:
            continue
        if int(spoilt.max()) > classes or np.array_equal(spoilt, labels):
            continue
        write_label(path, spoilt)
        kinds_to_plant.remove(kind)
        done[path.stem] = kind
    (target / "planted.json").write_text(json.dumps(done, indent=1))
    return done


def prepare_and_train(data: Path, name: str, options: argparse.Namespace, classes: int) -> None:
    root = options.root
    planted = plant(data, name, root, classes)
    print(f"{name}: {len(planted)} masks spoilt: {planted}")
    dataset = bring_in(root / "planted", name, root)
    settings = {"side": str(options.side), "training.epochs": str(options.epochs)}
    api.plan_and_preprocess(dataset, protocol="quick", models=[MODEL], settings=settings, root=root)
    for fold in api.train(dataset, MODEL, root=root):
        scores: dict[str, Any] = {cls: round(one.pooled["dice"], 3) for cls, one in fold.scores.classes.items()}
        print(f"  fold {fold.record.fold}: {fold.record.steps} steps, {fold.record.seconds:.0f} s, Dice {scores}", flush=True)


def score(name: str, root: Path) -> dict[str, Any]:
    """Audit one spoilt set and compare its ranking of cases with the planted errors."""
    planted: dict[str, str] = json.loads((root / "planted" / name / "planted.json").read_text())
    result = api.audit(name, output=root / "audits" / name, root=root)
    ranked = list(result.cases)
    row: dict[str, Any] = {"set": name, "models": result.models, "planted": len(planted)}
    for top in (10, 20, 30):
        hits = [case for case in ranked[:top] if case in planted]
        row[f"precision at {top}"] = round(len(hits) / top, 3)
        row[f"recall at {top}"] = round(len(hits) / len(planted), 3)
    row["found in the top 20 by kind"] = {
        kind: f"{sum(planted.get(case) == kind for case in ranked[:20])} of {list(planted.values()).count(kind)}"
        for kind in KINDS
    }
    row["not planted, in the top 20"] = [case for case in ranked[:20] if case not in planted]
    return row


CLASSES = {"neopolyp": 2, "acdc": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plant", "score"))
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--sets", default="neopolyp,acdc")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data"))
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    configure_logging()
    names = options.sets.split(",")
    if options.what == "plant":
        for name in names:
            prepare_and_train(options.data, name, options, CLASSES.get(name, 1))
        return
    rows = [score(name, options.root) for name in names]
    (options.root / "audit.json").write_text(json.dumps(rows, indent=1))
    for row in rows:
        print("\n".join(f"{key}: {value}" for key, value in row.items()), "\n")


if __name__ == "__main__":
    main()
