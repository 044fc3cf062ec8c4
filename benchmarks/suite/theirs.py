"""nnU-Net v2's side of a stage, run by the Python with nnU-Net v2: a standalone file, without autoseg.

    PYTHON theirs.py network EXCHANGE.pt PLANS.json DATASET.json OUTPUT    a results folder with autoseg's network and weights
    PYTHON theirs.py loader FOLDER --side 256                              seconds an image, of one core
    PYTHON theirs.py step EXCHANGE.pt RESULTS                              seconds a training step
    PYTHON theirs.py fit EXCHANGE.pt PLANS.json --batch 4                  autoseg's network into nnU-Net's own plan
    PYTHON theirs.py train DATASET --rounds 2 --steps 8                    a short training, as its command does it

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

TRAINER, CONFIGURATION = "nnUNetTrainer", "2d"


def fitted(plans: dict[str, Any], exchanged: dict[str, Any]) -> dict[str, Any]:
    """nnU-Net's own plan of the dataset, with the network and the patch size of autoseg's."""
    features = [int(width) for width in exchanged["features"]]
    stages = len(features)
    configuration = plans["configurations"][CONFIGURATION]
    configuration["patch_size"] = [int(side) for side in exchanged["input_size"]]
    configuration["architecture"]["arch_kwargs"].update(
        n_stages=stages, features_per_stage=features, kernel_sizes=[[3, 3]] * stages,
        strides=[[1, 1]] + [[2, 2]] * (stages - 1), n_conv_per_stage=[2] * stages, n_conv_per_stage_decoder=[2] * (stages - 1),
    )  # fmt: skip
    return plans


def network(exchange: Path, plans: Path, description: Path, output: Path) -> dict[str, float]:
    """Writes the results folder, then loads it as nnU-Net's prediction does and keeps its logits for the probe."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    exchanged = torch.load(exchange, weights_only=True)
    (output / "fold_0").mkdir(parents=True, exist_ok=True)
    (output / "plans.json").write_text(json.dumps(fitted(json.loads(plans.read_text()), exchanged)))
    (output / "dataset.json").write_text(description.read_text())
    torch.save(
        {
            "network_weights": exchanged["weights"],
            "trainer_name": TRAINER,
            "init_args": {"configuration": CONFIGURATION},
            "inference_allowed_mirroring_axes": (0, 1),
        },
        output / "fold_0" / "checkpoint_final.pth",
    )
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(output), (0,))
    with torch.inference_mode():
        logits = predictor.network.eval()(exchanged["probe"])
    torch.save(logits, exchange.parent / f"theirs_{exchange.name}")
    return {"parameters": sum(parameter.numel() for parameter in predictor.network.parameters())}


def chain(folder: Path, side: int) -> Callable[[float], float]:
    """Images per second of processor time, measured for `seconds`: its `get_training_transforms` on images that are
    in memory, cut to its own initial patch size. Reading and unpacking them is left out, which favours it.
    """
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    angles = (-np.pi, np.pi)
    initial = get_patch_size((side, side), angles, angles, angles, (0.85, 1.25))
    transforms = nnUNetTrainer.get_training_transforms((side, side), angles, None, (0, 1), False)
    low = [int((side - wide) // 2) for wide in initial]
    box = [[start, start + int(wide)] for start, wide in zip(low, initial, strict=True)]
    reader, pairs = NaturalImage2DIO(), []
    for path in sorted((folder / "imagesTr").iterdir()):
        image = reader.read_images([str(path)])[0][:, 0] / 64 - 2
        label = reader.read_seg(str(folder / "labelsTr" / path.name.replace("_0000", "")))[0][:, 0].astype(np.int16)
        pairs.append((np.ascontiguousarray(image, np.float32), label))

    def rate(limit: float) -> float:
        began, count = time.process_time(), 0
        for image, label in cycle(pairs):
            transforms(
                image=torch.from_numpy(crop_and_pad_nd(image, box, 0)),
                segmentation=torch.from_numpy(crop_and_pad_nd(label, box, -1)),
            )
            count += 1
            if time.process_time() - began >= limit:
                break
        return count / (time.process_time() - began)

    return rate


def loader(folder: Path, side: int, seconds: float) -> dict[str, float]:
    rate = chain(folder, side)
    rate(seconds / 4)
    each = 1 / rate(seconds)
    return {"cpu": each, "wall": each}


def step(options: argparse.Namespace) -> dict[str, float]:
    """Its trainer's `train_step`, with its loss, deep supervision and optimiser, on one batch."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    side, size, device = options.side, options.batch, torch.device(options.device)
    plans = json.loads((options.second / "plans.json").read_text())
    description = json.loads((options.second / "dataset.json").read_text())
    plans["continue_training"] = False
    # The trainer detects the format of the preprocessed data by the files in the folder.
    prepared = options.place / plans["dataset_name"] / f"{plans['plans_name']}_{CONFIGURATION}"
    prepared.mkdir(parents=True)
    (prepared / "none.b2nd").touch()
    trainer = nnUNetTrainer(plans, CONFIGURATION, 0, description, device)
    trainer.initialize()
    trainer.network.train()
    data = torch.randn(size, trainer.num_input_channels, side, side)
    label = torch.randint(0, 3, (size, 1, side // 16, side // 16)).repeat_interleave(16, 2).repeat_interleave(16, 3).float()
    levels = range(len(trainer._get_deep_supervision_scales()))
    target = [label[:, :, :: 2**level, :: 2**level].contiguous() for level in levels]

    def one() -> tuple[float, float]:
        began, clock = time.process_time(), time.perf_counter()
        trainer.train_step({"data": data, "target": target})
        return time.process_time() - began, time.perf_counter() - clock

    one()
    taken = [one() for _ in range(options.rounds)]
    cpu, wall = (statistics.median(each) for each in zip(*taken, strict=True))
    return {"cpu": cpu, "wall": wall}


def fit(exchange: Path, plans: Path, batch: int) -> dict[str, int]:
    """Edit the plan file in place."""
    changed = fitted(json.loads(plans.read_text()), torch.load(exchange, weights_only=True))
    changed["configurations"][CONFIGURATION]["batch_size"] = batch
    plans.write_text(json.dumps(changed))
    return {"batch": batch}


def train(dataset: str, epochs: int, steps: int, device: str) -> dict[str, int]:
    """`nnUNetv2_train` of fold 0, its validation included, with fewer and shorter epochs than its trainer has."""
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    first = nnUNetTrainer.__init__

    @wraps(first)
    def shorter(self: Any, *args: Any, **kwargs: Any) -> None:
        first(self, *args, **kwargs)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = epochs, steps, max(1, steps // 4)

    nnUNetTrainer.__init__ = shorter
    sys.argv = ["nnUNetv2_train", dataset, CONFIGURATION, "0", "-device", device]
    run_training_entry()
    return {"epochs": epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("network", "loader", "step", "fit", "train"))
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path, nargs="?")
    parser.add_argument("third", type=Path, nargs="?")
    parser.add_argument("fourth", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    result: dict[str, Any]
    if options.task == "network":
        result = network(options.first, options.second, options.third, options.fourth)
    elif options.task == "fit":
        result = fit(options.first, options.second, options.batch)
    elif options.task == "train":
        result = train(str(options.first), options.rounds, options.steps, options.device)
    elif options.task == "loader":
        torch.set_num_threads(1)
        result = loader(options.first, options.side, options.seconds)
    else:
        with tempfile.TemporaryDirectory() as place:
            # nnU-Net's own names are not in capitals.
            os.environ.update(dict.fromkeys(("nnUNet_preprocessed", "nnUNet_results"), place))
            options.place = Path(place)
            result = step(options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
