"""A network of a few weights with an encoder of two layers, to freeze it or to train it slowly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, Variant
from autoseg.models.published_weights import direct
from autoseg.schema.plan import Plan, Splits
from autoseg.support.workspace import Dataset
from tests.training import tiny

NAME = "with_encoder"
WEIGHTS = direct("https://files.example.org/encoder.pth", trained_on="ImageNet-1k", licence="MIT")
SPEC = ModelSpec(
    name=NAME, title="With encoder", family="foundation", citation="none", variants=(Variant("one", 0),), default_variant="one",
    divisor=4, weights=(WEIGHTS,),
)  # fmt: skip


class WithEncoder(SegmentationNetwork):
    """Batch norm and dropout in the encoder: whatever a frozen one could go on changing."""

    divisor = 4

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        first = (nn.Conv2d(in_channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.encoder = nn.Sequential(*first, nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3))
        self.head = nn.Conv2d(8, num_classes, 1)
        self.head_weights = ("head.weight", "head.bias")

    def segment(self, x: Tensor) -> ModelOutput:
        return self.decode(self.encode(x), x)

    def encode(self, x: Tensor) -> list[Tensor]:
        return [self.encoder(x)]

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        return ModelOutput(self.head(maps[0]))

    def encoder_layers(self) -> Mapping[str, int]:
        return {name: 0 if name.startswith(("encoder.0.", "encoder.1.")) else 1 for name in self.encoder_parameters()}


def build(variant: str, in_channels: int, num_classes: int, input_size: Any = None) -> WithEncoder:
    return WithEncoder(in_channels, num_classes)


MODULE = SimpleNamespace(SPEC=SPEC, build=build)


def prepare(root: Path, **changes: Any) -> tuple[Dataset, Plan, Splits]:
    """As `tiny.prepare`, with this network and changed fields of its plan."""
    dataset, plan, splits = tiny.prepare(root)
    model = replace(plan.models[tiny.NAME], model=NAME, pretrained="auto", **changes)
    return dataset, tiny.with_training(replace(plan, models={NAME: model}), epochs=2), splits


def put_weights(root: Path) -> dict[str, Tensor]:
    """The published file of the encoder, in the weights folder."""
    torch.manual_seed(1)
    tensors = {name: one for name, one in WithEncoder(1, 3).state_dict().items() if name.startswith("encoder.")}
    path = root / "weights" / WEIGHTS.path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return tensors
