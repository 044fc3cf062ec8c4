"""COCO's JSON: `images`, `annotations` with polygons or run lengths, `categories`.

Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014; the format is described at cocodataset.org/#format-data. One
or several JSON files, such as a folder each for train, valid and test; where a folder or the file's name says test, the
images are test cases. Polygons and run lengths are drawn by pycocotools, COCO's own library. Where objects of two classes
overlap, the smaller one wins. Images without annotations have empty masks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, is_test
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import paint_objects
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"image_id", "category_id"},
    "categories": {"id", "name"},
}


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each category, in the order of their ids."""
    _import_pycocotools()
    tables = _read_tables(source, options.get("annotations"))
    names = {int(item["id"]): str(item["name"]) for _, table in tables for item in table["categories"]}
    order = [number for number in sorted(names) if names[number].casefold() != "background"]
    values = {number: value for value, number in enumerate(order, 1)}
    plan = ConversionPlan(labels=["background", *(names[number] for number in order)])
    images = Images(source)
    for entry, table in tables:
        annotations_by_image: dict[Any, list[Mapping[str, Any]]] = {}
        for item in table["annotations"]:
            annotations_by_image.setdefault(item["image_id"], []).append(item)
        for item in table["images"]:
            image = images.get(str(item["file_name"]), entry.folder)
            if image is None:
                plan.problems.append(f"{entry.where}: names the image {item['file_name']}, which is not there")
                continue
            shape = (int(item["height"]), int(item["width"]))
            label = partial(_draw_label, shape, annotations_by_image.get(item["id"], []), values, image.where)
            plan.cases.append(NewCase(name=image.stem, images=[image], label=label, part="Ts" if is_test(entry.name) else "Tr"))
    normalise_cases(plan)
    return plan


def _read_tables(source: Source, file_name: str | None) -> list[tuple[Entry, dict[str, Any]]]:
    tables = []
    for entry in source.entries:
        if entry.suffix != ".json" or (file_name and not entry.name.endswith(file_name)):
            continue
        try:
            content = json.loads(entry.text())
        except json.JSONDecodeError as error:
            raise AutosegError(f"{entry.where} is no JSON: {error}", "fix the file") from error
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS):
            _check(entry, content)
            tables.append((entry, content))
    if not tables:
        raise source.layout_error(f"COCO annotations (JSON with {', '.join(_KEYS)})")
    return tables


def _check(entry: Entry, content: Mapping[str, Any]) -> None:
    """Raises AutosegError for items without what every item of their kind has."""
    for kind, keys in _KEYS.items():
        for place, item in enumerate(content[kind]):
            missing = sorted(keys - set(item)) if isinstance(item, dict) else sorted(keys)
            if missing:
                raise AutosegError(f"{entry.where}: {kind}[{place}] lacks {', '.join(missing)}", "fix the JSON")


def _draw_label(
    shape: tuple[int, int], annotations: Sequence[Mapping[str, Any]], values: Mapping[int, int], where: str
) -> Label:
    objects = []
    for item in annotations:
        number = int(item["category_id"])
        if item.get("segmentation") and number in values:
            objects.append((values[number], _decode_mask(item["segmentation"], shape, where)))
    return paint_objects(shape, sorted(objects, key=lambda one: -int(one[1].sum())))


def _decode_mask(segmentation: Any, shape: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:
    """(H, W) of polygons, of plain run lengths or of packed ones. Raises AutosegError for anything else."""
    coco = _import_pycocotools()
    polygons = isinstance(segmentation, list)
    if polygons:
        fits = all(isinstance(polygon, list) and len(polygon) >= 6 and not len(polygon) % 2 for polygon in segmentation)
    else:
        fits = isinstance(segmentation, dict) and list(segmentation.get("size", ())) == list(shape)
    if not fits or not (polygons or isinstance(segmentation.get("counts"), (str, bytes, list))):
        raise AutosegError(f"{where}: an annotation is neither polygons nor run lengths of {shape}", "fix the JSON")
    encode_thumbnail = not polygons and not isinstance(segmentation["counts"], list)
    coded = segmentation if encode_thumbnail else coco.frPyObjects(segmentation, *shape)
    return np.asarray(coco.decode(coco.merge(coded) if polygons else coded), np.bool_)


def _import_pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise AutosegError(
            "COCO masks are drawn by pycocotools, which is not installed", 'pip install "autoseg[coco]"'
        ) from error
    return mask
