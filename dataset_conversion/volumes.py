"""Cuts volumes into slices: each slice is a case with the spacing of its plane; all slices of a volume are one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from autoseg.io import Image, Label, nifti
from autoseg.io.grid import Placement, find_placement
from autoseg.io.types import UNREADABLE, Array, Geometry, as_image, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.files import check_utf8
from dataset_conversion.source import Entry
from dataset_conversion.storing import NewCase

AXES = ("z", "y", "x")  # numpy's order
_CACHED_VOLUMES = 4


@dataclass(frozen=True)
class VolumeGrid:
    """size, spacing: by axis in numpy's order (z, y, x), spacing in mm."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def widest(self) -> int:
        """The axis with the largest slice spacing; the first one if all are equal."""
        return int(np.argmax(np.round(self.spacing, 3)))


class Volumes:
    """Reads volumes; the last few stay in memory, since their slices are read one after another."""

    def __init__(self) -> None:
        self._cache: dict[str, Array] = {}
        self._lock = Lock()

    def grid(self, entry: Entry) -> VolumeGrid:
        """Size and spacing, from the header. Raises AutosegError for a file that is not a volume."""
        image = _read_volume(entry, header=True)
        if image.GetDimension() != 3:
            raise AutosegError(f"{entry.where} has {image.GetDimension()} dimensions instead of 3", "look at the file")
        return VolumeGrid(tuple(image.GetSize()[::-1]), tuple(float(step) for step in image.GetSpacing()[::-1]))

    def is_volume(self, entry: Entry) -> bool:
        """Whether a file has three axes longer than one pixel."""
        image = _read_volume(entry, header=True)
        return image.GetDimension() == 3 and all(side > 1 for side in image.GetSize())

    def array(self, entry: Entry, grid: Entry | None = None) -> Array:
        """(z, y, x), on the pixel grid of the volume `grid`. Raises AutosegError if their places differ."""
        import SimpleITK as sitk  # noqa: N813

        with self._lock:
            if entry.name not in self._cache:
                while len(self._cache) >= _CACHED_VOLUMES:
                    self._cache.pop(next(iter(self._cache)))
                values: Array = sitk.GetArrayFromImage(_read_volume(entry))
                placement = self.placement(entry, grid) if grid is not None else None
                self._cache[entry.name] = placement.apply(values, self.grid(grid).size) if placement and grid else values
            return self._cache[entry.name]

    def placement(self, entry: Entry, grid: Entry) -> Placement | None:
        """How one volume lies on the pixel grid of another; None if a file does not say where it lies.

        Raises AutosegError if the places differ by more than mirrored or exchanged axes and a cut-out.
        """
        own, other = _geometry(entry), _geometry(grid)
        if own is None or other is None:
            return None
        return find_placement(own, other, Path(entry.where), Path(grid.where))

    def image_slice(self, entry: Entry, grid: Entry, axis: int, index: int, spacing: tuple[float, float]) -> Image:
        """One slice (1, H, W) across an axis of the volume `grid`."""
        array, notes = as_image(np.take(self.array(entry, grid), index, axis))
        return Image(array=np.ascontiguousarray(array)[None], spacing=spacing, notes=notes)

    def label_slice(self, entry: Entry, grid: Entry, axis: int, index: int) -> Label:
        """One slice (H, W) across an axis of the volume `grid`. Raises AutosegError for values that are not class ids."""
        values = as_label(np.take(self.array(entry, grid), index, axis))
        if values is None:
            raise AutosegError(f"{entry.where} is no mask: its values are not whole numbers from 0 to 65535", "check the file")
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
    """The slices of a volume along an axis, named `<name>_slice007`.

    axis: in numpy's order; None: the one with the widest spacing. group: the patient; "": the name of the
    volume. labelled: only slices that hold a label. Other channels and the mask are brought onto the grid of the first image.
    Raises AutosegError where files cannot be read, differ in size or lie elsewhere.
    """
    grid = volumes.grid(images[0])
    for other in [*images[1:], *([mask] if mask else [])]:
        if volumes.placement(other, images[0]) is None and volumes.grid(other).size != grid.size:
            raise AutosegError(
                f"{other.where} and {images[0].where} differ in size", "a volume and its mask need the same size"
            )
    slice_axis = grid.widest if axis is None else axis
    first, second = (step for index, step in enumerate(grid.spacing) if index != slice_axis)
    has_label = _has_label(volumes.array(mask, images[0]), slice_axis) if labelled and mask is not None else None
    return [
        NewCase(
            name=f"{name}_slice{index:03d}",
            images=[partial(volumes.image_slice, entry, images[0], slice_axis, index, (first, second)) for entry in images],
            label=None if mask is None else partial(volumes.label_slice, mask, images[0], slice_axis, index),
            group=group or name,
            part=part,
            attributes={**(attributes or {}), "slice": str(index)},
        )
        for index in range(grid.size[slice_axis])
        if has_label is None or has_label[index]
    ]


def _has_label(array: Array, axis: int) -> Array:
    has_label: Array = (array != 0).any(axis=tuple(other for other in range(3) if other != axis))
    return has_label


def _geometry(entry: Entry) -> Geometry | None:
    """Of a volume, from its header; None if it does not say where it lies."""
    image = _read_volume(entry, header=True)
    if entry.suffix in nifti.SUFFIXES:
        with entry.local() as path:
            if not nifti.check(path).placed:
                return None
    return Geometry(size=image.GetSize(), spacing=image.GetSpacing(), origin=image.GetOrigin(), direction=image.GetDirection())


def _read_volume(entry: Entry, header: bool = False) -> Any:
    """The SimpleITK image; header: the reader with size and spacing only."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    with entry.local() as local, nifti.apart_from_siblings(local) as path:
        check_utf8(path)
        reader.SetFileName(str(path))
        try:
            if header:
                reader.ReadImageInformation()
                return reader
            if path.name.lower().endswith(nifti.SUFFIXES):
                nifti.check(path)
            return reader.Execute()
        except RuntimeError as error:
            raise AutosegError(f"{entry.where} cannot be read as a volume", UNREADABLE) from error
