"""How many augmented images a second one core makes, by chain and size, against nnU-Net v2's transforms where installed.

    python -m benchmarks.loader [--sizes 256,512] [--rounds 5] [--seconds 2]

Counts processor time, not seconds on the wall, so that a busy machine matters little; chains take turns within each
round, and the median round is printed. Ours goes through `Batches` (sampling, memory-mapped store, augmentation, tensors);
nnU-Net's is its own `get_training_transforms` on an image that lies in memory, cut to its own initial patch size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from autoseg.data.loader import Batches
from autoseg.preprocessing.store import Store, writing
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Augmentation, ModelPlan, Normalisation, Preparation, Training

CASES, BATCH = 48, 8
SCHEME = LabelScheme(("background", "object"), ((0,), (1,)))
# nnU-Net v2's own chances and ranges; its two gamma transforms, of 0.1 and 0.3, are one here.
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


def photographs(folder: Path, side: int) -> Store:
    """A store of smooth RGB pictures with a blob each."""
    random = np.random.default_rng(0)
    preparation = Preparation("k", "whole", "uint8", 3, size=(side, side))
    with writing(folder, preparation, "benchmark") as writer:
        for index in range(CASES):
            coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
            writer.add(f"case{index}", image, (cv2.blur(image[..., 0], (31, 31)) > 128).astype(np.uint8), (side, side))
    return Store.open(folder)


def ours(store: Store, side: int, settings: Augmentation) -> Callable[[float], float]:
    """Images per second of processor time, given the seconds to try for."""
    plain = Normalisation("constant", (0.0,) * 3, (1.0,) * 3)
    plan = ModelPlan("unet", "16", (side, side), BATCH, 1, "fp32", "none", 1e-3, 0, plain, "k", 0, 0, 0)
    batches = Batches(store, store.cases, plan, Training(1, "dice_ce", (1e-3,), augmentation=settings), SCHEME, 0, workers=1)
    epoch = 0

    def rate(seconds: float) -> float:
        nonlocal epoch
        begun, images = time.process_time(), 0
        while time.process_time() - begun < seconds:
            images += sum(len(batch.images) for batch in batches.epoch(epoch))
            epoch += 1
        return images / (time.process_time() - begun)

    return rate


def theirs(store: Store, side: int) -> Callable[[float], float] | None:
    """The same for nnU-Net v2; None where it is not installed."""
    try:
        from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
        from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    except ImportError as error:
        print(f"nnU-Net v2 is not compared: {error}")
        return None
    angles = (-np.pi, np.pi)
    initial = get_patch_size((side, side), angles, angles, angles, (0.85, 1.25))
    transforms = nnUNetTrainer.get_training_transforms((side, side), angles, None, (0, 1), False)
    images = [np.ascontiguousarray(store.image(case).transpose(2, 0, 1), np.float32) / 64 - 2 for case in store.cases]
    labels = [store.label(case)[None].astype(np.int16) for case in store.cases]
    low = [int((side - wide) // 2) for wide in initial]
    box = [[start, start + int(wide)] for start, wide in zip(low, initial, strict=True)]

    def rate(seconds: float) -> float:
        begun, made = time.process_time(), 0
        while time.process_time() - begun < seconds:
            image, label = images[made % CASES], labels[made % CASES]
            transforms(
                image=torch.from_numpy(crop_and_pad_nd(image, box, 0)),
                segmentation=torch.from_numpy(crop_and_pad_nd(label, box, -1)),
            )
            made += 1
        return made / (time.process_time() - begun)

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
            store = photographs(Path(folder) / "store", side)
            chains = {name: ours(store, side, settings) for name, settings in OURS.items()}
            other = theirs(store, side)
            if other is not None:
                chains[THEIRS] = other
            for chain in chains.values():
                chain(options.seconds / 4)
            rounds = [{name: chain(options.seconds) for name, chain in chains.items()} for _ in range(options.rounds)]
        print(f"\n{side} x {side} RGB, images per second of one core (median of {options.rounds} rounds)")
        rates = {name: statistics.median(each[name] for each in rounds) for name in chains}
        for name, rate in rates.items():
            against = f"   {rate / rates[THEIRS]:5.1f} x nnU-Net v2" if THEIRS in rates else ""
            print(f"  {name:45s} {rate:7.0f}{against}")


if __name__ == "__main__":
    main()
