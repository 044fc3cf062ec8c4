"""COCO's JSON: `images`, `annotations` with polygons or run lengths, `categories`.

Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014; the format is described at cocodataset.org/#format-data. One
or several JSON files, such as a folder each for train, valid and test; where a folder or the file's name says test, the
images are test cases. Polygons and run lengths are drawn by pycocotools, COCO's own library. Where objects of two classes
overlap, the smaller one wins. Images without annotations have empty masks. Boxes without an outline, undeclared categories and
annotations of images that are not listed are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, is_test
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import check_stated_size, paint_objects
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_SHOWN = 5
_KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"image_id", "category_id"},
    "categories": {"id", "name"},
}


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each category name, in the order of the ids. Annotations that cannot be drawn are problems."""
    _import_pycocotools()
    tables = _read_tables(source, options.get("annotations"))
    names: dict[int, str] = {}
    plan = ConversionPlan(labels=["background"])
    for entry, table in tables:
        for item in table["categories"]:
            number, name = int(item["id"]), str(item["name"])
            if names.setdefault(number, name) != name:
                plan.problems.append(f"{entry.where}: the category {number} is {name!r} here and {names[number]!r} elsewhere")
    labels = list(dict.fromkeys(names[number] for number in sorted(names) if names[number].casefold() != "background"))
    plan.labels = ["background", *labels]
    values = {number: labels.index(name) + 1 if name in labels else 0 for number, name in names.items()}
    images = Images(source)
    for entry, table in tables:
        plan.problems += _annotation_faults(entry, table, names)
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
    used = {int(item["category_id"]) for _, table in tables for item in table["annotations"]}
    unused = [name for name in labels if not used & {number for number in names if names[number] == name}]
    if unused:
        plan.notes.append(f"categories without any object: {', '.join(unused)}")
    background = sum(values.get(int(item["category_id"])) == 0 for _, table in tables for item in table["annotations"])
    if background:
        plan.notes.append(f"{background} objects of the category background were not drawn")
    normalise_cases(plan)
    return plan


def _annotation_faults(entry: Entry, table: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    """One line for each kind of annotation that has no place in a mask, with its number."""
    counts = Counter(item["id"] for item in table["images"])
    boxes = [item for item in table["annotations"] if not item.get("segmentation")]
    categories = Counter(int(item["category_id"]) for item in table["annotations"])
    unknown = {number: count for number, count in sorted(categories.items()) if number not in names}
    lost = Counter(item["image_id"] for item in table["annotations"] if item["image_id"] not in counts)
    repeated = [number for number, count in counts.items() if count > 1]
    faults = []
    if boxes:
        first = ", ".join(str(item["image_id"]) for item in boxes[:_SHOWN])
        faults.append(f"{len(boxes)} annotations have no outline, only a box: image ids {first}{_more(boxes)}")
    if unknown:
        shown = ", ".join(f"{number} ({count})" for number, count in list(unknown.items())[:_SHOWN])
        declared = ", ".join(f"{number} {name}" for number, name in sorted(names.items()))
        total = sum(unknown.values())
        faults.append(f"{total} annotations are of categories {shown}{_more(unknown)}; declared are {declared}")
    if lost:
        shown = ", ".join(map(str, list(lost)[:_SHOWN]))
        faults.append(f"{sum(lost.values())} annotations belong to images that are not listed: ids {shown}{_more(lost)}")
    if repeated:
        faults.append(f"several images have the ids {', '.join(map(str, repeated[:_SHOWN]))}{_more(repeated)}")
    return [f"{entry.where}: {fault}" for fault in faults]


def _more(items: Sized) -> str:
    return f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""


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
            for key in keys & {"category_id", "height", "width"} | (keys & {"id"} if kind == "categories" else set()):
                if not str(item[key]).isdigit():
                    raise AutosegError(f"{entry.where}: {key} of {kind}[{place}] is {item[key]!r}", "give a whole number")


def _draw_label(
    shape: tuple[int, int], annotations: Sequence[Mapping[str, Any]], values: Mapping[int, int], where: str
) -> Label:
    check_stated_size(shape, where)
    objects = []
    for item in annotations:
        value = values[int(item["category_id"])]
        if value:
            objects.append((value, _decode_mask(item["segmentation"], shape, where)))
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
