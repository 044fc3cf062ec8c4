"""Brings a mask, or another channel, onto the pixel grid of an image by the geometry in both files.

Two files of one object may store it mirrored, with exchanged axes, or cut out. Their direction, origin and spacing say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoseg.io.types import Array, Geometry, Image, Label
from autoseg.support.errors import AutosegError

TOLERANCE = 1e-3  # pixels that any pixel may lie off its place
_ROUNDING = 1e-6  # more of them for each pixel along a side: headers hold float32
_REMEDY = "write both with one geometry (direction, origin, spacing), or resample one onto the other"
G = TypeVar("G", Image, Label)


@dataclass(frozen=True)
class Placement:
    """How an array lies on another grid. Axes in numpy's order (z, y, x).

    order: axis of the array for each axis of the grid. flipped: for each axis of the grid. start: index of the first pixel.
    """

    order: tuple[int, ...]
    flipped: tuple[bool, ...]
    start: tuple[int, ...]

    def apply(self, array: Array, size: tuple[int, ...]) -> Array:
        """The array on the grid of `size`, 0 where it does not reach."""
        turned = np.flip(array.transpose(self.order), tuple(axis for axis, flip in enumerate(self.flipped) if flip))
        if turned.shape == size:
            return np.ascontiguousarray(turned)
        placed = np.zeros(size, array.dtype)
        placed[tuple(slice(first, first + length) for first, length in zip(self.start, turned.shape, strict=True))] = turned
        return placed


def align(item: G, reference: Image | Label, path: Path, reference_path: Path, what: str = "mask") -> G:
    """`item` on the pixel grid of `reference`, with notes on what was done.

    path, reference_path, what: of the item and the reference, for messages and notes. Unchanged if a file does not say where it
    lies, or one is 2D and the other a slice in 3D. Raises AutosegError if the item lies between the reference's pixels or
    reaches beyond them.
    """
    own, grid = item.geometry, reference.geometry
    if own is None or grid is None or not (own.placed and grid.placed) or len(own.size) != len(grid.size):
        return item
    placement = find_placement(own, grid, path, reference_path)
    changes: tuple[str, ...] = _notes(placement, own, grid, what)
    if not changes:
        return item
    array = _on_grid(item.array, own, grid, placement)
    return replace(item, array=array, spacing=reference.spacing, geometry=grid, notes=(*item.notes, *changes))


def find_placement(own: Geometry, grid: Geometry, path: Path, reference_path: Path) -> Placement:
    """How an array of one geometry lies on the grid of another. Raises AutosegError if its pixels are none of the grid's."""
    dimensions = len(own.size)
    matrix, offset = _between(own, grid)
    steps = np.rint(matrix)
    if not _is_turn(steps):
        raise _differs(own, grid, path, reference_path)
    first = np.rint(offset)
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in own.size], indexing="ij")).reshape(dimensions, -1)
    off = np.abs((matrix - steps) @ corners + (offset - first)[:, None]).max()
    if off > TOLERANCE + _ROUNDING * max(own.size):
        raise _differs(own, grid, path, reference_path)
    ends = np.stack([first, steps @ (np.array(own.size) - 1) + first])
    low, high = ends.min(0).astype(int), ends.max(0).astype(int)
    if (low < 0).any() or (high >= np.array(grid.size)).any():
        raise AutosegError(f"{path} reaches beyond {reference_path}: pixels {_box(low, high)} of {_size(grid.size)}", _REMEDY)
    axes = [int(np.flatnonzero(steps[axis])[0]) for axis in range(dimensions)]
    flips = [bool(steps[axis, source] < 0) for axis, source in enumerate(axes)]
    # From SimpleITK's order (x, y, z) to numpy's.
    return Placement(
        tuple(dimensions - 1 - axes[axis] for axis in reversed(range(dimensions))),
        tuple(reversed(flips)),
        tuple(int(one) for one in reversed(low)),
    )


def _between(own: Geometry, grid: Geometry) -> tuple[Array, Array]:
    """Matrix and offset from pixel indices (x, y, z) of `own` to those of `grid`.

    The thickness of a single slice does not matter, only where it lies.
    """
    inverse: Array = np.linalg.inv(_matrix(grid))
    matrix: Array = inverse @ _matrix(own)
    for axis, length in enumerate(own.size):
        if length == 1:
            target = int(np.abs(matrix[:, axis]).argmax())
            matrix[:, axis] /= np.abs(matrix[target, axis]) or 1.0
    offset: Array = inverse @ (np.array(own.origin) - np.array(grid.origin))
    return matrix, offset


def _matrix(geometry: Geometry) -> Array:
    dimensions = len(geometry.size)
    steps: Array = np.array(geometry.direction).reshape(dimensions, dimensions) * np.array(geometry.spacing)
    return steps


def _is_turn(steps: Array) -> bool:
    """Whether each axis follows one axis of the other grid, one pixel at a time."""
    return bool((np.abs(steps).sum(0) == 1).all() and (np.abs(steps).sum(1) == 1).all())


def _on_grid(array: Array, own: Geometry, grid: Geometry, placement: Placement) -> Array:
    """(H, W) or (C, H, W)."""
    planes = array[None] if array.ndim == 2 else array
    size = tuple(reversed(grid.size))
    placed = [np.squeeze(placement.apply(np.expand_dims(plane, own.singletons), size), grid.singletons) for plane in planes]
    return placed[0] if array.ndim == 2 else np.stack(placed)


def _notes(placement: Placement, own: Geometry, grid: Geometry, what: str) -> tuple[str, ...]:
    """Empty if the arrays lie alike."""
    shown = [axis for axis in range(len(grid.size)) if axis not in grid.singletons]
    names = dict(zip(shown, ("rows", "columns"), strict=True))
    sources = [placement.order[axis] for axis in shown]
    notes = []
    if sources != sorted(sources):
        notes.append(f"{what}: rows and columns exchanged, as its direction says")
    flips = [names[axis] for axis in shown if placement.flipped[axis]]
    if flips:
        notes.append(f"{what}: {' and '.join(flips)} mirrored, as its direction says")
    lengths = [tuple(reversed(own.size))[source] for source in sources]
    if lengths != [tuple(reversed(grid.size))[axis] for axis in shown]:
        notes.append(f"{what}: a part of the image, placed by its origin")
    return tuple(notes)


def _differs(own: Geometry, grid: Geometry, path: Path, reference_path: Path) -> AutosegError:
    differing = [
        f"{name} {_shown(one)} and {_shown(other)}"
        for name, one, other in (
            ("direction", own.direction, grid.direction),
            ("spacing", own.spacing, grid.spacing),
            ("origin", own.origin, grid.origin),
        )
        if not np.allclose(one, other, rtol=1e-6, atol=1e-6)
    ]
    return AutosegError(f"{path} does not lie on the pixels of {reference_path}: {'; '.join(differing)}", _REMEDY)


def _shown(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"


def _box(low: Array, high: Array) -> str:
    return " x ".join(f"{first}..{last}" for first, last in zip(low, high, strict=True))


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
