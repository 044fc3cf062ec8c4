"""Published weights of ResNets. torchvision and timm name the tensors alike."""

from __future__ import annotations

from typing import Any

from autoseg.models.published_weights import PublishedWeights, direct, on_hub

_FILES = {"resnet34": ("resnet34-b627a593", 87), "resnet50": ("resnet50-0676ba61", 103)}


def weights_of(name: str, **facts: Any) -> tuple[PublishedWeights, ...]:
    """The published files of `resnet34` or `resnet50`: torchvision's first training, timm's copy of it, timm's own."""
    file, megabytes = _FILES[name]
    facts = {"megabytes": megabytes, **facts}
    return (
        direct(f"https://download.pytorch.org/models/{file}.pth", licence="BSD-3-Clause", **facts),
        on_hub(f"timm/{name}.tv_in1k", licence="BSD-3-Clause", **facts),
        on_hub(f"timm/{name}.a1_in1k", licence="Apache-2.0", **facts),
    )
