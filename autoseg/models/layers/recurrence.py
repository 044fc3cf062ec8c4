"""First-order recurrences, s_t = input_t + decay_t s_(t-1), over many rows of states: with few and long operations.

One operation a row where a row is broad enough to keep the machine busy; where it is not, chunks of the rows advance
together, first as if each began from zero, and the end of each chunk, damped by the decays so far, is added to the next.
"""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor


class Pace(NamedTuple):
    """What suits a device. segment: numbers in a buffer. broad: numbers in a row from which chunks no longer pay."""

    segment: int
    broad: int


# A CPU's core is fastest near its cache; several need operations long enough to be worth sharing.
ONE_CORE, CORES, GPU = Pace(2**19, 2**12), Pace(2**20, 2**12), Pace(2**24, 2**20)


def pace(x: Tensor) -> Pace:
    if x.device.type != "cpu":
        return GPU
    return ONE_CORE if torch.get_num_threads() == 1 else CORES


class States(NamedTuple):
    """Room for states (rows, batch, groups, state, width), and each row by itself: views are dear when there are thousands."""

    all: Tensor
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, like: Tensor, rows: int) -> States:
        room = like.new_empty(rows, *like.shape)
        return cls(room, room.unbind())

    def cut(self, part: slice) -> States:
        return States(self.all[part], self.rows[part])


def _chunks(rows: int, state: Tensor) -> int:
    """How many chunks of so many rows, each with such a state, best advance together."""
    if state.numel() >= pace(state).broad:
        return 1
    # 2 * rows / chunks + chunks operations are fewest for the first; but long products of decays sink into denormal
    # numbers, which are slow.
    return min(rows, max(isqrt(2 * rows), rows // 16))


def _follow(states: tuple[Tensor, ...], decays: tuple[Tensor, ...]) -> None:
    """Add to each state but the first the one before it times its decay, in this order."""
    if states[0].device.type == "cpu" and len(states) > 1:
        # One call for all rows: a CPU goes through them in order, and without Python's lock.
        torch._foreach_addcmul_(states[1:], decays[1:], states[:-1])
        return
    for (last, state), decay in zip(pairwise(states), decays[1:], strict=True):
        state.addcmul_(decay, last)


def _accumulate(products: tuple[Tensor, ...]) -> None:
    """Multiply each but the first by the one before it, in this order."""
    if products[0].device.type == "cpu" and len(products) > 1:
        torch._foreach_mul_(products[1:], products[:-1])
        return
    for last, product in pairwise(products):
        product.mul_(last)


def recur(states: States, decays: States, products: States, before: Tensor, way: int = 1) -> None:
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
    # The decay beside `before` is never looked at.
    _follow((before, *states.rows[::way]), (before, *decays.rows[::way]))


def _recur_in_chunks(states: Tensor, decays: Tensor, products: Tensor, before: Tensor, chunks: int, way: int) -> Tensor:
    """The same for rows that the chunks share evenly; returns the last state."""
    whole = [tensor.unflatten(0, (chunks, -1)) for tensor in (states, decays, products)]
    state, decay, product = (tensor.unbind(dim=1)[::way] for tensor in whole)
    _follow(state, decay)
    products.copy_(decays)
    _accumulate(product)
    starts = []
    for end, through in zip(state[-1].unbind()[::way], product[-1].unbind()[::way], strict=True):
        starts.append(before)
        before = end.addcmul_(through, before)
    rest = slice(None, -1) if way == 1 else slice(1, None)
    whole[0][:, rest].addcmul_(whole[2][:, rest], torch.stack(starts[::way]).unsqueeze(1))
    return before
