"""LabelMe's JSON: one file an image, with the outlines drawn on it.

Wada: LabelMe, github.com/wkentaro/labelme. Each file has `imagePath` (or the image itself in `imageData`), `imageHeight`,
`imageWidth` and `shapes`, each with `label`, `shape_type` and `points`. Polygons, rectangles, circles and masks are taken, in
their order, the later over the earlier; points and lines are passed over. The label `__ignore__` becomes the ignore label.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.io import Image, Label
from autoseg.io.types import UNREADABLE
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, names_given
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import outlines, painted
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_AREAS = ("polygon", "rectangle", "circle", "mask")
_BACKGROUND, _IGNORE = ("_background_", "background"), "__ignore__"


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each label, in the order of --labels or of the alphabet."""
    tables = _tables(source)
    used = {str(shape["label"]) for _, table in tables for shape in table["shapes"]}
    names = names_given(options) or ["background", *sorted(used - {*_BACKGROUND, _IGNORE}, key=str.casefold)]
    draft = ConversionPlan(labels=names, ignore=_IGNORE in used)
    values = {name.casefold(): value for value, name in enumerate(names)}
    values |= dict.fromkeys(_BACKGROUND, 0) | {_IGNORE: len(names)}
    unknown = sorted(name for name in used if name.casefold() not in values)
    draft.problems += [f"the label {name!r} is not among {', '.join(names)}" for name in unknown]
    images = Images(source)
    for entry, table in tables:
        image = images.get(str(table["imagePath"]), entry.folder) or images.get(entry.stem, entry.folder)
        if image is None and not table.get("imageData"):
            draft.problems.append(f"{entry.where}: its image {table['imagePath']} is not there, nor inside")
            continue
        shape = (int(table["imageHeight"]), int(table["imageWidth"]))
        label = partial(_drawn, shape, table["shapes"], values, entry.where)
        picture = image if image is not None else partial(_inside, entry)
        draft.cases.append(NewCase(name=entry.stem, images=[picture], label=label))
    others = sum(shape.get("shape_type", "polygon") not in _AREAS for _, table in tables for shape in table["shapes"])
    if others:
        draft.notes.append(f"{others} points, lines and the like were passed over: they have no area")
    normalise_cases(draft)
    return draft


def _tables(source: Source) -> list[tuple[Entry, dict[str, Any]]]:
    """Every file of LabelMe's, without the images inside."""
    found = []
    for entry in source.entries:
        if entry.suffix != ".json":
            continue
        content = _read(entry)
        if isinstance(content, dict) and {"shapes", "imagePath", "imageHeight", "imageWidth"} <= set(content):
            if not all(isinstance(shape, dict) and {"label", "points"} <= set(shape) for shape in content["shapes"]):
                raise AutosegError(f"{entry.where}: a shape lacks label or points", "mend it in LabelMe")
            found.append((entry, {**content, "imageData": bool(content.get("imageData"))}))
    if not found:
        raise source.nothing_found("LabelMe annotations (JSON with shapes and imagePath)")
    return found


def _read(entry: Entry) -> Any:
    try:
        return json.loads(entry.text())
    except json.JSONDecodeError as error:
        raise AutosegError(f"{entry.where} is no JSON: {error}", "mend the file") from error


def _inside(entry: Entry) -> Image:
    """The image that a file carries itself."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(_read(entry)["imageData"]), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise AutosegError(f"{entry.where}: the image inside cannot be read", UNREADABLE)
    return Image(array=np.moveaxis(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), 2, 0), spacing=None)


def _drawn(shape: tuple[int, int], shapes: Sequence[Mapping[str, Any]], values: Mapping[str, int], where: str) -> Label:
    areas = [item for item in shapes if item.get("shape_type", "polygon") in _AREAS]
    try:
        objects = [(values[str(item["label"]).casefold()], _mask(item, shape)) for item in areas]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise AutosegError(f"{where}: a shape cannot be drawn: {error}", "mend it in LabelMe") from error
    return painted(shape, objects)


def _mask(item: Mapping[str, Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    points = np.array(item["points"], float)
    kind = item.get("shape_type", "polygon")
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if kind == "circle":
        radius = float(np.linalg.norm(points[1] - points[0]))
        angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    if kind != "mask":
        return outlines(shape, [points])
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(item["mask"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    if drawn is None:
        raise ValueError("a mask that is no picture")
    mask = np.zeros(shape, np.bool_)
    left, top = (int(side) for side in points.min(0))
    room = mask[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    room[:] = np.asarray(drawn)[: room.shape[0], : room.shape[1]] > 0
    return mask
