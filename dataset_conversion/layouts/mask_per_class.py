"""A folder of images, and beside it a folder of masks for each class.

Layout:

    images/<stem>.jpg      <class>/<stem>.png      <class>/<stem>_mask.png      <class>/<stem>_<class>.png

Whatever a mask marks is the class its folder is called. A class that an image does not show may have no mask there. Where
classes overlap, the one that comes later (in --labels, or in the alphabet) wins.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

from autoseg.support.extensions import READERS
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, names_given
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import classes_of
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each folder beside the images."""
    images = Images(source, options["images"]).entries
    if not images:
        raise source.nothing_found(f"images in a folder called {options['images']}")
    chosen = {entry.name for entry in images}
    masks = [entry for entry in source.entries if entry.suffix in READERS and entry.name not in chosen]
    folders = {PurePosixPath(entry.folder).name for entry in masks}
    names = names_given(options) or ["background", *sorted(folders, key=str.casefold)]
    draft = ConversionPlan(labels=names)
    values = {name.casefold(): value for value, name in enumerate(names)}
    unknown = sorted(folder for folder in folders if folder.casefold() not in values)
    draft.problems += [f"the folder {folder} is not among the classes {', '.join(names)}" for folder in unknown]
    stems = {entry.stem.casefold(): entry for entry in images}
    owned: dict[str, dict[int, list[Entry]]] = {}
    for mask in masks:
        kind = PurePosixPath(mask.folder).name.casefold()
        stem = mask.stem.casefold()
        ways = (stem, stem.removesuffix("_mask"), stem.removesuffix(f"_{kind}"))
        owner = next((way for way in ways if way in stems), None)
        if owner is None:
            draft.problems.append(f"{mask.where}: a mask without an image")
        elif kind in values:
            owned.setdefault(owner, {}).setdefault(values[kind], []).append(mask)
    for stem, image in stems.items():
        if stem not in owned:
            draft.problems.append(f"{image.where}: no mask for this image in any class")
            continue
        draft.cases.append(
            NewCase(name=image.stem, images=[image], label=partial(classes_of, dict(sorted(owned[stem].items()))))
        )
    normalise_cases(draft)
    return draft
