"""HSNet: pretrained files, its four outputs, the corrected decoder."""

from __future__ import annotations

import json
from functools import cache

import pytest
import timm
import torch

from autoseg import models
from autoseg.models.base import ModelOutput
from autoseg.support.errors import AutosegError
from tests.golden.test_golden import FOLDER, golden_tensors


@cache
def published() -> dict[str, torch.Tensor]:
    return golden_tensors(json.loads((FOLDER / "hsnet.json").read_text()))


def backbone(prefix: str = "") -> dict[str, torch.Tensor]:
    tensors = {n.removeprefix("backbone."): t for n, t in published().items() if n.startswith("backbone.")}
    tensors |= {"head.weight": torch.zeros(1000, 512), "head.bias": torch.zeros(1000)}
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_pvt_file_fills_the_whole_encoder_and_nothing_else(prefix: str) -> None:
    network = models.build("hsnet")
    report = models.load_published(network, backbone(prefix))
    assert set(report.dropped) == {prefix + "head.weight", prefix + "head.bias"}
    assert report.missing == tuple(n for n, _ in network.named_parameters() if not n.startswith("encoder."))
    theirs = backbone()["block3.5.mlp.dwconv.dwconv.weight"]
    assert torch.equal(network.state_dict()["encoder.stages.2.blocks.5.mlp.dwconv.weight"], theirs)


def test_a_timm_file_fills_the_whole_encoder() -> None:
    torch.manual_seed(0)
    network, theirs = models.build("hsnet", in_channels=1), timm.create_model("pvt_v2_b2")
    report = models.load_published(network, theirs.state_dict())
    assert not [name for name in report.missing if name.startswith("encoder.")]
    stem = network.state_dict()["encoder.patch_embed.proj.weight"]
    torch.testing.assert_close(stem, theirs.patch_embed.proj.weight.sum(dim=1, keepdim=True))


def test_a_smaller_pvt_does_not_fit() -> None:
    with pytest.raises(AutosegError, match="do not fit HSNet"):
        models.load_published(models.build("hsnet"), timm.create_model("pvt_v2_b0").state_dict())


def test_four_predictions_make_the_logits() -> None:
    torch.manual_seed(0)
    output = models.build("hsnet", num_classes=3).train()(torch.randn(2, 3, 64, 96))
    assert isinstance(output, ModelOutput)
    parts = [logits for logits, _ in output.auxiliary]
    assert len(parts) == 4
    torch.testing.assert_close(sum(parts[1:], parts[0]), output.logits)


def test_the_corrected_decoder_loads_the_published_weights_and_gives_other_logits() -> None:
    outputs = []
    for variant in ("pvt_v2_b2", "fixed"):
        network = models.build("hsnet", variant, num_classes=4)
        report = models.load_published(network, published())
        assert not report.missing
        dropped = {name for name in report.dropped if not name.endswith("num_batches_tracked")}
        assert all(name.startswith("decoder.hb0.") for name in dropped)
        assert bool(dropped) == (variant == "fixed")
        with torch.no_grad():
            outputs.append(network.eval()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3 * outputs[0].std()


def test_published_heads_of_one_logit_are_kept_for_two_classes() -> None:
    """A logit z of the foreground is the pair (0, z): its softmax is the sigmoid of z."""
    one_class = {name: tensor[:1] if name.startswith("out") else tensor for name, tensor in published().items()}
    image = torch.randn(1, 3, 64, 64)
    networks = [models.build("hsnet", num_classes=count).eval() for count in (1, 2)]
    reports = [models.load_published(network, one_class) for network in networks]
    assert not any(name.startswith("out") for report in reports for name in report.dropped)
    with torch.no_grad():
        single, pair = (network(image) for network in networks)
    torch.testing.assert_close(pair.softmax(dim=1)[:, 1:], single.sigmoid())
    assert not pair[:, 0].any()
    three = models.load_published(models.build("hsnet", num_classes=3), one_class)
    assert any(name.startswith("out") for name in three.dropped)
