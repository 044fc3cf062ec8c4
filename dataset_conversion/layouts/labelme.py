"""LabelMe's JSON: one file an image, with the outlines drawn on it.

Wada: LabelMe, github.com/wkentaro/labelme. Each file has `imagePath` (or the image itself in `imageData`), `imageHeight`,
`imageWidth` and `shapes`, each with `label`, `shape_type` and `points`. Polygons, rectangles, circles and masks are taken, in
their order, the later over the earlier; points and lines are skipped. The label `__ignore__` becomes the ignore label.
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
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, label_names
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import check_stated_size, paint_objects, polygon_mask
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_AREAS = ("polygon", "rectangle", "circle", "mask")
_BACKGROUND, _IGNORE = ("_background_", "background"), "__ignore__"


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each label, in the order of --labels or of the alphabet."""
    tables = _read_tables(source)
    used = {str(shape["label"]) for _, table in tables for shape in table["shapes"]}
    names = label_names(options) or ["background", *sorted(used - {*_BACKGROUND, _IGNORE}, key=str.casefold)]
    plan = ConversionPlan(labels=names, ignore=_IGNORE in used)
    values = {name.casefold(): value for value, name in enumerate(names)}
    values |= dict.fromkeys(_BACKGROUND, 0) | {_IGNORE: len(names)}
    unknown = sorted(name for name in used if name.casefold() not in values)
    plan.problems += [f"the label {name!r} is not among {', '.join(names)}" for name in unknown]
    images = Images(source)
    for entry, table in tables:
        image = images.get(str(table["imagePath"]), entry.folder) or images.get(entry.stem, entry.folder)
        if image is None and not table.get("imageData"):
            plan.problems.append(f"{entry.where}: its image {table['imagePath']} is not in the folder, and not in the file")
            continue
        shape = (int(table["imageHeight"]), int(table["imageWidth"]))
        label = partial(_draw_label, shape, table["shapes"], values, entry.where)
        picture = image if image is not None else partial(_embedded_image, entry)
        plan.cases.append(NewCase(name=entry.stem, images=[picture], label=label))
    others = sum(shape.get("shape_type", "polygon") not in _AREAS for _, table in tables for shape in table["shapes"])
    if others:
        plan.notes.append(f"{others} points, lines and the like were skipped: they have no area")
    normalise_cases(plan)
    return plan


def _read_tables(source: Source) -> list[tuple[Entry, dict[str, Any]]]:
    """Every file of LabelMe's, without the images inside."""
    tables = []
    for entry in source.entries:
        if entry.suffix != ".json":
            continue
        content = _read_json(entry)
        if isinstance(content, dict) and {"shapes", "imagePath", "imageHeight", "imageWidth"} <= set(content):
            if not all(isinstance(shape, dict) and {"label", "points"} <= set(shape) for shape in content["shapes"]):
                raise AutosegError(f"{entry.where}: a shape lacks label or points", "fix it in LabelMe")
            tables.append((entry, {**content, "imageData": bool(content.get("imageData"))}))
    if not tables:
        raise source.layout_error("LabelMe annotations (JSON with shapes and imagePath)")
    return tables


def _read_json(entry: Entry) -> Any:
    try:
        return json.loads(entry.text())
    except json.JSONDecodeError as error:
        raise AutosegError(f"{entry.where} is no JSON: {error}", "fix the file") from error


def _embedded_image(entry: Entry) -> Image:
    """The image in `imageData`."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(_read_json(entry)["imageData"]), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise AutosegError(f"{entry.where}: the image inside cannot be read", UNREADABLE)
    return Image(array=np.moveaxis(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), 2, 0), spacing=None)


def _draw_label(shape: tuple[int, int], shapes: Sequence[Mapping[str, Any]], values: Mapping[str, int], where: str) -> Label:
    check_stated_size(shape, where)
    areas = [item for item in shapes if item.get("shape_type", "polygon") in _AREAS]
    try:
        objects = [(values[str(item["label"]).casefold()], _draw_shape(item, shape)) for item in areas]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise AutosegError(f"{where}: a shape cannot be drawn: {error}", "fix it in LabelMe") from error
    return paint_objects(shape, objects)


def _draw_shape(item: Mapping[str, Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
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
        return polygon_mask(shape, [points])
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(item["mask"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    if drawn is None:
        raise ValueError("the mask is not a picture")
    mask = np.zeros(shape, np.bool_)
    left, top = (int(side) for side in points.min(0))
    region = mask[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    region[:] = np.asarray(drawn)[: region.shape[0], : region.shape[1]] > 0
    return mask
