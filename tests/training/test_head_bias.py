from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.models import registry
from autoseg.models.base import ModelOutput
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme
from autoseg.training.head_bias import class_frequencies, init_head_bias
from tests.training import tiny
from tests.training.tiny import Tiny

SHARES = (0.9, 0.08, 0.02)


def answer(network: Tiny, sigmoid: bool = False) -> list[float]:
    """What the network says with its heads' weights silenced."""
    for name, parameter in network.named_parameters():
        if name in network.head_weights and parameter.ndim > 1:
            nn.init.zeros_(parameter)
    with torch.no_grad():
        logits = network.eval()(torch.rand(1, 1, 32, 32))
    return (logits.sigmoid() if sigmoid else logits.softmax(1)).mean((0, 2, 3)).tolist()


@pytest.mark.parametrize("sigmoid", [False, True])
def test_first_output_equals_the_class_frequencies(sigmoid):
    network = Tiny(1, 3, 8).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert init_head_bias(network, 1, SHARES, sigmoid)
    assert network.training
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.bias", "coarse.bias"}
    assert answer(network, sigmoid) == pytest.approx(SHARES, rel=1e-4)


def test_summed_heads_share_the_prior():
    class Summing(Tiny):
        def segment(self, x):
            output = super().segment(x)
            coarse = nn.functional.interpolate(output.auxiliary[0][0], output.logits.shape[-2:])
            return ModelOutput(output.logits + 2 * coarse)

    network = Summing(1, 3, 8)
    assert init_head_bias(network, 1, SHARES, False)
    assert answer(network) == pytest.approx(SHARES, rel=1e-4)


def test_network_that_does_not_follow_its_biases_is_unchanged():
    class Normalising(Tiny):
        def segment(self, x):
            return ModelOutput(super().segment(x).logits * x.mean() + 3)

    network = Normalising(1, 3, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert not init_head_bias(network, 1, SHARES, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["unet", "efficientnet_lite0_upernet"])
def test_registered_networks_support_it(name):
    spec = registry.spec(name)
    smallest = min(spec.variants, key=lambda variant: variant.parameters).name
    assert init_head_bias(registry.build(name, smallest, 3, 3), 3, SHARES, False)


def test_class_frequencies_leave_out_ignored_pixels(tmp_path):
    dataset, _, _ = tiny.prepare(tmp_path, ignore=True)
    store = ArrayDataset.open(dataset.array_folder("whole32"))
    scheme = LabelScheme(names=("background", "disc", "core"), members=((0,), (1,), (2,)), ignore=3)
    frequencies = class_frequencies(store, tiny.CASES[:5], scheme)
    assert sum(frequencies) == pytest.approx(1)
    assert 0.6 < frequencies[0] < 0.9 and frequencies[1] > frequencies[2] > 0.01
    regions = LabelScheme(names=("all", "core"), members=((1, 2), (2,)), regions=True, ignore=3, paint=(1, 2))
    assert class_frequencies(store, tiny.CASES[:5], regions) == pytest.approx((frequencies[1] + frequencies[2], frequencies[2]))


def test_missing_class_has_a_finite_bias():
    network = Tiny(1, 3, 8)
    assert init_head_bias(network, 1, (1.0, 0.0, 0.0), True)
    assert torch.isfinite(network.head.bias).all() and network.head.bias.abs().max() < 8
