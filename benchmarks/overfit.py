"""Can each network learn four real images by heart? The first thing to ask of a network that learns badly.

    python -m benchmarks.overfit --data DIR [--set isic] [--models a,b] [--variant missformer=224] [--side 128] [--steps 200]

DIR holds one folder per set with images/ and masks/ (pixels are class ids). Default variants from random weights, float32,
AdamW, Dice with cross entropy (or the network's own loss); every ten steps Dice over the four images in evaluation mode,
the lowest of the classes. Ends at 0.95 or after --steps steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from autoseg import models as registry
from autoseg.models.base import SegmentationNetwork
from autoseg.schema.dataset import label_scheme
from autoseg.training.losses import Loss

ENOUGH, RATE, GENTLE_RATE = 0.95, 5e-4, 2e-4


def four(folder: Path, side: int) -> tuple[Tensor, Tensor]:
    """Images (4, 3, side, side) of mean 0 and deviation 1, and labels (4, side, side).

    Of the first twenty, those with a middling share of foreground: neither invisible nor all of the picture.
    """
    shares = {path: float((np.asarray(Image.open(path)) > 0).mean()) for path in sorted((folder / "masks").iterdir())[:20]}
    middle = float(np.median(list(shares.values())))
    masks = sorted(shares, key=lambda path: abs(shares[path] - middle))[:4]
    images, labels = [], []
    for mask in masks:
        image = cv2.imread(str(next((folder / "images").glob(f"{mask.stem}.*"))))[..., ::-1]
        images.append(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
        labels.append(cv2.resize(np.asarray(Image.open(mask)), (side, side), interpolation=cv2.INTER_NEAREST))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return (pixels - pixels.mean()) / pixels.std(), torch.from_numpy(np.stack(labels)).long()


@torch.inference_mode()
def worst_dice(network: SegmentationNetwork, images: Tensor, labels: Tensor, classes: int) -> float:
    network.eval()
    predicted = network(images).argmax(dim=1)
    network.train()
    overlaps = [
        2 * ((predicted == k) & (labels == k)).sum() / ((predicted == k).sum() + (labels == k).sum()) for k in range(1, classes)
    ]
    return min(map(float, overlaps))


def overfit(name: str, variant: str | None, images: Tensor, labels: Tensor, steps: int) -> tuple[float, int]:
    classes = int(labels.max()) + 1
    scheme = label_scheme({"background": 0} | {f"class{k}": k for k in range(1, classes)}, None)
    spec, loss = registry.spec(name), Loss("dice_ce", scheme)
    torch.manual_seed(0)
    network = registry.build(name, variant, num_classes=classes, input_size=tuple(images.shape[-2:]))
    rate = GENTLE_RATE if spec.warmup_epochs else RATE
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    network.train()
    best = 0.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 10)
        optimizer.zero_grad(set_to_none=True)
        loss(network(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            best = max(best, worst_dice(network, images, labels, classes))
            if best > ENOUGH:
                break
    return best, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default="isic")
    parser.add_argument("--models", default=",".join(registry.names()))
    parser.add_argument("--variant", action="append", default=[], metavar="MODEL=VARIANT")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    variants = dict(pair.split("=") for pair in options.variant)
    images, labels = four(options.data / options.set, options.side)
    print("| model | variant | Dice | steps | seconds |\n|---|---|---|---|---|")
    for name in options.models.split(","):
        variant = variants.get(name, registry.spec(name).default_variant)
        started = time.perf_counter()
        dice, steps = overfit(name, variant, images, labels, options.steps)
        print(f"| `{name}` | {variant} | {dice:.3f} | {steps} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
