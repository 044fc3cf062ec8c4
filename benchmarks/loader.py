"""Augmented images per second of one core, by chain and size, and of nnU-Net v2's transforms if installed.

    python -m benchmarks.loader [--sizes 256,512] [--rounds 5] [--seconds 2]

Counts processor time, which a busy machine hardly changes; chains alternate within each round, and the median round is
printed. autoseg's figure is for `TrainLoader` (sampling, memory-mapped store, augmentation, tensors);
nnU-Net's is for its `get_training_transforms` on an image in memory (see `benchmarks/suite/theirs.py`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from autoseg.data.loader import TrainLoader
from autoseg.io import read_case, read_label
from autoseg.preprocessing.array_dataset import ArrayDataset, array_writer
from autoseg.preprocessing.transform import preprocess_image, preprocess_label
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Augmentation, ModelPlan, Normalisation, PreprocessingConfig, Training
from benchmarks.suite.images import write_raw
from benchmarks.suite.theirs import chain

CASES, BATCH = 48, 8
SCHEME = LabelScheme(names=("background", "blob", "disc"), members=((0,), (1,), (2,)))
# nnU-Net v2's probabilities and ranges; its two gamma transforms (0.1 and 0.3) are one here.
NNUNET = Augmentation(
    rotation=180.0, p_rotation=0.2, p_scaling=0.2, scaling=(0.7, 1.4), p_noise=0.1, p_blur=0.2, p_brightness=0.15,
    p_contrast=0.15, p_low_resolution=0.25, p_gamma=0.37,
)  # fmt: skip
OURS = {
    "autoseg, fast chain, its own chances": Augmentation(),
    "autoseg, fast chain, elastic for one in five": Augmentation(p_elastic=0.2),
    "autoseg, fast chain, nnU-Net's chances": NNUNET,
    "autoseg, classic chain (batchgenerators)": Augmentation(chain="classic"),
}
THEIRS = "nnU-Net v2's transforms (batchgeneratorsv2)"


def store_of(raw: Path, folder: Path, side: int) -> ArrayDataset:
    """Preprocessed arrays of the RGB images of a raw dataset, resized to a square."""
    preprocessing = PreprocessingConfig(key="k", geometry="resize", dtype="uint8", channels=3, size=(side, side))
    with array_writer(folder, preprocessing, "benchmark") as writer:
        for path in sorted((raw / "imagesTr").iterdir()):
            image = read_case([path]).array
            label = read_label(raw / "labelsTr" / path.name.replace("_0000", "")).array
            writer.add(path.stem, preprocess_image(image, preprocessing), preprocess_label(label, preprocessing), label.shape)
    return ArrayDataset.open(folder)


def ours(store: ArrayDataset, side: int, settings: Augmentation) -> Callable[[float], float]:
    """Images per second of processor time, measured for `seconds`."""
    plain = Normalisation(scheme="constant", mean=(0.0,) * 3, std=(1.0,) * 3)
    plan = ModelPlan(
        model="unet",
        variant="16",
        input_size=(side, side),
        batch_size=BATCH,
        accumulate=1,
        precision="fp32",
        pretrained="none",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=plain,
        preprocessing="k",
        parameters=0,
        flops=0,
        memory=0,
    )
    batches = TrainLoader(
        store,
        store.cases,
        plan,
        Training(epochs=1, loss="dice_ce", learning_rates=(1e-3,), augmentation=settings),
        SCHEME,
        0,
        workers=1,
    )
    epoch = 0

    def rate(seconds: float) -> float:
        nonlocal epoch
        begun, images = time.process_time(), 0
        while time.process_time() - begun < seconds:
            images += sum(len(batch.images) for batch in batches.epoch(epoch))
            epoch += 1
        return images / (time.process_time() - begun)

    return rate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="256,512", help="sides of the square images (default: 256,512)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of processor time for each chain in each round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for side in (int(text) for text in options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw"
            write_raw(raw, "rgb", CASES, side, side)
            store = store_of(raw, Path(folder) / "store", side)
            chains = {name: ours(store, side, settings) for name, settings in OURS.items()}
            try:
                chains[THEIRS] = chain(raw, side)
            except ImportError as error:
                print(f"nnU-Net v2 is not compared: {error}")
            for make in chains.values():
                make(options.seconds / 4)
            rounds = [{name: make(options.seconds) for name, make in chains.items()} for _ in range(options.rounds)]
        print(f"\n{side} x {side} RGB, images per second of one core (median of {options.rounds} rounds)")
        rates = {name: statistics.median(each[name] for each in rounds) for name in chains}
        for name, rate in rates.items():
            against = f"   {rate / rates[THEIRS]:5.1f} x nnU-Net v2" if THEIRS in rates else ""
            print(f"  {name:45s} {rate:7.0f}{against}")


if __name__ == "__main__":
    main()
