"""Volumes as slices: one case a slice, with the spacing of its plane, all slices of a volume in one group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Literal

import numpy as np

from autoseg.io import Image, Label
from autoseg.io.types import UNREADABLE, Array, as_image, as_label
from autoseg.support.errors import AutosegError
from dataset_conversion.source import Entry
from dataset_conversion.storing import NewCase

AXES = ("z", "y", "x")  # numpy's order
_KEPT = 4


@dataclass(frozen=True)
class Grid:
    """size, spacing: by axis in numpy's order (z, y, x), spacing in mm."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def widest(self) -> int:
        """The axis across which slices lie apart the most; the first one where all are alike."""
        return int(np.argmax(np.round(self.spacing, 3)))


class Volumes:
    """Reads volumes; the last few stay in memory, since their slices are asked for one after another."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}
        self._lock = Lock()

    def grid(self, entry: Entry) -> Grid:
        """Size and spacing, from the header. Raises AutosegError for what is no volume."""
        image = _read(entry, header=True)
        if image.GetDimension() != 3:
            raise AutosegError(f"{entry.where} has {image.GetDimension()} dimensions instead of 3", "look at the file")
        return Grid(tuple(image.GetSize()[::-1]), tuple(float(step) for step in image.GetSpacing()[::-1]))

    def is_volume(self, entry: Entry) -> bool:
        """Whether a file has three axes longer than one pixel."""
        image = _read(entry, header=True)
        return image.GetDimension() == 3 and all(side > 1 for side in image.GetSize())

    def array(self, entry: Entry) -> Array:
        """(z, y, x)."""
        import SimpleITK as sitk  # noqa: N813

        with self._lock:
            if entry.name not in self._kept:
                while len(self._kept) >= _KEPT:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[entry.name] = sitk.GetArrayFromImage(_read(entry))
            return self._kept[entry.name]

    def image_slice(self, entry: Entry, axis: int, place: int, spacing: tuple[float, float]) -> Image:
        """One slice (1, H, W)."""
        array, notes = as_image(np.take(self.array(entry), place, axis))
        return Image(array=np.ascontiguousarray(array)[None], spacing=spacing, notes=notes)

    def label_slice(self, entry: Entry, axis: int, place: int) -> Label:
        """One slice (H, W). Raises AutosegError for values that are no class ids."""
        values = as_label(np.take(self.array(entry), place, axis))
        if values is None:
            raise AutosegError(f"{entry.where} is no mask: its values are not whole numbers from 0 to 65535", "look at it")
        return Label(array=np.ascontiguousarray(values), spacing=None)


def slices(
    volumes: Volumes,
    name: str,
    images: Sequence[Entry],
    mask: Entry | None,
    axis: int | None = None,
    *,
    group: str = "",
    part: Literal["Tr", "Ts"] = "Tr",
    attributes: Mapping[str, str] | None = None,
    labelled: bool = False,
) -> list[NewCase]:
    """The slices of a volume across an axis, named `<name>_slice007`.

    axis: in numpy's order; None: the one with the widest spacing. group: the patient; the volume's name where it is not
    known. labelled: only slices that hold a label. Raises AutosegError where files cannot be read or differ in size.
    """
    grid = volumes.grid(images[0])
    for other in [*images[1:], *([mask] if mask else [])]:
        if volumes.grid(other).size != grid.size:
            raise AutosegError(f"{other.where} and {images[0].where} differ in size", "a volume and its mask are of one size")
    across = grid.widest if axis is None else axis
    first, second = (step for place, step in enumerate(grid.spacing) if place != across)
    held = _held(volumes, mask, across) if labelled and mask is not None else None
    return [
        NewCase(
            name=f"{name}_slice{place:03d}",
            images=[partial(volumes.image_slice, entry, across, place, (first, second)) for entry in images],
            label=_label(volumes, mask, across, place),
            group=group or name,
            part=part,
            attributes={**(attributes or {}), "slice": str(place)},
        )
        for place in range(grid.size[across])
        if held is None or held[place]
    ]


def _label(volumes: Volumes, mask: Entry | None, axis: int, place: int) -> Callable[[], Label] | None:
    return None if mask is None else partial(volumes.label_slice, mask, axis, place)


def _held(volumes: Volumes, mask: Entry, axis: int) -> Array:
    array = volumes.array(mask)
    held: Array = (array != 0).any(axis=tuple(other for other in range(3) if other != axis))
    return held


def _read(entry: Entry, header: bool = False) -> Any:
    """The image or, for header, the reader that knows size and spacing."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    with entry.local() as path:
        reader.SetFileName(str(path))
        try:
            if header:
                reader.ReadImageInformation()
                return reader
            return reader.Execute()
        except RuntimeError as error:
            raise AutosegError(f"{entry.where} cannot be read as a volume", UNREADABLE) from error
