"""YOLO's layout for segmentation: a text file of outlines for each image.

Ultralytics: docs.ultralytics.com/datasets/segment. Layout (either order of folders):

    data.yaml (names)      images/train/a.jpg      labels/train/a.txt      or      train/images/a.jpg      train/labels/a.txt

A line is a class, counted from 0, and the corners x y x y ... as fractions of width and height. Images without a text file, or
with an empty one, show none. A folder `test` holds test cases. Where classes overlap, the smaller object wins.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, is_test, label_names
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import paint_objects, polygon_mask, read_image_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase


def find(source: Source, options: Options) -> ConversionPlan:
    """Classes of data.yaml, or --labels; the background comes before them."""
    names = label_names(options) or _names(source)
    plan = ConversionPlan(labels=names)
    texts = {entry.name.casefold(): entry for entry in source.entries if entry.suffix == ".txt"}
    for image in Images(source, "images").entries:
        parts = image.folder.split("/")
        place = max(index for index, part in enumerate(parts) if part.casefold() == "images")
        text_name = "/".join([*parts[:place], "labels", *parts[place + 1 :], f"{image.stem}.txt"])
        text = texts.pop(text_name.casefold(), None)
        label = partial(_draw_label, image, text, len(names) - 1)
        plan.cases.append(
            NewCase(name=image.stem, images=[image], label=label, part="Ts" if is_test(f"{image.folder}/") else "Tr")
        )
    unused = [entry for entry in texts.values() if "labels" in entry.folder.casefold().split("/")]
    plan.problems += [f"{entry.where}: outlines without an image" for entry in unused]
    if not plan.cases:
        raise source.layout_error("folder called images")
    normalise_cases(plan)
    return plan


def _names(source: Source) -> list[str]:
    import yaml

    table = source.find_one(r"[^/]+\.ya?ml")
    try:
        names = (yaml.safe_load(table.text()) or {}).get("names") if table else None
    except (yaml.YAMLError, AttributeError) as error:
        raise AutosegError(f"{table.where if table else ''} is no data.yaml: {error}", "fix the file") from error
    if not names:
        raise AutosegError(f"{source.path} has no data.yaml with names", "name the classes with --labels")
    ordered = [names[key] for key in sorted(names, key=str)] if isinstance(names, dict) else names
    # Lists within lists can refer to each other, and their text then fills the memory.
    if not isinstance(ordered, list) or not all(isinstance(name, str | int | float) for name in ordered):
        raise AutosegError(f"{table.where if table else ''}: names are no list of texts", "name the classes with --labels")
    return ["background", *(str(name) for name in ordered)]


def _draw_label(image: Entry, text: Entry | None, classes: int) -> Label:
    shape = read_image_entry(image).array.shape[1:]
    objects = []
    for number, line in enumerate(text.text().splitlines() if text else (), 1):
        words = line.split()
        if not words or text is None:
            continue
        try:
            value, corners = int(words[0]), np.array(words[1:], float)
        except ValueError as error:
            raise AutosegError(f"{text.where}, line {number}: not numbers", "fix the line") from error
        if len(corners) < 6 or len(corners) % 2:
            raise AutosegError(
                f"{text.where}, line {number}: {len(corners)} coordinates, an outline has at least 6", "boxes are no masks"
            )
        if not 0 <= value < classes:
            raise AutosegError(f"{text.where}, line {number}: class {value}, expected 0 to {classes - 1}", "fix data.yaml")
        objects.append((value + 1, polygon_mask(shape, [corners.reshape(-1, 2) * (shape[1], shape[0])])))
    return paint_objects(shape, sorted(objects, key=lambda one: -int(one[1].sum())))
