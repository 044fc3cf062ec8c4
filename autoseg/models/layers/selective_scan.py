"""The selective scan of Mamba without any extension: parallel over the sequence, computed again in the backward pass.

    delta_t = softplus(step_t + bias),   h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t,   y_t = C_t . h_t + skip x_t

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023.

The sequence is cut into segments that fit a CPU's cache. Decays, inputs, outputs and gradients of a segment are computed
for all its rows at once; what remains, h_t = decay_t h_(t-1) + input_t, is `recurrence`'s. The few cores of a small CPU
take groups side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.models.layers import recurrence
from autoseg.models.layers.precision import full_precision
from autoseg.models.layers.recurrence import States, recur
from autoseg.models.layers.side_by_side import one_thread, shares, side_by_side

# Up to so many threads, sharing single operations costs more than it gives (with two, one alone was 1.2 to 1.4 times as
# fast), and whole groups are shared out instead.
_FEW = 4
# In numbers: what makes a thread of its own worth waking.
_JOB = 2**22
# In rows, between two states kept for the backward pass: at least the first, more while they hold fewer numbers.
_STRETCH_ROWS, _STRETCH_NUMBERS = 32, 2**21


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

    def groups(self, part: slice) -> _Rows:
        return _Rows(*(tensor[:, :, part] for tensor in self))


class _Weights(NamedTuple):
    """What all rows share, or its gradients."""

    A: Tensor
    skip: Tensor
    bias: Tensor

    def groups(self, part: slice) -> _Weights:
        return _Weights(*(tensor[part] for tensor in self))


class _SelectiveScan(torch.autograd.Function):
    """Keeps the inputs and a state every so many rows, and computes everything between them again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, step, A, B, C, skip, bias = inputs
        kept = x.new_empty(-(-x.shape[0] // _stretch(A)), x.shape[1], *A.shape)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        # Tensors without data (the planner's) have nothing to compute.
        if not x.is_meta:
            _by_groups(partial(_prepare_scan, _Rows(x, step, B, C), _Weights(A, skip, bias), kept, y), x, A)
        ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, step, A, B, C, skip, bias, kept = ctx.saved_tensors
        rows, weights = _Rows(x, step, B, C), _Weights(A, skip, bias)
        found = _Rows(*(torch.empty_like(t, memory_format=torch.contiguous_format) for t in rows))
        shared = _Weights(*(torch.zeros_like(t, memory_format=torch.contiguous_format) for t in weights))
        _by_groups(partial(_prepare_scan_back, rows, weights, kept, dy, found, shared), x, A)
        return found.x, found.step, shared.A, found.B, found.C, shared.skip, shared.bias


def _by_groups(prepare: Callable[[slice], Callable[[], None]], x: Tensor, A: Tensor) -> None:
    """Prepare and do all groups at once; on a few cores, each its share if that has broad rows and enough of them."""
    threads, row = torch.get_num_threads(), x.shape[1] * A.numel()
    if x.device.type != "cpu" or threads > _FEW:
        prepare(slice(None))()
        return
    with one_thread():
        parts = min(threads, len(A), row // recurrence.pace(x).broad, len(x) * row // _JOB)
        side_by_side([prepare(groups) for groups in shares(len(A), max(1, parts))])


def _images(batch: int, A: Tensor) -> list[slice]:
    """Slices of the batch: as many images at once as make a broad row."""
    count = max(1, recurrence.pace(A).broad // A.numel())
    return [slice(i, min(batch, i + count)) for i in range(0, batch, count)]


def _stretch(A: Tensor) -> int:
    return max(_STRETCH_ROWS, _STRETCH_NUMBERS // A.numel())


def _segment(state: Tensor, stretch: int) -> int:
    """Rows of a segment: as many as suit the device, or a few more or less, so that stretches are cut evenly."""
    pieces = round(stretch * state.numel() / recurrence.pace(state).segment)
    return -(-stretch // min(max(1, pieces), stretch))


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
    def of(cls, delta: Tensor, entering: Tensor, B: Tensor, C: Tensor) -> _Wide:
        return cls(delta.unsqueeze(-2), entering.unsqueeze(-2), B.unsqueeze(-1), C.unsqueeze(-1))


def _softplus_(x: Tensor, u: Tensor, s: Tensor) -> None:
    """x becomes log(1 + exp(x)); four times as fast on a CPU as torch's own, whose log1p is not vectorised.

    u, s: room as large as x. log1p(u) = log(s) + (u - (s - 1)) / s with s the rounded 1 + u: the second term is what
    rounding took from u (to first order, and the square of a rounding is nothing). exp by exp2, see `_rates`: relative
    errors of 4e-7 at -5, 2e-6 at -25.
    """
    torch.abs(x, out=u).mul_(-1.0 / log(2.0)).exp2_()
    torch.add(u, 1.0, out=s).sub_(1.0)
    u.sub_(s)
    u.div_(s.add_(1.0))
    x.clamp_min_(0.0).add_(u).add_(s.log_())


def _states(wide: _Wide, rates: Tensor, before: Tensor, decays: States, states: States, products: States) -> None:
    """Fill a segment's decays and states, given the state before its first row. rates: A / ln 2, see `_rates`."""
    torch.mul(wide.delta, rates, out=decays.all).exp2_()
    torch.mul(wide.entering, wide.B, out=states.all)
    recur(states, decays, products, before)


class _Room(NamedTuple):
    """Room for a stretch (tensors, rows, batch, groups, width), and for the states of a segment."""

    stretch: Tensor
    states: list[States]

    @classmethod
    def of(cls, x: Tensor, A: Tensor, rows: int, tensors: int, states: int, extra: int = 0) -> _Room:
        """For `rows` rows like those of x at once, and states of a segment and `extra` rows more."""
        state, rows = x.new_empty(x.shape[1], *A.shape), min(rows, len(x))
        held = [States.of(state, _segment(state, rows) + extra) for _ in range(states)]
        return cls(x.new_empty(tensors, rows, *x.shape[1:]), held)

    @classmethod
    def for_each(
        cls, parts: list[slice], x: Tensor, A: Tensor, rows: int, tensors: int, states: int, extra: int = 0
    ) -> list[_Room]:
        """One for each part of the images; parts of one size share it."""
        made = {part.stop - part.start: part for part in parts}
        rooms = {count: cls.of(x[:, part], A, rows, tensors, states, extra) for count, part in made.items()}
        return [rooms[part.stop - part.start] for part in parts]


def _prepare_scan(rows: _Rows, weights: _Weights, kept: Tensor, y: Tensor, groups: slice) -> Callable[[], None]:
    """Make room for `_scan` of some groups of all images; what is returned does it."""
    stretch, rows, weights = _stretch(weights.A), rows.groups(groups), weights.groups(groups)
    parts = _images(y.shape[1], weights.A)
    rooms = _Room.for_each(parts, rows.x, weights.A, stretch, tensors=3, states=2)

    def scan() -> None:
        with full_precision(y):
            for part, room in zip(parts, rooms, strict=True):
                _scan(rows.images(part), weights, kept[:, part, groups], y[:, part, groups], room)

    return scan


class _Work(NamedTuple):
    """A stretch's part of the room, and each of its segments' part of that: views are dear."""

    delta: Tensor
    entering: Tensor
    sums: Tensor
    segments: list[tuple[Tensor, Tensor, Tensor, States, States]]

    @classmethod
    def of(cls, room: _Room, rows: int) -> _Work:
        stretch, (decays, states) = room.stretch[:, :rows], room.states
        segments = []
        for delta, entering, sums in stretch.unsqueeze(-2).split(len(states.rows), dim=1):
            part = slice(len(delta))
            segments.append((delta, entering, sums.flatten(0, 2), decays.cut(part), states.cut(part)))
        return cls(stretch[0], stretch[1], stretch[2], segments)


def _scan(rows: _Rows, weights: _Weights, kept: Tensor, y: Tensor, room: _Room) -> None:
    """Fill y (length, batch, groups, width), and `kept` (stretches, ...): the state each stretch begins with."""
    state, rates = torch.zeros_like(kept[0]), _rates(weights.A)
    stretch, segment = room.stretch.shape[1], len(room.states[0].rows)
    work = _Work.of(room, stretch)
    for start, out, x, step, B, C in zip(kept, *_split(stretch, y, *rows), strict=True):
        start.copy_(state)
        if len(out) < stretch:
            work = _Work.of(room, len(out))
        _softplus_(torch.add(step, weights.bias, out=work.delta), work.entering, work.sums)
        torch.mul(work.delta, x, out=work.entering)
        segments = zip(work.segments, B.unsqueeze(-1).split(segment), C.split(segment), strict=True)
        for (delta, entering, sums, decays, states), entry, exit_ in segments:
            _states(_Wide(delta, entering, entry, exit_), rates, state, decays, states, decays)
            torch.bmm(exit_.flatten(0, 2).unsqueeze(1), states.all.flatten(0, 2), out=sums)
            state.copy_(states.rows[-1])
        torch.addcmul(work.sums, weights.skip, x, out=out)


def _split(rows: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [tensor.split(rows) for tensor in tensors]


def _prepare_scan_back(
    rows: _Rows, weights: _Weights, kept: Tensor, dy: Tensor, found: _Rows, shared: _Weights, groups: slice
) -> Callable[[], None]:
    """Make room for `_scan_back` of some groups of all images; what is returned does it."""
    stretch, rows, weights = _stretch(weights.A), rows.groups(groups), weights.groups(groups)
    found, shared = found.groups(groups), shared.groups(groups)
    parts = _images(dy.shape[1], weights.A)
    rooms = _Room.for_each(parts, rows.x, weights.A, stretch, tensors=5, states=4, extra=1)

    def scan_back() -> None:
        with full_precision(dy):
            for part, room in zip(parts, rooms, strict=True):
                given = kept[:, part, groups], dy[:, part, groups]
                _scan_back(rows.images(part), weights, *given, found.images(part), shared, room)

    return scan_back


def _scan_back(
    rows: _Rows, weights: _Weights, kept: Tensor, dy: Tensor, found: _Rows, shared: _Weights, room: _Room
) -> None:
    """Fill `found` with the gradients of `rows`, given those of y, and add those of `weights` to `shared`."""
    # What the rows after those at hand pass back to the last state of these.
    later = torch.zeros_like(kept[0])
    stretches = _split(room.stretch.shape[1], dy, *rows, *found)
    for start, given, x, step, B, C, dx, dstep, dB, dC in reversed(list(zip(kept, *stretches, strict=True))):
        raw, delta, entering, entered, scratch = room.stretch[:, : len(given)]
        _softplus_(delta.copy_(torch.add(step, weights.bias, out=raw)), entered, scratch)
        into = _Found(entered.unsqueeze(-2), dstep, dB, dC, shared.A)
        wide = _Wide.of(delta, torch.mul(delta, x, out=entering), B, C)
        _stretch_back(wide, weights.A, dy=given.unsqueeze(-2), start=start, later=later, room=room.states, into=into)
        dstep.addcmul_(entered, x).mul_(raw.sigmoid_())
        torch.mul(entered, delta, out=dx).addcmul_(weights.skip, given)
        shared.skip.add_(torch.mul(x, given, out=scratch).sum(dim=(0, 1)))
        shared.bias.add_(dstep.sum(dim=(0, 1)))


class _Found(NamedTuple):
    """Where a stretch's gradients go: of delta B x by x and delta, of delta through the decays, of B, C and A."""

    entered: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor
    A: Tensor


def _stretch_back(
    wide: _Wide, A: Tensor, dy: Tensor, start: Tensor, later: Tensor, room: list[States], into: _Found
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
        recur(flow, decays.cut(after), scratch, later, way=-1)
        torch.sum(torch.mul(flow.all, piece.entering, out=scratch.all), dim=-1, out=dB)
        torch.bmm(piece.B.mT.flatten(0, 2), flow.all.flatten(0, 2), out=entered.flatten(0, 2))
        flow.all.mul_(decays.all[inner])
        later.copy_(flow.rows[0])
        flow.all.mul_(states.all[inner])
        into.A.add_(torch.mul(flow.all, piece.delta, out=scratch.all).sum(dim=(0, 1)))
        torch.sum(torch.mul(flow.all, A, out=scratch.all), dim=-2, out=ddelta)
