"""Masks of `autoseg_predict --nnunet` against nnU-Net's own, for models that nnU-Net v2 itself has trained.

    python -m benchmarks.nnunet_model --data DIR --nnunet nnunet/bin [--sets acdc:64,isic:96] [--trainer nnUNetTrainer_1epoch]

--nnunet: the folder of nnU-Net's commands. Each set is made smaller (see `benchmarks.race`), planned by both of nnU-Net's
planners, trained for fold 0 by its own command, one epoch of 250 batches of two, and all images are predicted by both programs.
Prints how many pixels differ, and the Dice that nnU-Net reports for fold 0.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from autoseg import api
from benchmarks.race import sets
from benchmarks.suite.processes import must, run

# nnU-Net's planner -> the plans it writes.
_PLANNERS = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}


def compare(one: sets.RaceSet, planner: str, options: argparse.Namespace) -> str:
    """One row: train, predict with both, count."""
    name, raw = one.name, one.raw
    plans, number = _PLANNERS[planner], raw.name[len("Dataset") :].partition("_")[0]
    root = options.root.absolute()
    folders = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    processes = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}

    def call(command: str, *words: str | Path) -> None:
        must(run([str(options.nnunet / command), *map(str, words)], {**os.environ, **folders, **processes}), command)

    call("nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "-pl", planner, "-np", "1", "-npfp", "1")
    prepared = root / "preprocessed" / raw.name
    plan = json.loads((prepared / f"{plans}.json").read_text())
    plan["configurations"]["2d"]["batch_size"] = 2  # It plans for a GPU.
    (prepared / f"{plans}.json").write_text(json.dumps(plan))
    (prepared / "splits_final.json").write_text(json.dumps(one.content()["folds"]))
    same = ("-tr", options.trainer, "-p", plans, "-device", "cpu")
    call("nnUNetv2_train", number, "2d", "0", *same)
    output, images = root / "masks" / f"{name}_{plans}", raw / "imagesTr"
    call("nnUNetv2_predict", "-i", images, "-o", output / "theirs", "-d", number, "-c", "2d", "-f", "0", *same, "-npp", "1")
    trained = root / "results" / raw.name / f"{options.trainer}__{plans}__2d"
    report = api.predict(images, output / "ours", nnunet=trained, folds=[0], names="keep", device="cpu")
    assert not report.failed, report.failed
    different = pixels = foreground = 0
    for path in (output / "theirs").glob("*.png"):
        theirs, ours = (np.array(Image.open(file)) for file in (path, output / "ours" / path.name))
        different, pixels = different + int((theirs != ours).sum()), pixels + theirs.size
        foreground += int((theirs > 0).sum())
    reported = json.loads((trained / "fold_0" / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    return f"| {name} | {plans} | {reported:.3f} | {len(report.cases)} | {pixels} | {foreground} | {different} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--nnunet", type=Path, required=True, help="folder of nnU-Net's commands")
    parser.add_argument("--sets", default="acdc:64,isic:96", metavar="A:SIDE,B:SIDE")
    parser.add_argument("--trainer", default="nnUNetTrainer_1epoch")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/nnunet_model"))
    options = parser.parse_args()
    print("| set | plans | nnU-Net's Dice of fold 0 | images | pixels | of them foreground | different |")
    print("|---|---|---|---|---|---|---|")
    for item in options.sets.split(","):
        name, _, side = item.partition(":")
        one = sets.prepare(options.data, name, int(side), options.root)
        for planner in _PLANNERS:
            print(compare(one, planner, options), flush=True)


if __name__ == "__main__":
    main()
