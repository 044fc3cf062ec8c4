"""SegFormer's ImageNet files: the encoder alone, under names without prefix, with a classifier to leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from autoseg import models

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["segformer"])
@pytest.mark.parametrize("channels", [1, 3])
def test_takes_the_whole_encoder_from_an_imagenet_file(name: str, channels: int) -> None:
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    shapes = {key: shape for key, shape in record["parameters"].items() if key.startswith("backbone.")}
    tensors = {key.removeprefix("backbone."): torch.ones(shape) for key, shape in shapes.items()}
    classifier = {"head.weight": torch.ones(1000, 512), "head.bias": torch.ones(1000)}
    network = models.build(name, record["variant"], channels, 2)
    report = models.load_published(network, {**tensors, **classifier})
    assert set(report.loaded) == set(tensors)
    assert set(report.dropped) == set(classifier)
    assert report.missing and not any(parameter.startswith("encoder.") for parameter in report.missing)
    stem = network.get_parameter(network.stem_weights[0])
    assert torch.equal(stem, torch.full_like(stem, 3 / channels))
