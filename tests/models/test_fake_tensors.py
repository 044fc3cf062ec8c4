from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from autoseg import models
from autoseg.models.fake_tensors import can_be_fake, fake_autocast, fake_tensors, meta_tensors

NEEDS_CUDA = pytest.mark.skipif(not can_be_fake("cuda"), reason="PyTorch has no fake CUDA tensors here")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]


class Twice(nn.Module):
    """Holds one layer under two names, a buffer, a frozen weight and a buffer that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)
        self.alias = self.layer
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(self.layer(x)) * self.scale + self.frozen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("built_on", ["cpu", "meta"])
def test_a_network_is_fake_within_the_context_only(device: str, built_on: str) -> None:
    with torch.device(built_on):
        network = Twice()
    before = {name: (tensor, tensor.clone()) for name, tensor in network.state_dict(keep_vars=True).items()}
    with fake_tensors(network, device) as fakes:
        assert len(fakes) == 4 and all(isinstance(fake, FakeTensor) for fake in fakes)
        assert network.alias.weight is network.layer.weight
        assert [parameter.requires_grad for parameter in network.parameters()] == [False, True, True]
        output = network(torch.zeros(2, 1, 8, 8, device=device))
        assert isinstance(output, FakeTensor) and output.device.type == device and output.shape == (2, 1, 8, 8)
    for name, tensor in network.state_dict(keep_vars=True).items():
        original, values = before[name]
        assert tensor is original and tensor.grad is None
        assert built_on == "meta" or torch.equal(tensor, values)


def test_a_training_step_runs_on_fake_tensors() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with fake_tensors(network, "cpu"):
        optimizer = torch.optim.AdamW(network.parameters())
        logits = network(torch.zeros(2, 3, 16, 16))
        nn.functional.cross_entropy(logits, torch.zeros(2, 14, 14, dtype=torch.long)).backward()
        assert all(isinstance(parameter.grad, FakeTensor) for parameter in network.parameters())
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("device", DEVICES)
def test_layouts_are_those_of_the_network(device: str) -> None:
    network = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    strides = network.weight.stride()
    with fake_tensors(network, device):
        assert network.weight.stride() == strides
        assert network(torch.zeros(2, 4, 8, 8, device=device)).is_contiguous(memory_format=torch.channels_last)


@NEEDS_CUDA
def test_a_tensor_that_stays_on_the_processor_is_found() -> None:
    class Forgets(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(x.shape[-1])

    with fake_tensors(Forgets(), "cuda"), pytest.raises(Exception, match="cuda.*cpu"):
        Forgets()(torch.zeros(2, 3, device="cuda"))


def test_the_networks_tensors_come_back_after_an_error() -> None:
    network = Twice()
    weight = network.layer.weight
    with pytest.raises(Exception, match=r"(?i)item|local_scalar"), fake_tensors(network, "cpu"):
        network.scale.item()
    assert network.layer.weight is weight and network.scale.item() == 2


def test_a_device_that_would_end_the_process_is_refused() -> None:
    with pytest.raises(ValueError, match="no fake tensors on hpu"), fake_tensors(Twice(), "hpu"):
        pass


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_is_on_though_the_device_is_missing(device: str) -> None:
    network, half = nn.Linear(4, 4), torch.float16
    with fake_tensors(network, device):
        x = torch.zeros(2, 4, device=device)
        with fake_autocast(device, half):
            assert network(x).dtype == half
            assert nn.functional.layer_norm(network(x), (4,)).dtype == (torch.float32 if device == "cuda" else half)
            with torch.autocast(device, enabled=False):
                assert network(x).dtype == torch.float32
        assert network(x).dtype == torch.float32 and not torch.is_autocast_enabled(device)


def test_on_the_meta_device_nothing_asks_for_gradients() -> None:
    network = models.build("nnunet", "small", 1, 2, input_size=(64, 64))
    weight = next(network.parameters())
    with meta_tensors(network) as tensors, torch.device("meta"):
        assert all(tensor.is_meta and not tensor.requires_grad for tensor in tensors)
        assert network(torch.zeros(2, 1, 64, 64)).logits.shape == (2, 2, 64, 64)
    assert next(network.parameters()) is weight and weight.requires_grad
