"""Kolmogorov-Arnold linear layers: every connection is a learned function, on cubic B-splines.

Liu et al.: KAN: Kolmogorov-Arnold Networks. ICLR 2025.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Five intervals on [-1, 1] and three more at each end, so that eight cubic bases cover it: knots from -2.2 to 2.2.
_INTERVALS, _ORDER = 5, 3
_STEP = 2 / _INTERVALS
BASES = _INTERVALS + _ORDER
_NOISE = 0.1


def _offsets(x: Tensor) -> Tensor:
    """Signed distance, in intervals, from the centre of each basis: (...) -> (..., BASES)."""
    centres = torch.arange(BASES, device=x.device, dtype=x.dtype)
    return ((x + 1) / _STEP + 1).unsqueeze(-1) - centres


def _values(x: Tensor) -> Tensor:
    distance = _offsets(x).abs()
    outer, inner = (2 - distance).clamp(min=0), (1 - distance).clamp(min=0)
    return (outer**3 - 4 * inner**3) / 6


class _BasesFunction(torch.autograd.Function):
    """Saves only the input for the backward pass: an eighth of the memory of one intermediate result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _values(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        offsets = _offsets(x)
        distance = offsets.abs()
        outer, inner = (2 - distance).clamp(min=0), (1 - distance).clamp(min=0)
        slopes = (2 * inner**2 - outer**2 / 2) * offsets.sign() / _STEP
        return (gradient * slopes).sum(dim=-1)


def spline_bases(x: Tensor) -> Tensor:
    """The cubic B-spline bases at x: (...) -> (..., BASES), in float32 or better; all zero outside [-2.2, 2.2).

    With evenly spaced knots all bases are shifted copies of one curve. With d the distance from its centre in intervals,
    it is (max(2 - d, 0)^3 - 4 max(1 - d, 0)^3) / 6, equal to the Cox-de Boor recursion.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.requires_grad and torch.is_grad_enabled():
        return _BasesFunction.apply(x)  # type: ignore[no-any-return]
    return _values(x)


class KANLinear(nn.Module):
    """y_o = sum_i base_oi SiLU(x_i) + scale_oi sum_k spline_oik B_k(x_i): (..., in) -> (..., out). No bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.empty(out_features, in_features))
        self.spline = nn.Parameter(torch.empty(out_features, in_features, BASES))
        self.scale = nn.Parameter(torch.empty(out_features, in_features))
        for weight in (self.base, self.scale):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self._init_spline()

    def _init_spline(self) -> None:
        """Minimum-norm coefficients whose splines take small random values at the knots of [-1, 1].

        At a knot three bases are not zero: 1/6, 4/6 and 1/6. So every connection has the same 6 x 8 system.
        """
        knots = torch.zeros(_INTERVALS + 1, BASES, device="cpu", dtype=torch.float64)
        for knot in range(_INTERVALS + 1):
            knots[knot, knot : knot + 3] = torch.tensor([1 / 6, 4 / 6, 1 / 6], device="cpu")
        solve = torch.linalg.pinv(knots).tolist()
        with torch.no_grad():
            noise = torch.empty(*self.base.shape, _INTERVALS + 1, device=self.spline.device)
            noise.uniform_(-0.5, 0.5).mul_(_NOISE / _INTERVALS)
            self.spline.copy_(noise @ torch.tensor(solve, device=noise.device).T)

    def forward(self, x: Tensor) -> Tensor:
        curves = (self.spline * self.scale.unsqueeze(-1)).flatten(1)
        return F.linear(F.silu(x), self.base) + F.linear(spline_bases(x).flatten(-2), curves)
