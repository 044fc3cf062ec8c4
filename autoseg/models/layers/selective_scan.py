"""The selective scan of Mamba without any extension: in segments of the sequence, computed again in the backward pass.

    delta_t = softplus(step_t + bias),   h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t,   y_t = C_t . h_t + skip x_t

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023.

All states at once would take much memory, and one step at a time many short operations. So the sequence is cut into segments
whose states fit a processor's cache: decays, inputs and outputs of a segment are computed for all its rows at once, and only
h_t = decay_t h_(t-1) + input_t goes from row to row. Of the states, only each segment's first is kept for the backward pass.
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

# Numbers in the states of a segment of one image, and its fewest rows: with fewer, the states that are kept would outweigh x.
_SEGMENT, _FEWEST_ROWS = 2**20, 32
# Devices that take the tensors of one `torch._foreach` call in order, so that each row may use the one before it.
_CALL_FOR_ALL = ("cpu",)


def selective_scan(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The scan's output y (length, batch, groups, width), in float32 whatever the inputs are.

    x, step: (length, batch, groups, width), `step` before bias and softplus. A: (groups, state, width), negative.
    B, C: (length, batch, groups, state), shared by the channels of a group. skip, bias: (groups, width).
    On a GPU the kernel of `mamba_ssm` is used where it is installed.
    """
    x, step, A, B, C, skip, bias = (tensor.float() for tensor in (x, step, A, B, C, skip, bias))
    kernel = _installed_kernel() if x.is_cuda else None
    if kernel is not None:
        return scan_by_kernel(kernel, x, step=step, A=A, B=B, C=C, skip=skip, bias=bias)
    # A processor takes one image after the other: the states of several at once would not fit its cache.
    images = 1 if x.device.type == "cpu" else x.shape[1]
    parts = zip(*(tensor.split(images, dim=1) for tensor in (x, step, B, C)), strict=True)
    return torch.cat([_Scan.apply(*part, A, skip, bias) for part in parts], dim=1)


def sequential_scan(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The same, as the formula reads: one row after the other. Slow; what `selective_scan` is measured by."""
    delta = F.softplus(step + bias)
    state = x.new_zeros(x.shape[1], *A.shape)
    outputs = []
    # Cut in two steps, since autograd's cost is quadratic in the number of rows cut at once.
    cut = [[row for block in tensor.split(256) for row in block.unbind()] for tensor in (delta, delta * x, B, C)]
    for d, dx, b, c in zip(*cut, strict=True):
        state = torch.exp(d[:, :, None] * A) * state + dx[:, :, None] * b[..., None]
        outputs.append((state * c[..., None]).sum(dim=2))
    return torch.stack(outputs) + skip * x


def scan_by_kernel(
    kernel: Callable[..., Tensor], x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor
) -> Tensor:
    """The same through a function with the arguments of `mamba_ssm`'s `selective_scan_fn`, which wants length last."""
    length, batch, groups, width = x.shape

    def last(tensor: Tensor) -> Tensor:
        return tensor.permute(1, 2, 3, 0).contiguous()

    y = kernel(
        last(x).flatten(1, 2), last(step).flatten(1, 2), A.mT.flatten(0, 1), last(B), last(C), skip.flatten(),
        delta_bias=bias.flatten(), delta_softplus=True,
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
    """Keeps the inputs and each segment's first state, and computes everything else again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, step, B, C, A, skip, bias = inputs
        rows = _segment_rows(A)
        starts = x.new_zeros(-(-len(x) // rows), x.shape[1], *A.shape)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        # Fake tensors (the planner's) and those on the meta device have nothing to compute.
        if not (isinstance(x, FakeTensor) or x.is_meta):
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
        along = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (x, step, B, C)]
        dA, dskip, dbias = (torch.zeros_like(tensor) for tensor in (A, skip, bias))
        later, buffers = torch.zeros_like(starts[0]), _buffers(x, A)
        segments = zip(starts, *_split([dy, x, step, B, C, *along], rows), strict=True)
        with full_precision(x):
            for start, dy_, x_, step_, B_, C_, *out in reversed(list(segments)):
                raw = step_ + bias
                delta = F.softplus(raw)
                later, dA_, (dx, ddelta, out[2][:], out[3][:]) = _gradients(
                    x_, delta, A, B_, C=C_, before=start, dy=dy_, later=later, buffers=buffers
                )
                torch.addcmul(dx, skip, dy_, out=out[0])
                dstep = torch.mul(ddelta, raw.sigmoid_(), out=out[1])
                dA += dA_
                dskip += (x_ * dy_).sum(dim=(0, 1))
                dbias += dstep.sum(dim=(0, 1))
        return *along, dA, dskip, dbias


def _buffers(x: Tensor, A: Tensor) -> Tensor:
    """Room for states and decays of a segment: fresh memory for each would take a third of the time."""
    return x.new_empty(2, min(len(x), _segment_rows(A)), x.shape[1], *A.shape)


def _states(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, before: Tensor, buffers: Tensor
) -> tuple[Tensor, Tensor]:
    """States and decays (rows, batch, groups, state, width) of a segment; `before` is the state before its first row."""
    states, decays = buffers[:, : len(x)]
    # exp(delta A) as a power of two, which takes a processor a third of the time.
    torch.mul(delta.unsqueeze(-2), A / log(2.0), out=decays).exp2_()
    torch.mul((delta * x).unsqueeze(-2), B.unsqueeze(-1), out=states)
    states[0].addcmul_(decays[0], before)
    _recur(states.unbind(), decays.unbind()[1:])
    return states, decays


def _recur(states: tuple[Tensor, ...], decays: tuple[Tensor, ...]) -> None:
    """Add to each state but the first the one before it times its decay, in this order. decays: without the first state's."""
    if not decays:
        return
    if states[0].device.type in _CALL_FOR_ALL:
        # A call for each row would cost as much as its work.
        torch._foreach_addcmul_(states[1:], decays, states[:-1])
        return
    for (last, state), decay in zip(pairwise(states), decays, strict=True):
        state.addcmul_(decay, last)


def _gradients(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor, dy: Tensor, later: Tensor,
    buffers: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Gradients of a segment, those of `skip` left out: of `before`, of A, and of x, delta, B and C.

    before: the state before the segment's first row. later: what the rows after the segment pass back to its last state.
    """
    states, decays = _states(x, delta, A, B, before, buffers)
    dC = torch.matmul(states, dy.unsqueeze(-1)).squeeze(-1)
    # A state acts through its own output, and through the next state by that one's decay.
    flow = C.unsqueeze(-1) * dy.unsqueeze(-2)
    flow[-1].add_(later)
    _recur(flow.unbind()[::-1], decays.unbind()[:0:-1])
    dB = torch.matmul(flow, (delta * x).unsqueeze(-1)).squeeze(-1)
    entered = torch.matmul(B.unsqueeze(-2), flow).squeeze(-2)
    flow.mul_(decays)
    earlier = flow[0].clone()
    # Now the gradients of the exponents, delta A.
    flow[0].mul_(before)
    flow[1:].mul_(states[:-1])
    dA = (flow * delta.unsqueeze(-2)).sum(dim=(0, 1))
    ddelta = (flow * A).sum(dim=-2).addcmul_(entered, x)
    return earlier, dA, (entered * delta, ddelta, dB, dC)


def _segment_rows(A: Tensor) -> int:
    return max(_FEWEST_ROWS, _SEGMENT // A.numel())


def _split(tensors: list[Tensor], rows: int) -> list[tuple[Tensor, ...]]:
    return [tensor.split(rows) for tensor in tensors]
