"""Every model through the ordinary commands: train, interrupt, resume, predict, evaluate.

    python -m benchmarks.commands --data DIR --set isic --models unet,hiformer,... [--epochs 2] [--root ROOT]

DIR holds one folder per set, as for `benchmarks.end_to_end`. Each training gets SIGTERM after its first epoch and is started
again; its held-out images are then predicted by `autoseg_predict` and scored by `autoseg_evaluate`.
Prints a table and writes it to ROOT/commands_SET.json. A command that fails ends the benchmark with its output.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from autoseg.schema.plan import Splits
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Workspace, labels_folder
from benchmarks.end_to_end import bring_in
from benchmarks.suite.processes import Ended, must
from benchmarks.suite.processes import run as run_process


def command(name: str, *words: str, interrupt_after: str = "") -> Ended:
    """Run an autoseg command of this checkout; send SIGTERM when a line begins with `interrupt_after`."""
    code = f"from autoseg.cli.{name} import main; raise SystemExit(main())"
    interrupted = not interrupt_after

    def look(process: subprocess.Popen[str], line: str) -> None:
        nonlocal interrupted
        if not interrupted and line.startswith(interrupt_after):
            process.send_signal(signal.SIGTERM)
            interrupted = True

    return run_process([sys.executable, "-c", code, *words], on_line=look)


def held_out(data: Dataset, fold: int, folder: Path) -> tuple[Path, Path]:
    """Folders with links to a fold's held-out images and their masks."""
    cases = read_artefact(data.splits, Splits, "plan first").folds[fold].validation
    places = []
    for source, name in ((data.raw / "imagesTr", "images"), (labels_folder(data), "masks")):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.iterdir()):
            stem = path.name.split(".")[0]
            if stem in cases or stem.rpartition("_")[0] in cases:
                link = place / path.name
                if not link.exists():
                    link.symlink_to(path.resolve())
        places.append(place)
    return places[0], places[1]


def run(dataset: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    root = ("--root", str(options.root))
    data = Workspace.at(options.root).dataset(dataset)
    words = (dataset, model, "0", "--epochs", str(options.epochs), *root)
    first = command("train", *words, "--restart", interrupt_after="epoch")
    if f"epoch {options.epochs}/" not in first.output:
        assert first.code != 0, "an interrupted training must not claim success"
    second = must(command("train", *words), f"training {model} again")
    resumed = "resuming after epoch" in second.output
    folder = options.root / "predicted" / dataset / model
    images, masks = held_out(data, 0, options.root / "held_out" / dataset)
    predicted = must(
        command("predict", "-i", str(images), "-o", str(folder), "-d", dataset, "-m", model, *root), f"predicting {model}"
    )
    must(command("evaluate", str(folder), str(masks)), f"scoring {model}")
    classes = json.loads((folder / "scores.json").read_text())["classes"]
    record = json.loads((data.fold(model, 0) / "run.json").read_text())
    return {
        "model": model,
        "variant": record["variant"],
        "parameters": record["parameters"],
        "epochs": record["epochs_done"],
        "resumed": resumed,
        "training_minutes": round((first.seconds + second.seconds) / 60, 2),
        "training_memory": max(first.memory, second.memory),
        "predict_cpu_per_image": round(predicted.cpu / len(list(images.iterdir())), 2),
        "dice": {name: round(scores["pooled"]["dice"], 3) for name, scores in classes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default="isic")
    parser.add_argument("--models", default="unet,hiformer,missformer,ukan,swin_umamba,hsnet")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data"))
    options = parser.parse_args()
    dataset = bring_in(options.data, options.set, options.root)
    plan = ("--protocol", options.protocol, "--models", options.models, "--root", str(options.root))
    print(must(command("plan_and_preprocess", dataset, *plan), "planning").output, flush=True)
    rows = []
    print("| model | variant | parameters | epochs | resumed | minutes | peak memory | Dice of all pixels |")
    print("|---|---|---|---|---|---|---|---|")
    for model in options.models.split(","):
        row = run(dataset, model, options)
        rows.append(row)
        (options.root / f"commands_{options.set}.json").write_text(json.dumps(rows, indent=1))
        dice = ", ".join(f"{name} {value:.3f}" for name, value in row["dice"].items())
        print(
            f"| {row['model']} | {row['variant']} | {row['parameters'] / 1e6:.1f} M | {row['epochs']} "
            f"| {'yes' if row['resumed'] else 'no'} | {row['training_minutes']:.1f} "
            f"| {row['training_memory'] / 2**30:.1f} GiB | {dice} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
