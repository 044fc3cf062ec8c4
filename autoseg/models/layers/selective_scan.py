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
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from math import isqrt, log
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


# Alone, a CPU's core is fastest within its cache; several need operations long enough to be worth sharing.
_ONE_CORE, _CORES, _GPU = _Pace(2**18, 2**12), _Pace(2**20, 2**12), _Pace(2**24, 2**20)
# Up to so many threads, waking the others costs more than they do (with two, one alone was 1.2 to 1.4 times as fast).
_FEW = 4


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
            with full_precision(x), _alone_if_few(x):
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
        with full_precision(x), _alone_if_few(x):
            for part in _images(x, A):
                _scan_back(rows.images(part), weights, kept[:, part], dy[:, part], found.images(part), shared)
        return found.x, found.step, shared.A, found.B, found.C, shared.skip, shared.bias


@contextmanager
def _alone_if_few(x: Tensor) -> Iterator[None]:
    """Inside, operations run on one thread where a CPU has only a few."""
    threads = torch.get_num_threads()
    if x.device.type != "cpu" or not 1 < threads <= _FEW:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _pace(x: Tensor) -> _Pace:
    if x.device.type != "cpu":
        return _GPU
    return _ONE_CORE if torch.get_num_threads() == 1 else _CORES


def _images(x: Tensor, A: Tensor) -> Iterator[slice]:
    """Slices of the batch: as many images at once as make a broad row."""
    count = max(1, _pace(x).broad // A.numel())
    return (slice(i, i + count) for i in range(0, x.shape[1], count))


def _stretch(A: Tensor) -> int:
    return max(_STRETCH_ROWS, _STRETCH_NUMBERS // A.numel())


def _segment(state: Tensor) -> int:
    return max(1, _pace(state).segment // state.numel())


def _chunks(rows: int, state: Tensor) -> int:
    """How many chunks of so many rows, each with such a state, best advance together."""
    if state.numel() >= _pace(state).broad:
        return 1
    # 2 * rows / chunks + chunks operations are fewest for the first; but long products of decays sink into denormal
    # numbers, which are slow.
    return min(rows, max(isqrt(2 * rows), rows // 16))


def _recur(states: _Buffer, decays: _Buffer, products: _Buffer, before: Tensor, way: int = 1) -> None:
    """Turn inputs (rows, ...) into states in place: s_t = input_t + decay_t s_(t-1), where `before` precedes the first.

    products: room for products of decays, may be `decays` itself. way: -1 from the last row to the first.
    """
    count = len(states.rows)
    chunks = _chunks(count, before)
    if chunks > 1:
        # The rows that chunks cannot share evenly come last.
        shared, rest = slice(count - count % chunks), slice(count - count % chunks, None)
        if way == -1:
            shared, rest = slice(count % chunks, None), slice(count % chunks)
        before = _recur_in_chunks(states.all[shared], decays.all[shared], products.all[shared], before, chunks, way)
        states, decays = states.cut(rest), decays.cut(rest)
    for state, decay in zip(states.rows[::way], decays.rows[::way], strict=True):
        before = state.addcmul_(decay, before)


def _recur_in_chunks(states: Tensor, decays: Tensor, products: Tensor, before: Tensor, chunks: int, way: int) -> Tensor:
    """The same for rows that the chunks share evenly; returns the last state."""
    whole = [tensor.unflatten(0, (chunks, -1)) for tensor in (states, decays, products)]
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
    return before


def _rates(A: Tensor) -> Tensor:
    """So that exp(delta A) = 2^(delta rates): torch's exp2 takes a third of the time of its exp on a CPU."""
    return A / log(2.0)


class _Wide(NamedTuple):
    """Rows shaped to meet states (rows, batch, groups, state, width)."""

    delta: Tensor
    entering: Tensor
    B: Tensor
    C: Tensor

    @classmethod
    def of(cls, delta: Tensor, rows: _Rows) -> _Wide:
        return cls(delta.unsqueeze(-2), (delta * rows.x).unsqueeze(-2), rows.B.unsqueeze(-1), rows.C.unsqueeze(-1))


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), three times as fast on a CPU as torch's own, whose log1p is not vectorised.

    log1p(u) = log(s) + (u - (s - 1)) / s with s the rounded 1 + u: the second term is what rounding took from u (to first
    order, and the square of a rounding is nothing).
    """
    u = x.abs().neg_().exp_()
    rounded = u + 1.0
    lost = u.sub_(rounded - 1.0).div_(rounded)
    return rounded.log_().add_(lost).add_(x.clamp_min(0.0))


def _states(wide: _Wide, rates: Tensor, before: Tensor, decays: _Buffer, states: _Buffer, products: _Buffer) -> None:
    """Fill a segment's decays and states, given the state before its first row. rates: A / ln 2, see `_rates`."""
    torch.mul(wide.delta, rates, out=decays.all).exp2_()
    torch.mul(wide.entering, wide.B, out=states.all)
    _recur(states, decays, products, before)


def _scan(rows: _Rows, weights: _Weights, kept: Tensor, y: Tensor) -> None:
    """Fill y (length, batch, groups, width), and `kept` (stretches, ...): the state each stretch begins with."""
    state = torch.zeros_like(kept[0])
    segment, rates = min(len(y), _segment(state)), _rates(weights.A)
    room = [_Buffer.of(state, segment) for _ in range(2)]
    for start, out, *parts in zip(kept, *_split(_stretch(weights.A), y, *rows), strict=True):
        start.copy_(state)
        here = _Rows(*parts)
        wide = _Wide.of(_softplus(here.step + weights.bias), here)
        for out_, *pieces in zip(*_split(segment, out.unsqueeze(-2), *wide), strict=True):
            decays, states = (buffer.cut(slice(len(out_))) for buffer in room)
            piece = _Wide(*pieces)
            _states(piece, rates, state, decays, states, decays)
            out_.copy_(piece.C.mT @ states.all)
            state.copy_(states.rows[-1])
        out.addcmul_(weights.skip, here.x)


def _split(rows: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [tensor.split(rows) for tensor in tensors]


def _scan_back(rows: _Rows, weights: _Weights, kept: Tensor, dy: Tensor, found: _Rows, shared: _Weights) -> None:
    """Fill `found` with the gradients of `rows`, given those of y, and add those of `weights` to `shared`."""
    # What the rows after those at hand pass back to the last state of these.
    later = torch.zeros_like(kept[0])
    room = [_Buffer.of(later, min(len(dy), _segment(later)) + 1) for _ in range(4)]
    stretches = _split(_stretch(weights.A), dy, *rows, *found)
    for start, given, x, step, B, C, dx, dstep, dB, dC in reversed(list(zip(kept, *stretches, strict=True))):
        raw = step + weights.bias
        delta = _softplus(raw)
        entered = torch.empty_like(delta)
        into = _Found(entered.unsqueeze(-2), dstep, dB, dC, shared.A)
        wide = _Wide.of(delta, _Rows(x, step, B, C))
        _stretch_back(wide, weights.A, given.unsqueeze(-2), start, later, room, into)
        dstep.addcmul_(entered, x).mul_(raw.sigmoid_())
        torch.mul(entered, delta, out=dx).addcmul_(weights.skip, given)
        shared.skip.add_((x * given).sum(dim=(0, 1)))
        shared.bias.add_(dstep.sum(dim=(0, 1)))


class _Found(NamedTuple):
    """Where a stretch's gradients go: of delta B x by x and delta, of delta through the decays, of B, C and A."""

    entered: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor
    A: Tensor


def _stretch_back(
    wide: _Wide, A: Tensor, dy: Tensor, start: Tensor, later: Tensor, room: list[_Buffer], into: _Found
) -> None:
    """Go through a stretch for the state each segment begins with, then back for the gradients; `later` goes along."""
    segment, rates = len(room[0].rows) - 1, _rates(A)
    starts = [start]
    segments = [_Wide(*pieces) for pieces in zip(*_split(segment, *wide), strict=True)]
    for piece in segments[:-1]:
        decays, states = (buffer.cut(slice(segment)) for buffer in room[:2])
        _states(piece, rates, starts[-1], decays, states, decays)
        starts.append(states.rows[-1].clone())
    results = zip(segments, starts, *_split(segment, dy, *into[:-1]), strict=True)
    for piece, before, given, entered, ddelta, dB, dC in reversed(list(results)):
        count = len(given)
        inner, after = slice(count), slice(1, count + 1)
        (decays, states), (flow, scratch) = room[:2], (buffer.cut(inner) for buffer in room[2:])
        states.rows[0].copy_(before)
        _states(piece, rates, before, decays.cut(inner), states.cut(after), scratch)
        torch.sum(torch.mul(states.all[after], given, out=scratch.all), dim=-1, out=dC)
        # A state acts through its own output, and through the next state by that one's decay.
        torch.mul(given, piece.C, out=flow.all)
        decays.rows[count].fill_(1.0)
        _recur(flow, decays.cut(after), scratch, later, way=-1)
        torch.sum(torch.mul(flow.all, piece.entering, out=scratch.all), dim=-1, out=dB)
        entered.copy_(piece.B.mT @ flow.all)
        flow.all.mul_(decays.all[inner])
        later.copy_(flow.rows[0])
        flow.all.mul_(states.all[inner])
        into.A.add_(torch.mul(flow.all, piece.delta, out=scratch.all).sum(dim=(0, 1)))
        torch.sum(torch.mul(flow.all, A, out=scratch.all), dim=-2, out=ddelta)
