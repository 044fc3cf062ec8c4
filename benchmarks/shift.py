"""Does `--set augmentation=shift` help on another site? Two sites, each held out once, with it and as planned.

    python -m benchmarks.shift --data DIR [--sets isic,acdc] [--sites changed,equal] [--seeds 0] [--side 96] [--steps 100]
        [--root shift_data]

DIR holds one folder per set (see `benchmarks.end_to_end`). The sets name no sites, so two are SIMULATED: every second patient
or image is of site b, and in "changed" all images of site b are changed in the same way: colour cast, another curve of gray
values, darker corners, blur, noise. In "equal" they are not: there the two sites differ by chance only. The change is of the
kind that the augmentation draws from, which real scanners need not be. Finished trainings are not repeated, so an interrupted
run goes on. Prints a table: mDSC of the held-out site.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg import api
from autoseg.api.training import TrainedFold
from autoseg.schema.comparison import HEADLINE
from autoseg.support.log import configure_logging
from benchmarks.end_to_end import SPECIFICATIONS

MODEL = "efficientnet_lite0_upernet"
KINDS, FOLDS = ("planned", "shift"), (0, 1)


def change(image: NDArray[Any], seed: int) -> NDArray[Any]:
    """An image (H, W) or (H, W, 3; blue, green, red) as site b takes it: the same scanner for all. seed: of its noise."""
    highest = float(np.iinfo(image.dtype).max if image.dtype == np.uint8 else image.max())
    values = cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 300).astype(np.float64) / max(highest, 1.0)
    values = 0.08 + 0.8 * values**1.5
    if values.ndim == 3:
        values *= (0.75, 0.95, 1.15)
    height, width = image.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    corners = 1 - 0.25 * (rows**2 + columns**2)
    values *= corners[..., None] if values.ndim == 3 else corners
    values += np.random.default_rng(seed).normal(0, 0.02, image.shape)
    changed: NDArray[Any] = np.rint(values.clip(0, 1) * highest).astype(image.dtype)
    return changed


def write_sites(data: Path, name: str, sites: str, folder: Path) -> None:
    """images/ and masks/ of the set, named a_... and b_... by site."""
    pattern = SPECIFICATIONS[name].get("groups")
    images = sorted((data / name / "images").iterdir())
    unit = {path: re.search(pattern, path.stem)[0] if pattern else path.stem for path in images}  # type: ignore[index]
    order = {one: number for number, one in enumerate(sorted(set(unit.values())))}
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(images):
        site = "ab"[order[unit[path]] % 2]
        image, mask = (cv2.imread(str(one), cv2.IMREAD_UNCHANGED) for one in (path, data / name / "masks" / f"{path.stem}.png"))
        if sites == "changed" and site == "b":
            image = change(image, number)
        cv2.imwrite(str(folder / "images" / f"{site}_{path.stem}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{site}_{path.stem}.png"), mask)


def train(data: Path, name: str, sites: str, kind: str, seed: int, options: argparse.Namespace) -> list[TrainedFold]:
    """Both folds: fold 0 holds out site a, fold 1 site b."""
    root = options.root / f"{name}_{sites}_{kind}_{seed}"
    pictures = options.root / f"{name}_{sites}"
    if not (root / "raw").is_dir():
        write_sites(data, name, sites, pictures)
        api.convert_folders(pictures / "images", pictures / "masks", name, root=root, **SPECIFICATIONS[name])
    # Half of the cases train, eight in a step.
    epochs = round(options.steps / -(-len(list((pictures / "images").iterdir())) // 16))
    settings = {
        "side": str(options.side), "augmentation": kind, "training.seed": str(seed), "training.epochs": str(epochs),
        f"models.{MODEL}.batch_size": "8", "training.validate_every": str(epochs),
    }  # fmt: skip
    api.plan_and_preprocess(
        name, protocol="quick", models=[MODEL], settings=settings, splits="by=case=^(a|b)_", hours=0, root=root
    )
    return list(api.train(name, MODEL, list(FOLDS), root=root))


def row(name: str, sites: str, kind: str, trained: dict[int, list[TrainedFold]]) -> str:
    """Means over seeds for each held-out site, their mean, and the lowest and highest of the seeds' means."""
    dice = {seed: [fold.scores.overall[HEADLINE] for fold in folds] for seed, folds in trained.items()}
    of_sites = [statistics.fmean(values[fold] for values in dice.values()) for fold in FOLDS]
    means = [statistics.fmean(values) for values in dice.values()]
    held_out = [len(fold.scores.cases) for fold in next(iter(trained.values()))]
    cells = [f"{100 * value:.1f}" for value in (*of_sites, statistics.fmean(means))]
    return f"| {name} ({held_out[0]}, {held_out[1]}) | {sites} | {kind} | {' | '.join(cells)} | " + (
        f"{100 * min(means):.1f} to {100 * max(means):.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="isic,acdc")
    parser.add_argument("--sites", default="changed,equal")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--root", type=Path, default=Path("shift_data"))
    options = parser.parse_args()
    configure_logging()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    rows = []
    for name in options.sets.split(","):
        for sites in options.sites.split(","):
            for kind in KINDS:
                trained = {seed: train(options.data, name, sites, kind, seed, options) for seed in seeds}
                rows.append(row(name, sites, kind, trained))
    print("| set (cases of a, b) | site b | augmentation | a held out | b held out | mean | of the seeds |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
