"""Mamba's selective scan in plain PyTorch: computed in segments of the sequence and recomputed in the backward pass.

    delta_t = softplus(step_t + bias),   h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t,   y_t = C_t . h_t + skip x_t

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023.

All states at once need much memory, and one step at a time is many short operations. So the sequence is split into segments
whose states fit a CPU's cache. Decays, inputs and outputs are computed for all rows of a segment at once; only
h_t = decay_t h_(t-1) + input_t runs row by row. Only the first state of each segment is saved for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from math import log
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.models.layers.precision import full_precision

# Values in the states of one image's segment, and minimum rows: shorter segments would save more states than x has values.
_SEGMENT_VALUES, _MIN_ROWS = 2**20, 32
# Devices where one `torch._foreach` call processes its tensors in order, so that each row can use the previous one.
_SEQUENTIAL_FOREACH = ("cpu",)


def selective_scan(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The scan's output y (length, batch, groups, width), always in float32.

    x, step: (length, batch, groups, width), `step` before bias and softplus. A: (groups, state, width), negative.
    B, C: (length, batch, groups, state), shared by the channels of a group. skip, bias: (groups, width).
    On a GPU the kernel of `mamba_ssm` is used if installed, unless results must repeat to the last bit: its backward pass adds
    in any order.
    """
    x, step, A, B, C, skip, bias = (tensor.float() for tensor in (x, step, A, B, C, skip, bias))
    on_gpu = x.is_cuda and _has_values(x) and not torch.are_deterministic_algorithms_enabled()
    kernel = _installed_kernel() if on_gpu else None
    if kernel is not None:
        return scan_by_kernel(kernel, x, step=step, A=A, B=B, C=C, skip=skip, bias=bias)
    # A CPU processes the images one by one: the states of several would not fit its cache.
    images = 1 if x.device.type == "cpu" else x.shape[1]
    parts = zip(*(tensor.split(images, dim=1) for tensor in (x, step, B, C)), strict=True)
    return torch.cat([_Scan.apply(*part, A, skip, bias) for part in parts], dim=1)


def sequential_scan(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The same, row by row as in the formula. Slow: the reference of tests and benchmarks."""
    delta = F.softplus(step + bias)
    state = x.new_zeros(x.shape[1], *A.shape)
    outputs = []
    # Split in two steps: autograd's cost is quadratic in the number of rows split at once.
    cut = [[row for block in tensor.split(256) for row in block.unbind()] for tensor in (delta, delta * x, B, C)]
    for d, dx, b, c in zip(*cut, strict=True):
        state = torch.exp(d[:, :, None] * A) * state + dx[:, :, None] * b[..., None]
        outputs.append((state * c[..., None]).sum(dim=2))
    return torch.stack(outputs) + skip * x


def scan_by_kernel(
    kernel: Callable[..., Tensor], x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor
) -> Tensor:
    """The same with a function like `mamba_ssm`'s `selective_scan_fn`, whose last axis is the length."""
    length, batch, groups, width = x.shape

    def length_last(tensor: Tensor) -> Tensor:
        return tensor.permute(1, 2, 3, 0).contiguous()

    y = kernel(
        length_last(x).flatten(1, 2), length_last(step).flatten(1, 2), A.mT.flatten(0, 1), length_last(B), length_last(C),
        skip.flatten(), delta_bias=bias.flatten(), delta_softplus=True,
    )
    return y.view(batch, groups, width, length).permute(3, 0, 1, 2)


@cache
def _installed_kernel() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn  # type: ignore[no-any-return]


class _Scan(torch.autograd.Function):
    """Saves the inputs and each segment's first state; recomputes everything else."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, step, B, C, A, skip, bias = inputs
        rows = _segment_rows(A)
        starts = x.new_zeros(-(-len(x) // rows), x.shape[1], *A.shape)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        if _has_values(x):
            state, buffers = starts[0].clone(), _buffers(x, A)
            with full_precision(x):
                for start, y_, x_, step_, B_, C_ in zip(starts, *_split([y, x, step, B, C], rows), strict=True):
                    start.copy_(state)
                    states, _ = _states(x_, F.softplus(step_ + bias), A, B_, state, buffers)
                    read = torch.matmul(C_.unsqueeze(-2), states).squeeze(-2)
                    torch.addcmul(read, skip, x_, out=y_)
                    state.copy_(states[-1])
        ctx.save_for_backward(*inputs, starts)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, step, B, C, A, skip, bias, starts = ctx.saved_tensors
        rows = _segment_rows(A)
        sequence_gradients = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (x, step, B, C)]
        dA, dskip, dbias = (torch.zeros_like(tensor) for tensor in (A, skip, bias))
        later_gradient, buffers = torch.zeros_like(starts[0]), _buffers(x, A)
        segments = zip(starts, *_split([dy, x, step, B, C, *sequence_gradients], rows), strict=True)
        with full_precision(x):
            for start, dy_, x_, step_, B_, C_, *out in reversed(list(segments)):
                raw = step_ + bias
                delta = F.softplus(raw)
                later_gradient, dA_, (dx, ddelta, out[2][:], out[3][:]) = _gradients(
                    x_, delta, A, B_, C=C_, previous=start, dy=dy_, later_gradient=later_gradient, buffers=buffers
                )
                torch.addcmul(dx, skip, dy_, out=out[0])
                dstep = torch.mul(ddelta, raw.sigmoid_(), out=out[1])
                dA += dA_
                dskip += (x_ * dy_).sum(dim=(0, 1))
                dbias += dstep.sum(dim=(0, 1))
        return *sequence_gradients, dA, dskip, dbias


def _buffers(x: Tensor, A: Tensor) -> Tensor:
    """Buffers for the states and decays of a segment: allocating them for each segment would take a third of the time."""
    return x.new_empty(2, min(len(x), _segment_rows(A)), x.shape[1], *A.shape)


def _states(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, previous: Tensor, buffers: Tensor
) -> tuple[Tensor, Tensor]:
    """States and decays (rows, batch, groups, state, width) of a segment. previous: the state before its first row."""
    states, decays = buffers[:, : len(x)]
    # exp(delta A) as a power of two: a third of the time on a CPU.
    torch.mul(delta.unsqueeze(-2), A / log(2.0), out=decays).exp2_()
    torch.mul((delta * x).unsqueeze(-2), B.unsqueeze(-1), out=states)
    states[0].addcmul_(decays[0], previous)
    _accumulate(states.unbind(), decays.unbind()[1:])
    return states, decays


def _accumulate(states: tuple[Tensor, ...], decays: tuple[Tensor, ...]) -> None:
    """In order, add to each state except the first: the previous state times the decay. decays: without the first state's."""
    if not decays:
        return
    if states[0].device.type in _SEQUENTIAL_FOREACH:
        # One call per row would cost as much as the computation.
        torch._foreach_addcmul_(states[1:], decays, states[:-1])
        return
    for (last, state), decay in zip(pairwise(states), decays, strict=True):
        state.addcmul_(decay, last)


def _gradients(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, previous: Tensor, dy: Tensor, later_gradient: Tensor,
    buffers: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Gradients of a segment, without those through `skip`: of `previous`, of A, and of x, delta, B and C.

    previous: the state before the segment's first row. later_gradient: gradient of its last state from later segments.
    """
    states, decays = _states(x, delta, A, B, previous, buffers)
    dC = torch.matmul(states, dy.unsqueeze(-1)).squeeze(-1)
    # A state affects its own output, and the next state through that state's decay.
    dstates = C.unsqueeze(-1) * dy.unsqueeze(-2)
    dstates[-1].add_(later_gradient)
    _accumulate(dstates.unbind()[::-1], decays.unbind()[:0:-1])
    dB = torch.matmul(dstates, (delta * x).unsqueeze(-1)).squeeze(-1)
    dinput = torch.matmul(B.unsqueeze(-2), dstates).squeeze(-2)
    dstates.mul_(decays)
    dprevious = dstates[0].clone()
    # From here `dstates` holds the gradients of the exponents, delta A.
    dstates[0].mul_(previous)
    dstates[1:].mul_(states[:-1])
    dA = (dstates * delta.unsqueeze(-2)).sum(dim=(0, 1))
    ddelta = (dstates * A).sum(dim=-2).addcmul_(dinput, x)
    return dprevious, dA, (dinput * delta, ddelta, dB, dC)


def _has_values(x: Tensor) -> bool:
    """Not so on the planner's fake tensors and on the meta device, where there is nothing to compute."""
    return not (isinstance(x, FakeTensor) or x.is_meta)


def _segment_rows(A: Tensor) -> int:
    return max(_MIN_ROWS, _SEGMENT_VALUES // A.numel())


def _split(tensors: list[Tensor], rows: int) -> list[tuple[Tensor, ...]]:
    return [tensor.split(rows) for tensor in tensors]
