"""U-KAN's splines: values, gradients, initial values; and the knots in its files."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg import models
from autoseg.models.layers.kan import BASES, KANLinear, spline_bases


def cox_de_boor(x: Tensor) -> Tensor:
    """The textbook recursion on the knots -2.2, -1.8, ... 2.2."""
    knots = torch.arange(-3, 9, dtype=x.dtype) * 0.4 - 1
    x = x.unsqueeze(-1)
    bases = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for order in range(1, 4):
        left = (x - knots[: -order - 1]) / (knots[order:-1] - knots[: -order - 1])
        right = (knots[order + 1 :] - x) / (knots[order + 1 :] - knots[1:-order])
        bases = left * bases[..., :-1] + right * bases[..., 1:]
    return bases


def test_spline_bases_are_those_of_the_recursion() -> None:
    x = torch.linspace(-3, 3, 2001, dtype=torch.float64)
    torch.testing.assert_close(spline_bases(x), cox_de_boor(x), rtol=0, atol=1e-12)
    outside = spline_bases(torch.tensor([-2.2001, 2.2001, 50.0]))
    assert not outside.any()


def test_spline_gradients_are_those_of_the_values() -> None:
    x = (torch.rand(40, dtype=torch.float64) * 5 - 2.5).requires_grad_()
    assert torch.autograd.gradcheck(spline_bases, (x,))
    with_gradient, plain = spline_bases(x), spline_bases(x.detach())
    torch.testing.assert_close(with_gradient.detach(), plain, rtol=0, atol=0)


def test_splines_are_initialised_with_small_noise_at_the_knots() -> None:
    torch.manual_seed(0)
    layer = KANLinear(30, 20)
    knots = torch.linspace(-1, 1, 6, dtype=torch.float64)
    at_knots = torch.einsum("oik,pk->oip", layer.spline.detach().double(), spline_bases(knots))
    assert float(at_knots.abs().max()) <= 0.01 + 1e-6
    assert abs(float(at_knots.std()) - 0.02 / 12**0.5) < 3e-4
    # Minimum-norm coefficients have no component in the null space of the values at the knots.
    null_space = torch.linalg.svd(spline_bases(knots))[2][6:]
    assert null_space.shape == (2, BASES)
    assert float((layer.spline.detach().double() @ null_space.T).abs().max()) < 1e-6


def test_splines_of_half_precision_input_are_float32() -> None:
    assert spline_bases(torch.zeros(3, dtype=torch.bfloat16)).dtype == torch.float32


def test_knots_in_a_file_are_dropped() -> None:
    network = models.build("ukan", "S")
    tensors = {"final.bias": torch.ones(2), "block1.0.layer.fc1.grid": torch.zeros(96, 12)}
    report = models.load_published(network, tensors)
    assert report.loaded == ("final.bias",)
    assert list(report.dropped) == ["block1.0.layer.fc1.grid"]
