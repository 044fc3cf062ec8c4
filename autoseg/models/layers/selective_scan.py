"""The selective scan of Mamba without any extension: parallel over the sequence, computed again in the backward pass.

    delta_t = softplus(step_t + bias),   h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t,   y_t = C_t . h_t + skip x_t

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023.

The sequence is cut into segments that fit a CPU's cache. Decays, inputs, outputs and gradients of a segment are computed
for all its rows at once. What remains, h_t = decay_t h_(t-1) + input_t, is one operation a row where a row is broad
enough to keep the machine busy; where it is not, chunks of the segment advance together, first as if each began from
zero, and the end of each chunk, damped by the decays so far, is added to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.models.layers.precision import full_precision

# In rows, between two states kept for the backward pass: at least the first, more while they hold fewer numbers.
_STRETCH_ROWS, _STRETCH_NUMBERS = 32, 2**21


class _Pace(NamedTuple):
    """What suits a device. segment: numbers in a buffer. broad: numbers in a row from which chunks no longer pay."""

    segment: int
    broad: int


_PACE = {"cpu": _Pace(2**17, 2**12), "cuda": _Pace(2**24, 2**20)}


def selective_scan(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The scan's output y (length, batch, groups, width), in float32 whatever the inputs are.

    x, step: (length, batch, groups, width), `step` before bias and softplus. A: (groups, state, width), negative.
    B, C: (length, batch, groups, state), shared by the channels of a group. skip, bias: (groups, width).
    On a GPU the kernel of `mamba_ssm` is used where it is installed.
    """
    x, step, A, B, C, skip, bias = (tensor.float() for tensor in (x, step, A, B, C, skip, bias))
    kernel = _installed_kernel() if x.is_cuda else None
    if kernel is not None:
        return scan_by_kernel(kernel, x, step, A, B, C, skip, bias)
    scanned: Tensor = _SelectiveScan.apply(x, step, A, B, C, skip, bias)
    return scanned


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


class _Rows(NamedTuple):
    """Rows of some images, or their gradients: x, step (rows, batch, groups, width), B, C (rows, batch, groups, state)."""

    x: Tensor
    step: Tensor
    B: Tensor
    C: Tensor

    def images(self, part: slice) -> _Rows:
        return _Rows(*(tensor[:, part] for tensor in self))

    def cut(self, part: slice) -> _Rows:
        return _Rows(*(tensor[part] for tensor in self))


class _Weights(NamedTuple):
    """What all rows share, or its gradients."""

    A: Tensor
    skip: Tensor
    bias: Tensor


class _Buffer(NamedTuple):
    """States (rows, batch, groups, state, width), and each row by itself: views are dear when there are thousands."""

    all: Tensor
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, like: Tensor, rows: int) -> _Buffer:
        room = like.new_empty(rows, *like.shape)
        return cls(room, room.unbind())

    def cut(self, part: slice) -> _Buffer:
        return _Buffer(self.all[part], self.rows[part])


class _SelectiveScan(torch.autograd.Function):
    """Keeps the inputs and a state every so many rows, and computes everything between them again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, step, A, B, C, skip, bias = inputs
        kept = x.new_empty(-(-x.shape[0] // _stretch(A)), x.shape[1], *A.shape)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        # Tensors without data (the planner's) have nothing to compute.
        if not x.is_meta:
            with full_precision(x):
                for part in _images(x, A):
                    _scan(_Rows(x, step, B, C).images(part), _Weights(A, skip, bias), kept[:, part], y[:, part])
        ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, step, A, B, C, skip, bias, kept = ctx.saved_tensors
        rows, weights = _Rows(x, step, B, C), _Weights(A, skip, bias)
        found = _Rows(*(torch.empty_like(t, memory_format=torch.contiguous_format) for t in rows))
        shared = _Weights(*(torch.zeros_like(t, memory_format=torch.contiguous_format) for t in weights))
        with full_precision(x):
            for part in _images(x, A):
                _scan_back(rows.images(part), weights, kept[:, part], dy[:, part], found.images(part), shared)
        return found.x, found.step, shared.A, found.B, found.C, shared.skip, shared.bias


def _pace(x: Tensor) -> _Pace:
    return _PACE.get(x.device.type, _PACE["cuda"])


def _images(x: Tensor, A: Tensor) -> Iterator[slice]:
    """Slices of the batch: as many images at once as make a broad row."""
    count = max(1, _pace(x).broad // A.numel())
    return (slice(i, i + count) for i in range(0, x.shape[1], count))


def _stretch(A: Tensor) -> int:
    return max(_STRETCH_ROWS, _STRETCH_NUMBERS // A.numel())


def _stretches(length: int, A: Tensor) -> list[slice]:
    return [slice(i, min(i + _stretch(A), length)) for i in range(0, length, _stretch(A))]


def _segment_rows(state: Tensor) -> int:
    return max(1, _pace(state).segment // state.numel())


def _segments(length: int, state: Tensor) -> list[tuple[slice, int]]:
    """(rows, chunks) that cover a stretch, where a row holds such a state. All chunks have as many rows."""
    segments = []
    first = 0
    while first < length:
        rows = min(_segment_rows(state), length - first)
        # 2 * rows / chunks + chunks operations are fewest for the first; but long products of decays sink into
        # denormal numbers, which are slow.
        chunks = 1 if state.numel() >= _pace(state).broad else min(rows, max(isqrt(2 * rows), rows // 16))
        rows -= rows % chunks
        segments.append((slice(first, first + rows), chunks))
        first += rows
    return segments


def _recur(states: _Buffer, decays: _Buffer, products: _Buffer, before: Tensor, chunks: int, way: int = 1) -> None:
    """Turn inputs (rows, ...) into states in place: s_t = input_t + decay_t s_(t-1), where `before` precedes the first.

    products: room for products of decays, may be `decays` itself. way: -1 from the last row to the first.
    """
    if chunks == 1:
        for state, decay in zip(states.rows[::way], decays.rows[::way], strict=True):
            before = state.addcmul_(decay, before)
        return
    whole = [buffer.all.unflatten(0, (chunks, -1)) for buffer in (states, decays, products)]
    state, decay, product = (tensor.unbind(dim=1)[::way] for tensor in whole)
    product[0].copy_(decay[0])
    for i, j in pairwise(range(len(state))):
        state[j].addcmul_(decay[j], state[i])
        torch.mul(decay[j], product[i], out=product[j])
    starts = []
    for end, through in zip(state[-1].unbind()[::way], product[-1].unbind()[::way], strict=True):
        starts.append(before)
        before = end.addcmul_(through, before)
    rest = slice(None, -1) if way == 1 else slice(1, None)
    whole[0][:, rest].addcmul_(whole[2][:, rest], torch.stack(starts[::way]).unsqueeze(1))


def _weighted(weights: Tensor, states: Tensor) -> Tensor:
    """Sum over the state axis: (..., state) and (..., state, width) to (..., width)."""
    flat = torch.bmm(weights.reshape(-1, 1, weights.shape[-1]), states.flatten(0, -3))
    return flat.view(*weights.shape[:-1], -1)


def _scan(rows: _Rows, weights: _Weights, kept: Tensor, y: Tensor) -> None:
    """Fill y (length, batch, groups, width), and `kept` (stretches, ...): the state each stretch begins with."""
    state = torch.zeros_like(kept[0])
    most = min(len(y), _segment_rows(state))
    all_decays, all_states = _Buffer.of(state, most), _Buffer.of(state, most)
    for stretch, start in zip(_stretches(len(y), weights.A), kept, strict=True):
        start.copy_(state)
        x, step, B, C = rows.cut(stretch)
        delta = F.softplus(step + weights.bias)
        entering = delta * x
        for here, chunks in _segments(len(x), state):
            count = slice(here.stop - here.start)
            decays, states = all_decays.cut(count), all_states.cut(count)
            torch.mul(delta[here].unsqueeze(-2), weights.A, out=decays.all).exp_()
            torch.mul(entering[here].unsqueeze(-2), B[here].unsqueeze(-1), out=states.all)
            _recur(states, decays, decays, state, chunks)
            y[stretch][here] = _weighted(C[here], states.all)
            state.copy_(states.rows[-1])
        y[stretch].addcmul_(weights.skip, x)


def _scan_back(rows: _Rows, weights: _Weights, kept: Tensor, dy: Tensor, found: _Rows, shared: _Weights) -> None:
    """Fill `found` with the gradients of `rows`, given those of y, and add those of `weights` to `shared`."""
    # The gradient of the state after the rows at hand, first without, at a stretch's end with its decay.
    later = torch.zeros_like(kept[0])
    long = min(len(dy), _stretch(weights.A))
    decays, states = _Buffer.of(later, long + 1), _Buffer.of(later, long + 1)
    room = [_Buffer.of(later, min(long, _segment_rows(later))) for _ in range(2)]
    for stretch, start in zip(reversed(_stretches(len(dy), weights.A)), reversed(kept.unbind()), strict=True):
        here, into, given = rows.cut(stretch), found.cut(stretch), dy[stretch]
        raw = here.step + weights.bias
        delta = F.softplus(raw)
        entering = delta * here.x
        states.rows[0].copy_(start)
        for part, chunks in _segments(len(raw), later):
            through, now = decays.cut(part), states.cut(_next(part))
            torch.mul(delta[part].unsqueeze(-2), weights.A, out=through.all).exp_()
            torch.mul(entering[part].unsqueeze(-2), here.B[part].unsqueeze(-1), out=now.all)
            _recur(now, through, room[0].cut(slice(len(now.rows))), states.rows[part.start], chunks)
        decays.rows[len(raw)].fill_(1.0)
        entered = torch.empty_like(delta)
        for part, chunks in reversed(_segments(len(raw), later)):
            flow, scratch = (buffer.cut(slice(part.stop - part.start)) for buffer in room)
            torch.sum(torch.mul(states.all[_next(part)], given[part].unsqueeze(-2), out=scratch.all), -1, out=into.C[part])
            # A state acts through its own output, and through the next state by that one's decay.
            torch.mul(given[part].unsqueeze(-2), here.C[part].unsqueeze(-1), out=flow.all)
            _recur(flow, decays.cut(_next(part)), scratch, later, chunks, way=-1)
            later.copy_(flow.rows[0])
            torch.sum(torch.mul(flow.all, entering[part].unsqueeze(-2), out=scratch.all), -1, out=into.B[part])
            entered[part] = _weighted(here.B[part], flow.all)
            flow.all.mul_(decays.all[part]).mul_(states.all[part])
            shared.A.add_(torch.mul(flow.all, delta[part].unsqueeze(-2), out=scratch.all).sum(dim=(0, 1)))
            torch.sum(torch.mul(flow.all, weights.A, out=scratch.all), -2, out=into.step[part])
        later.mul_(decays.rows[0])
        into.step.addcmul_(entered, here.x).mul_(raw.sigmoid_())
        torch.mul(entered, delta, out=into.x).addcmul_(weights.skip, given)
        shared.skip.add_((here.x * given).sum(dim=(0, 1)))
        shared.bias.add_(into.step.sum(dim=(0, 1)))


def _next(rows: slice) -> slice:
    return slice(rows.start + 1, rows.stop + 1)
