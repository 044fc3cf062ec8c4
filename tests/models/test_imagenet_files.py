"""ImageNet files: the encoder alone, with a classifier to leave out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from autoseg import models

GOLDEN = Path(__file__).parents[1] / "golden"
CLASSIFIER = {"head.weight": torch.ones(1000, 512), "head.bias": torch.ones(1000)}


@pytest.mark.parametrize("name", ["segformer", "segnext", "vwformer_mit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_encoder_comes_from_a_file_without_prefixes(name: str, channels: int) -> None:
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    shapes = {key: shape for key, shape in record["parameters"].items() if key.startswith("backbone.")}
    tensors = {key.removeprefix("backbone."): torch.ones(shape) for key, shape in shapes.items()}
    network = models.build(name, record["variant"], channels, 2)
    report = models.load_published(network, {**tensors, **CLASSIFIER})
    assert set(report.loaded) == set(tensors)
    assert set(report.dropped) == set(CLASSIFIER)
    assert report.missing and not any(parameter.startswith("encoder.") for parameter in report.missing)
    stem = network.get_parameter(network.stem_weights[0])
    assert torch.equal(stem, torch.full_like(stem, 3 / channels))


def convnext_and_its_file(source: str) -> tuple[Callable[[Tensor], Tensor], dict[str, Tensor]]:
    """Another library's ConvNeXt-T up to its deepest map, and its tensors under the names of one publisher."""
    torch.manual_seed(0)
    if source == "torchvision":
        theirs = torchvision.models.convnext_tiny().eval()
        deepest = theirs.features
    else:
        theirs = timm.create_model("convnext_tiny", pretrained=False).eval()
        deepest = theirs.forward_features
    for name, parameter in theirs.named_parameters():
        if name.endswith(("gamma", "layer_scale")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    renamed = {}
    for key, tensor in theirs.state_dict().items():
        if source in ("mmcls", "authors"):
            key = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)
            key = key.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".")
        if source == "mmcls":
            key = key.replace("conv_dw", "depthwise_conv").replace("mlp.fc", "pointwise_conv")
            key = key if key.startswith("head.fc") else "backbone." + key.replace("head.norm", "norm3")
        elif source == "authors":
            key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
            key = key.replace("head.norm", "norm").replace("head.fc", "head")
        renamed[key] = tensor
    return deepest, renamed


@pytest.mark.parametrize("source", ["mmcls", "authors", "timm", "torchvision"])
def test_convnext_comes_from_any_of_its_publishers(source: str) -> None:
    deepest, tensors = convnext_and_its_file(source)
    network = models.build("vwformer_convnext", "t")
    report = models.load_published(network, tensors)
    assert len(report.dropped) == 2, "only the classifier's weight and bias are left out"
    missing = {parameter for parameter in report.missing if parameter.startswith("encoder.")}
    # No classifier has norms for the three finer maps.
    assert missing == {f"encoder.norms.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, expected = network.eval().encoder.layers(image), deepest(image)
    # Not closer, since one epsilon differs.
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3 * float(expected.std()))
