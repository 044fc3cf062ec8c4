"""Swin-UMamba: pretrained files of the encoder, initial values, the four-way scan."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from autoseg import models
from autoseg.models.base import ModelOutput
from autoseg.models.specialist.swin_umamba import FourWayScan
from tests.golden.test_golden import FOLDER, golden_tensors


@cache
def vmamba() -> dict[str, torch.Tensor]:
    """A file as published by VMamba: the encoder with VMamba's names, and a classifier."""
    record = json.loads((FOLDER / "swin_umamba.json").read_text())
    record["parameters"] = {n: s for n, s in record["parameters"].items() if n.startswith("vssm_encoder.")}
    tensors = {}
    for name, tensor in golden_tensors(record).items():
        name = name.removeprefix("vssm_encoder.")
        if name.startswith("downsamples."):
            level, rest = name.removeprefix("downsamples.").split(".", 1)
            name = f"layers.{level}.downsample.{rest}"
        tensors[name] = tensor
    # VMamba's stem has the image's three channels as input.
    tensors["patch_embed.proj.weight"] = torch.zeros(96, 3, 4, 4)
    classifier = {"norm.weight": (768,), "norm.bias": (768,), "head.weight": (1000, 768), "head.bias": (1000,)}
    return tensors | {name: torch.zeros(shape) for name, shape in classifier.items()}


def test_a_vmamba_file_fills_all_but_the_stem_and_the_decoder() -> None:
    network = models.build("swin_umamba")
    report = models.load_published(network, vmamba())
    encoder = {n for n, _ in network.named_parameters() if n.startswith(("stages.", "merges."))}
    assert not encoder & set(report.missing)
    assert {"patches.proj.weight", "patches.norm.weight"} <= set(report.missing)
    assert set(report.dropped) == {
        "norm.weight", "norm.bias", "head.weight", "head.bias",
        "patch_embed.proj.weight", "patch_embed.proj.bias", "patch_embed.norm.weight",
    }
    theirs = vmamba()["layers.2.blocks.8.self_attention.A_logs"]
    assert torch.equal(network.state_dict()["stages.2.8.scan.decay"], theirs)


def test_initial_values_are_the_published_ones() -> None:
    torch.manual_seed(0)
    scan = FourWayScan(32)
    steps = F.softplus(scan.step_bias.detach())
    assert float(steps.min()) >= 0.9e-3 and float(steps.max()) <= 0.1001
    assert float(steps.log10().mean()) == pytest.approx(-2.0, abs=0.2)
    assert torch.allclose(scan.decay.exp(), torch.arange(1.0, 17.0).expand(4 * 64, 16))


def test_the_scan_is_equivariant_to_transposition() -> None:
    """Transposing the map and swapping the weights of the directions swaps rows and columns."""
    torch.manual_seed(0)
    scan = FourWayScan(8).eval()
    other = FourWayScan(8).eval()
    swapped = {}
    for name, tensor in scan.state_dict().items():
        if name in ("read", "step", "step_bias"):
            tensor = tensor[[1, 0, 3, 2]]
        elif name in ("decay", "skip"):
            tensor = tensor.unflatten(0, (4, -1))[[1, 0, 3, 2]].flatten(0, 1)
        elif name == "local.weight":
            tensor = tensor.mT
        swapped[name] = tensor
    other.load_state_dict(swapped)
    x = torch.randn(2, 5, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(other(x.transpose(1, 2)).transpose(1, 2), scan(x), rtol=1e-4, atol=1e-6)


def test_training_has_three_levels() -> None:
    torch.manual_seed(0)
    output = models.build("swin_umamba", num_classes=3).train()(torch.randn(1, 3, 64, 96))
    assert isinstance(output, ModelOutput)
    assert [(tuple(logits.shape), weight) for logits, weight in output.auxiliary] == [
        ((1, 3, 32, 48), 0.5), ((1, 3, 16, 24), 0.25),
    ]
