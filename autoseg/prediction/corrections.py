"""Masks a person has corrected, as new training cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.io import Image, mask_ending, write_image, write_label
from autoseg.io.raw_dataset import read_description, write_description
from autoseg.prediction.overlay import COLOURS
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, images_folder, labels_folder

Array = NDArray[Any]
# How strongly a mask covers the image under it, and from where on, of 255, a pixel counts as painted.
_COVER, _PAINTED = 0.5, 60
# Painted where a mask is to be taken away.
NOTHING = (0, 0, 0)


def painted(scheme: LabelScheme) -> dict[str, tuple[int, tuple[int, int, int]]]:
    """Class -> the value it paints and its colour, as in overlays."""
    values = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    return {
        name: (value, COLOURS[place % len(COLOURS)])
        for place, (name, value) in enumerate(zip(scheme.foreground, values, strict=True))
    }


def tinted(picture: Array, labels: Array, scheme: LabelScheme) -> Array:
    """A picture (H, W, 3) uint8 with a label map (H, W) laid over it in the classes' colours."""
    found: Array = picture.copy()
    for value, colour in painted(scheme).values():
        here = labels == value
        found[here] = (found[here] * (1 - _COVER) + np.array(colour) * _COVER).astype(np.uint8)
    return found


def corrected(labels: Array, layers: Sequence[Array], scheme: LabelScheme) -> Array:
    """A label map (H, W) with strokes (h, w, 4) over it: each painted pixel takes the class of the nearest colour, or none.

    Later layers lie over earlier ones.
    """
    choices = [(0, NOTHING), *painted(scheme).values()]
    colours, values = np.array([colour for _, colour in choices], np.int32), np.array([value for value, _ in choices])
    found: Array = labels.copy()
    for layer in layers:
        if layer.shape[:2] != labels.shape:
            layer = cv2.resize(layer, (labels.shape[1], labels.shape[0]), interpolation=cv2.INTER_NEAREST)
        strokes = layer[..., 3] > _PAINTED
        distance = ((layer[strokes][:, None, :3].astype(np.int32) - colours) ** 2).sum(axis=2)
        found[strokes] = values[distance.argmin(axis=1)]
    return found


def save_case(image: Image, labels: Array, name: str, where: Dataset | Path) -> Path:
    """A new training case of a dataset, or a pair in the subfolders images/ and masks/ of a folder. Returns the mask's path.

    Masks of an earlier correction of the same case are replaced. Raises AutosegError where the dataset keeps its images in
    a format that loses values, which a new case must not.
    """
    if isinstance(where, Path):
        path = where / "masks" / f"{name}.png"
        write_image(where / "images" / f"{name}{_lossless(image)}", image.array, like=image)
        write_label(path, labels)
        return path
    spec = read_description(where.description)
    ending = spec.file_ending.lower()
    if mask_ending(ending) != ending:
        raise AutosegError(f"{where.name} keeps its images as {ending}, which would change this one", "save to a folder")
    if image.array.shape[0] not in (1, len(spec.channel_names)):
        raise AutosegError(f"the image has {image.array.shape[0]} channels, those of {where.name} {len(spec.channel_names)}")
    path = labels_folder(where) / f"{name}{ending}"
    is_new = not path.exists()
    array = image.array if len(image.array) == len(spec.channel_names) else np.repeat(image.array, len(spec.channel_names), 0)
    write_image(images_folder(where) / f"{name}_0000{ending}", array, like=image)
    write_label(path, labels, like=image)
    if is_new:
        write_description(where.description, replace(spec, numTraining=spec.numTraining + 1))
    return path


def _lossless(image: Image) -> str:
    return ".png" if image.geometry is None and image.array.dtype != np.float32 else ".nii.gz"
