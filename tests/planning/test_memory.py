from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg import models
from autoseg.models.fake_tensors import can_be_fake
from autoseg.planning import memory
from autoseg.planning.memory import count_flops, measure, training_memory
from benchmarks.memory import compare, really_saved

QUICK = ("nnunet", "unet", "efficientnet_lite0_upernet", "segformer")
# Every model and variant; those that take long to build and run are slow tests. `python -m benchmarks.memory` prints the table.
VARIANTS = [
    pytest.param(name, variant.name, marks=() if name in QUICK and variant.parameters < 1e7 else pytest.mark.slow)
    for name in models.names()
    for variant in models.spec(name).variants
]


def smallest(name: str) -> str:
    return min(models.spec(name).variants, key=lambda variant: variant.parameters).name


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_real_step_saves_what_was_measured(name: str, variant: str) -> None:
    measured, real = compare(name, variant, (2, 3, 64, 96), "fp32")
    assert measured == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("name", QUICK)
def test_weights_are_counted(name: str) -> None:
    network = models.build(name, smallest(name), 3, 3, input_size=(64, 64))
    measured = measure(network, (2, 3, 64, 64))
    assert measured.parameters == sum(t.nbytes for t in [*network.parameters(), *network.buffers()])
    assert measured.trainable == sum(p.nbytes for p in network.parameters())


@pytest.mark.parametrize("name", ["nnunet", "unet", "efficientnet_lite0_upernet"])
def test_convolutions_are_measured_to_the_byte(name: str) -> None:
    network = models.build(name, smallest(name), 1, 2, input_size=(64, 64))
    assert measure(network, (2, 1, 64, 64)).activations == really_saved(network, torch.randn(2, 1, 64, 64))


@pytest.mark.parametrize("name", ["nnunet", "segformer"])
def test_half_precision_is_seen(name: str) -> None:
    network = models.build(name, smallest(name), 3, 2, input_size=(64, 64))
    measured = measure(network, (3, 3, 64, 64), "bf16")
    assert measured.activations == pytest.approx(really_saved(network, torch.randn(3, 3, 64, 64), half=True), rel=0.02)
    assert measured.activations < 1.3 * measure(network, (3, 3, 64, 64)).activations


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_batch_is_worked_out(precision: str) -> None:
    network = models.build("nnunet", "small", 3, 2, input_size=(64, 64))
    small, large = (measure(network, (batch, 3, 64, 64), precision) for batch in (2, 6))
    assert small.at_batch(6).activations == pytest.approx(large.activations, rel=0.02)
    assert large.at_batch(2).activations == pytest.approx(small.activations, rel=0.02)
    assert small.at_batch(6).largest == large.largest


class Switch(nn.Module):
    """Two convolutions, the second without autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            return self.second(x.float())


def test_a_part_without_autocast_is_measured_as_such() -> None:
    network = Switch()
    assert measure(network, (2, 1, 32, 32), "bf16").activations == really_saved(network, torch.randn(2, 1, 32, 32), half=True)


class Attention(nn.Module):
    """Over 1024 tokens, with two heads of width 8. mask: "", "bool" or "float"."""

    def __init__(self, mask: str = "") -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.mask = {"": None, "bool": torch.bool, "float": torch.float32}[mask]

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        query, key, value = self.project(tokens).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mask = None if self.mask is None else torch.ones(1024, 1024, dtype=self.mask, device=x.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("masked", ["", "bool", "float"])
def test_fused_attention_keeps_no_matrix(masked: str, half: bool) -> None:
    network, images = Attention(masked), torch.randn(2, 16, 64, 64)
    precision = "bf16" if half else "fp32"
    measured = {device: measure(network, (2, 16, 64, 64), precision, device).activations for device in ("cpu", "cuda", "mps")}
    assert measured["cpu"] == pytest.approx(really_saved(network, images, half), rel=0.01)
    for activations in measured.values():
        assert activations < 4 * 2 * 2 * 1024**2, "the matrix alone would take as much"


def test_products_of_attention_are_counted() -> None:
    projection, products = 2 * 1024 * 16 * 48, 2 * (2 * 2 * 1024**2 * 8)
    assert count_flops(Attention(), (1, 16, 64, 64)) == projection + products


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(16, 64), nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.project(x))


def test_each_device_has_its_own_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs autocast runs layer norm in single precision, on processors in half."""
    network, shape, normed = Normed(), (4, 8, 32, 16), 4 * 8 * 32 * 64
    on_processor = measure(network, shape, "bf16", "cpu")
    assert on_processor.activations == pytest.approx(really_saved(network, torch.randn(shape), half=True), rel=0.03)
    monkeypatch.setattr(memory, "can_be_fake", lambda device: False)
    for device in ("mps", "cuda"):
        assert measure(network, shape, "bf16", device) == on_processor
    monkeypatch.undo()
    if can_be_fake("cuda"):
        on_gpu = measure(network, shape, "bf16", "cuda")
        assert on_gpu.activations - on_processor.activations == pytest.approx(2 * normed, rel=0.05)
        assert measure(network, shape, "fp16", "cuda") == on_gpu


def test_the_network_is_left_as_it_was() -> None:
    network = models.build("nnunet", "small", 1, 2, input_size=(64, 64)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure(network, (2, 1, 64, 64), "bf16")
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, before[name])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_flops_are_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert count_flops(network, (1, 3, 20, 10)) == 200 * 2 * (8 * 27 + 2 * 8)


def test_a_step_adds_gradients_and_the_optimisers_state() -> None:
    measured = measure(nn.Conv2d(1, 1000, 1, bias=False), (2, 1, 4, 4))
    weights = 4000
    held = measured.activations + 2 * measured.largest + measured.parameters
    assert measured.parameters == weights
    assert training_memory(measured, 0, "adamw") == held + 3 * weights
    assert training_memory(measured, 0, "sgd") == held + 2 * weights
    assert training_memory(measured, 10) - training_memory(measured, 0) == 120


def test_nothing_of_a_measurement_stays_in_memory() -> None:
    outputs = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append(weakref.ref(output))

    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    for layer in network:
        layer.register_forward_hook(keep)
    measure(network, (2, 1, 32, 32))
    gc.collect()
    assert len(outputs) == 3 and all(output() is None for output in outputs)
