"""A folder of images, and next to it a folder of masks for each class.

Layout:

    images/<stem>.jpg      <class>/<stem>.png      <class>/<stem>_mask.png      <class>/<stem>_<class>.png

Every value but 0 of a mask is the class of its folder. A class that an image does not show needs no mask. Where classes
overlap, the later one (in --labels, or in alphabetical order) wins.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

from autoseg.support.extensions import READERS
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, label_names
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import merge_class_masks
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each folder next to the images."""
    images = Images(source, options["images"]).entries
    if not images:
        raise source.layout_error(f"images in a folder called {options['images']}")
    image_names = {entry.name for entry in images}
    masks = [entry for entry in source.entries if entry.suffix in READERS and entry.name not in image_names]
    folders = {PurePosixPath(entry.folder).name for entry in masks}
    names = label_names(options) or ["background", *sorted(folders, key=str.casefold)]
    plan = ConversionPlan(labels=names)
    values = {name.casefold(): value for value, name in enumerate(names)}
    unknown = sorted(folder for folder in folders if folder.casefold() not in values)
    plan.problems += [f"the folder {folder} is not among the classes {', '.join(names)}" for folder in unknown]
    stems = {entry.stem.casefold(): entry for entry in images}
    masks_by_stem: dict[str, dict[int, list[Entry]]] = {}
    for mask in masks:
        kind = PurePosixPath(mask.folder).name.casefold()
        stem = mask.stem.casefold()
        candidates = (stem, stem.removesuffix("_mask"), stem.removesuffix(f"_{kind}"))
        image_stem = next((way for way in candidates if way in stems), None)
        if image_stem is None:
            plan.problems.append(f"{mask.where}: a mask without an image")
        elif kind in values:
            masks_by_stem.setdefault(image_stem, {}).setdefault(values[kind], []).append(mask)
    for stem, image in stems.items():
        if stem not in masks_by_stem:
            plan.problems.append(f"{image.where}: no mask for this image in any class")
            continue
        plan.cases.append(
            NewCase(
                name=image.stem, images=[image], label=partial(merge_class_masks, dict(sorted(masks_by_stem[stem].items())))
            )
        )
    normalise_cases(plan)
    return plan
