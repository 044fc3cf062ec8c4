from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from autoseg.schema.plan import Training
from autoseg.training.optim import learning_rate_at, make_optimizer, split_by_decay


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer = nn.LayerNorm((4, 5))
        self.scale = nn.Parameter(torch.ones(4))
        self.position = nn.Parameter(torch.ones(1, 4, 5))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_norms_biases_and_vectors_have_no_weight_decay():
    net = Net()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    yes, no = ([names[id(parameter)] for parameter in group] for group in split_by_decay(net))
    assert yes == ["position", "conv.weight"]
    assert set(no) == {"scale", "conv.bias", "norm.weight", "norm.bias", "layer.weight", "layer.bias"}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_only_weights(name):
    net = Net()
    optimizer = make_optimizer(net, Training(epochs=1, loss="ce", learning_rates=(0.1,), optimizer=name, weight_decay=0.5), 0.1)
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(net.named_parameters())
    ratio = after["conv.weight"].detach() / before["conv.weight"]
    assert torch.allclose(ratio, ratio.mean()) and 0.85 < float(ratio.mean()) < 0.96
    assert torch.equal(after["norm.weight"], before["norm.weight"]) and torch.equal(after["scale"], before["scale"])


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_fused_update_equals_plain_update_in_both_memory_formats(form):
    """It goes over memory as it lies, so weights, gradients and moments must lie alike: also after a resume."""
    training = Training(epochs=1, loss="ce", learning_rates=(0.01,))

    def make(net: nn.Module, fused: bool) -> torch.optim.Optimizer:
        if fused:
            return make_optimizer(net, training, 0.01)
        groups = [
            {"params": group, "weight_decay": decay} for group, decay in zip(split_by_decay(net), (0.01, 0.0), strict=True)
        ]
        return torch.optim.AdamW(groups, lr=0.01)

    nets, optimizers = [], []
    for fused in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 3))
        nets.append(net.to(memory_format=form))
        optimizers.append(make(net, fused))
    assert all(group["fused"] for group in optimizers[1].param_groups)
    for number in range(6):
        images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(number))
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
        if number == 2:
            states = [optimizer.state_dict() for optimizer in optimizers]
            fresh = [make(net, fused) for fused, net in enumerate(nets)]
            for optimizer, state in zip(fresh, states, strict=True):
                optimizer.load_state_dict(state)
            optimizers = fresh
    for plain, fused in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-6)


def test_resumed_run_keeps_the_plain_update():
    net = Net()
    old = torch.optim.AdamW([{"params": group} for group in split_by_decay(net)], lr=0.1)
    now = make_optimizer(net, Training(epochs=1, loss="ce", learning_rates=(0.1,)), 0.1)
    now.load_state_dict(old.state_dict())
    assert not any(group["fused"] for group in now.param_groups)


def test_rex_follows_its_formula():
    rates = [learning_rate_at(step, 100, 0.2, "rex") for step in range(100)]
    assert rates[0] == 0.2
    assert rates[50] == pytest.approx(0.2 * 0.5 / 0.75)
    assert rates[99] == pytest.approx(0.2 * 0.01 / 0.505)
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_poly_follows_its_formula():
    assert learning_rate_at(25, 100, 0.2, "poly") == pytest.approx(0.2 * 0.75**0.9)


@pytest.mark.parametrize("schedule", ["rex", "poly"])
def test_warm_up_is_linear_and_ends_at_the_full_rate(schedule):
    rates = [learning_rate_at(step, 50, 1.0, schedule, warmup=10) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0 and rates[11] < 1.0
    assert 0 < rates[-1] < 0.1
