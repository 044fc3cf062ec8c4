"""YOLO's layout for segmentation: a text file of outlines for each image.

Ultralytics: docs.ultralytics.com/datasets/segment. Layout (either order of folders):

    data.yaml (names)      images/train/a.jpg      labels/train/a.txt      or      train/images/a.jpg      train/labels/a.txt

A line is a class, counted from 0, and the corners x y x y ... as shares of width and height. Images without a text file, or
with an empty one, show none. A folder `test` holds test cases. Where classes overlap, the smaller object wins.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, is_test, names_given
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import image_of, outlines, painted
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase


def find(source: Source, options: Options) -> ConversionPlan:
    """Classes of data.yaml, or --labels; the background comes before them."""
    names = names_given(options) or _names(source)
    draft = ConversionPlan(labels=names)
    texts = {entry.name.casefold(): entry for entry in source.entries if entry.suffix == ".txt"}
    for image in Images(source, "images").entries:
        parts = image.folder.split("/")
        place = max(index for index, part in enumerate(parts) if part.casefold() == "images")
        beside = "/".join([*parts[:place], "labels", *parts[place + 1 :], f"{image.stem}.txt"])
        text = texts.pop(beside.casefold(), None)
        label = partial(_drawn, image, text, len(names) - 1)
        draft.cases.append(
            NewCase(name=image.stem, images=[image], label=label, part="Ts" if is_test(f"{image.folder}/") else "Tr")
        )
    left = [entry for entry in texts.values() if "labels" in entry.folder.casefold().split("/")]
    draft.problems += [f"{entry.where}: outlines without an image" for entry in left]
    if not draft.cases:
        raise source.nothing_found("folder called images")
    normalise_cases(draft)
    return draft


def _names(source: Source) -> list[str]:
    import yaml

    table = source.one(r"[^/]+\.ya?ml")
    try:
        names = (yaml.safe_load(table.text()) or {}).get("names") if table else None
    except (yaml.YAMLError, AttributeError) as error:
        raise AutosegError(f"{table.where if table else ''} is no data.yaml: {error}", "mend the file") from error
    if not names:
        raise AutosegError(f"{source.path} has no data.yaml with names", "name the classes with --labels")
    ordered = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
    return ["background", *(str(name) for name in ordered)]


def _drawn(image: Entry, text: Entry | None, classes: int) -> Label:
    shape = image_of(image).array.shape[1:]
    objects = []
    for number, line in enumerate(text.text().splitlines() if text else (), 1):
        words = line.split()
        if not words or text is None:
            continue
        try:
            value, corners = int(words[0]), np.array(words[1:], float)
        except ValueError as error:
            raise AutosegError(f"{text.where}, line {number}: not numbers", "mend the line") from error
        if len(corners) < 6 or len(corners) % 2:
            raise AutosegError(
                f"{text.where}, line {number}: {len(corners)} coordinates, an outline has at least 6", "boxes are no masks"
            )
        if not 0 <= value < classes:
            raise AutosegError(f"{text.where}, line {number}: class {value}, known are 0 to {classes - 1}", "mend data.yaml")
        objects.append((value + 1, outlines(shape, [corners.reshape(-1, 2) * (shape[1], shape[0])])))
    return painted(shape, sorted(objects, key=lambda one: -int(one[1].sum())))
