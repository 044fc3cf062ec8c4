"""Masks corrected by a person, saved as new training cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.io import Image, mask_ending, write_image, write_label
from autoseg.io.raw_dataset import is_listed, read_description, update_description
from autoseg.prediction.overlay import COLOURS
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, images_folder, labels_folder

Array = NDArray[Any]
# Opacity of the mask over the image; a stroke counts where its alpha (0..255) is above the second number.
_OPACITY, _MIN_ALPHA = 0.5, 60
# Strokes of this colour erase the mask.
ERASE = (0, 0, 0)


def class_colours(scheme: LabelScheme) -> dict[str, tuple[int, tuple[int, int, int]]]:
    """Class -> (label value, RGB colour as in overlays)."""
    values = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    return {
        name: (value, COLOURS[index % len(COLOURS)])
        for index, (name, value) in enumerate(zip(scheme.foreground, values, strict=True))
    }


def tint_mask(picture: Array, labels: Array, scheme: LabelScheme) -> Array:
    """A picture (H, W, 3) uint8 tinted with the class colours of a label map (H, W)."""
    tinted: Array = picture.copy()
    for value, colour in class_colours(scheme).values():
        mask = labels == value
        tinted[mask] = (tinted[mask] * (1 - _OPACITY) + np.array(colour) * _OPACITY).astype(np.uint8)
    return tinted


def apply_strokes(labels: Array, layers: Sequence[Array], scheme: LabelScheme) -> Array:
    """Apply layers of strokes (h, w, 4) RGBA to a label map (H, W): each painted pixel takes the class of the nearest colour.

    Later layers cover earlier ones.
    """
    palette = [(0, ERASE), *class_colours(scheme).values()]
    colours, values = np.array([colour for _, colour in palette], np.int32), np.array([value for value, _ in palette])
    result: Array = labels.copy()
    for layer in layers:
        if layer.shape[:2] != labels.shape:
            layer = cv2.resize(layer, (labels.shape[1], labels.shape[0]), interpolation=cv2.INTER_NEAREST)
        strokes = layer[..., 3] > _MIN_ALPHA
        distance = ((layer[strokes][:, None, :3].astype(np.int32) - colours) ** 2).sum(axis=2)
        result[strokes] = values[distance.argmin(axis=1)]
    return result


def save_case(image: Image, labels: Array, name: str, target: Dataset | Path) -> Path:
    """Save a training case into a dataset, or into images/ and masks/ of a folder. Returns the mask's path.

    Replaces an earlier correction of the same case. Raises AutosegError if the dataset stores images in a lossy format,
    or lists its files in dataset.json.
    """
    if isinstance(target, Path):
        path = target / "masks" / f"{name}.png"
        write_image(target / "images" / f"{name}{_lossless(image)}", image.array, like=image)
        write_label(path, labels)
        return path
    if is_listed(target):
        raise AutosegError(
            f"{target.description} lists the files of its cases, so a new case would not be seen",
            "save to a folder instead: --cases DIR",
        )
    spec = read_description(target.description)
    ending = spec.file_ending.lower()
    if mask_ending(ending) != ending:
        raise AutosegError(f"{target.name} stores images as {ending}, a lossy format", "save to a folder instead: --cases DIR")
    if image.array.shape[0] not in (1, len(spec.channel_names)):
        raise AutosegError(f"the image has {image.array.shape[0]} channels, those of {target.name} {len(spec.channel_names)}")
    path = labels_folder(target) / f"{name}{ending}"
    is_new = not path.exists()
    array = image.array if len(image.array) == len(spec.channel_names) else np.repeat(image.array, len(spec.channel_names), 0)
    write_image(images_folder(target) / f"{name}_0000{ending}", array, like=image)
    write_label(path, labels, like=image)
    if is_new:
        update_description(target.description, numTraining=spec.numTraining + 1)
    return path


def _lossless(image: Image) -> str:
    return ".png" if image.geometry is None and image.array.dtype != np.float32 else ".nii.gz"
