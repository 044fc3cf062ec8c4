"""HiFormer: the corrected fusion, and pretrained files."""

from __future__ import annotations

import re

import timm
import torch
import torchvision

from autoseg import models


def test_with_fixed_fusion_each_level_affects_the_other() -> None:
    torch.manual_seed(0)
    fusion = models.build("hiformer", "B-fixed").fusion
    fine, coarse = torch.randn(1, 56, 56, 96), torch.randn(1, 14, 14, 384)
    first_fine, first_coarse = fusion(fine, coarse)
    other_coarse = fusion(fine, torch.randn_like(coarse))[0]
    other_fine = fusion(torch.randn_like(fine), coarse)[1]
    assert float((other_coarse - first_fine).detach().abs().max()) > 1e-5
    assert float((other_fine - first_coarse).detach().abs().max()) > 1e-5


def test_with_fixed_fusion_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(0)
    network = models.build("hiformer", "B-fixed").train()
    network(torch.randn(1, 3, 64, 64)).logits.square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_duplicates_and_tables_of_whole_files_are_dropped() -> None:
    network = models.build("hiformer", "S")
    stage = {name: torch.full_like(p, 0.5) for name, p in network.cnn[1].state_dict().items()}
    tensors = {f"All2Cross.pyramid.resnet_layers.5.{name}": p for name, p in stage.items()}
    aliases = {f"All2Cross.pyramid.p2.{name}": p for name, p in stage.items()}
    aliases["ConvUp_l.convs_level.0.weight"] = torch.zeros(128, 96, 3, 3)
    aliases["All2Cross.pyramid.swin_transformer.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    report = models.load_published(network, tensors | aliases)
    assert set(aliases) <= set(report.dropped)
    assert float(network.cnn[1][0].conv1.weight.detach().min()) == 0.5


def test_loads_both_imagenet_files() -> None:
    network = models.build("hiformer", "B")
    resnet = torchvision.models.resnet50(weights=None).state_dict()
    report = models.load_published(network, resnet)
    assert all(name.startswith(("layer4.", "fc.")) for name in report.dropped if not name.endswith("tracked"))
    assert torch.equal(network.cnn[2][5].conv3.weight, resnet["layer3.5.conv3.weight"])

    # timm counts each downsampling with the next stage, the authors with the previous one.
    swin = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    renamed = {re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", n): p for n, p in swin.items()}
    report = models.load_published(network, renamed)
    trainable = {name for name, _ in network.swin.named_parameters(prefix="swin")}
    assert len(report.loaded) == len(trainable) and not trainable & set(report.missing)
    assert torch.equal(network.swin[2].downsample.reduction.weight, swin["layers.2.downsample.reduction.weight"])
