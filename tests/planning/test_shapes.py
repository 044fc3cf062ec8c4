"""Results made by rule are those PyTorch makes: shape, type and how they lie in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from autoseg import models
from autoseg.planning import memory, shapes
from autoseg.planning.shapes import Shapes

X = torch.randn(2, 4, 6, 10)
LAST = X.contiguous(memory_format=torch.channels_last)
ROW, WIDE = torch.randn(10), X.unsqueeze(0).expand(3, 2, 4, 6, 10)
LAYOUTS = {"plain": X, "channels last": LAST, "turned": X.permute(0, 2, 3, 1), "gaps": X[..., ::2], "expanded": WIDE[0]}

POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky in place": lambda x: F.leaky_relu(x.clone(), inplace=True),
    "gelu": F.gelu,
    "clamp": lambda x: x.clamp(0, 6),
    "power": lambda x: x**2,
    "twice": lambda x: 2 * x,
    "less a number": lambda x: x - 1.0,
    "with itself": lambda x: x + x,
    "with another layout": lambda x: x + torch.zeros_like(x, memory_format=torch.contiguous_format),
    "with a row": lambda x: x * x.new_ones(x.shape[-1]),
    "joined": lambda x: torch.cat([x, x], dim=1),
    "joined from the end": lambda x: torch.cat([x, x.contiguous()], dim=-1),
    "repeated": lambda x: x.repeat(2, 1, 1, 3),
    "instance norm": lambda x: F.instance_norm(x),
    "group norm": lambda x: F.group_norm(x, 2 if x.shape[1] % 2 == 0 else 1),
    "layer norm": lambda x: F.layer_norm(x.contiguous(), x.shape[-1:]),
}
LAYERS = {
    "batch norm": nn.BatchNorm2d(4),
    "plain": nn.Conv2d(4, 6, 3),
    "strided": nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "in groups": nn.Conv2d(4, 8, 3, groups=2, bias=False),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed in groups": nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
}


def check(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    expected = function(x)
    meta = torch.empty_strided(x.shape, x.stride(), device="meta")
    with Shapes():
        found = function(meta)
    assert found.is_meta
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", POINTWISE)
def test_results_lie_in_memory_as_a_processors_do(name: str, layout: str) -> None:
    check(POINTWISE[name], LAYOUTS[layout])


@pytest.mark.parametrize("layout", ["plain", "channels last"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_channels_last(name: str, layout: str) -> None:
    x, layer = LAYOUTS[layout], LAYERS[name]
    with torch.no_grad(), Shapes():
        found = layer.to("meta")(torch.empty_strided(x.shape, x.stride(), device="meta"))
    layer.to_empty(device="cpu")
    expected = layer(x)
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())


def test_what_does_not_fit_is_left_to_pytorch_to_refuse() -> None:
    with torch.device("meta"), Shapes():
        layer, x = nn.Conv2d(3, 8, 3), torch.zeros(1, 4, 9, 9)
        with pytest.raises(RuntimeError):
            layer(x)
        with pytest.raises(RuntimeError):
            torch.cat([x, x[:, :, 1:]])
        with pytest.raises(RuntimeError):
            x + x[..., 1:]


def test_tensors_with_values_are_left_alone() -> None:
    with Shapes():
        assert torch.equal(torch.cat([X, X + 1]).relu(), torch.cat([X, X + 1]).clamp(min=0))


@pytest.mark.parametrize("name", models.names())
def test_memory_and_operations_are_those_without_rules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = models.spec(name)
    size = (spec.fixed_size, spec.fixed_size) if spec.fixed_size else (64, 96)
    with torch.device("meta"):
        network = models.build(name, spec.default_variant, 3, 2, input_size=size)
    ruled, flops = memory.measure(network, (2, 3, *size), "bf16"), memory.count_flops(network, (1, 3, *size))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.device("meta"), memory._without_values(network, False):
        network.eval()(torch.zeros(1, 3, *size))
    assert flops == counter.get_total_flops()
    monkeypatch.setattr(memory, "Shapes", nullcontext)
    plain = memory.measure(network, (2, 3, *size), "bf16")
    # Convolutions keep channels last on a processor, which PyTorch forgets on the meta device: some copies are not made.
    assert ruled.activations == pytest.approx(plain.activations, rel=0.02)
    assert ruled.fixed == plain.fixed


def test_rules_are_there_for_what_they_name() -> None:
    for name in (*shapes._SAME, *shapes._BINARY, *shapes._FILLING):
        assert shapes._overloads(name), f"PyTorch has no {name}"


def test_a_network_is_measured_without_pytorchs_compiler() -> None:
    code = (
        "import sys; from autoseg.planning.sizing import _flops, _measured; import torch;"
        "_measured('nnunet', 'small', (2, 1, 64, 64), 2, 'bf16', '{}'); _flops('nnunet', 'small', 1, 2, (64, 64), '{}');"
        "print(*sorted({'sympy', 'torch._dynamo', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
