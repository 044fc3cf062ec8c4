"""Pascal VOC's layout for segmentation, as CVAT and others export it.

Everingham et al.: The PASCAL Visual Object Classes Challenge. IJCV 111 (2015). Layout:

    JPEGImages/<id>.jpg      SegmentationClass/<id>.png      ImageSets/Segmentation/{train,val,trainval,test}.txt
    labelmap.txt             (CVAT) name:red,green,blue::

Masks are palette PNGs, whose indices are the classes, or coloured ones with a `labelmap.txt`. Index 255, or the colour
(224, 224, 192), is void: it becomes the ignore label. Images that no list names are skipped; those of test.txt are test
cases.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Options, label_names, match_files
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import Colour, read_image_entry, read_label_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_IMAGES, _MASKS = r"JPEGImages/(?P<id>[^/]+)\.(jpe?g|png|bmp|tiff?)", r"SegmentationClass/(?P<id>[^/]+)\.png"
_VOID, _VOID_COLOUR = 255, (224, 224, 192)


def find(source: Source, options: Options) -> ConversionPlan:
    """Classes of labelmap.txt, or --labels by index."""
    colours = _colours(source.find_one(r"labelmap\.txt"))
    names = label_names(options) or ["background", *(name for name in colours if name.casefold() != "background")]
    if len(names) < 2:
        raise AutosegError(f"{source.path} has no labelmap.txt that names the classes", "name them with --labels")
    plan = ConversionPlan(labels=names)
    items = match_files(source, _IMAGES, _MASKS, plan, needs_mask=False)
    listed = {part: _listed_ids(source, part) for part in ("train", "val", "trainval", "test")}
    every = set().union(*listed.values())
    skipped = 0
    for item in items:
        name = item.fields["id"]
        if (every and name not in every) or (not every and not item.masks):
            skipped += 1
            continue
        test = name in listed["test"]
        if not item.masks and not test:
            plan.problems.append(f"{item.image.where}: no mask for this image")
            continue
        label = None
        if item.masks:
            mask = item.masks[0]
            label = partial(_by_colour, mask, colours, names) if colours else partial(_by_index, mask, len(names))
            plan.ignore = plan.ignore or _has_void(mask, bool(colours))
        plan.cases.append(NewCase(name=name, images=[item.image], label=label, part="Ts" if test else "Tr"))
    if skipped:
        plan.notes.append(f"{skipped} images without a segmentation, or in no list, were skipped")
    normalise_cases(plan)
    return plan


def _colours(table: Entry | None) -> dict[str, Colour]:
    """Name -> colour."""
    colours: dict[str, Colour] = {}
    for line in table.text().splitlines() if table else ():
        name, _, rest = line.partition(":")
        parts = rest.partition(":")[0].split(",")
        if not line.startswith("#") and len(parts) == 3 and all(part.strip().isdigit() for part in parts):
            red, green, blue = (int(part) for part in parts)
            colours[name.strip()] = (red, green, blue)
    return colours


def _listed_ids(source: Source, part: str) -> set[str]:
    listing = source.find_one(rf"ImageSets/Segmentation/{part}\.txt")
    return {line.split()[0] for line in listing.text().splitlines() if line.strip()} if listing else set()


def _has_void(mask: Entry, by_colour: bool) -> bool:
    """Whether a mask holds void pixels; False for an unreadable mask, which is reported later."""
    try:
        if by_colour:
            return bool((read_image_entry(mask).array == np.array(_VOID_COLOUR)[:, None, None]).all(0).any())
        return bool((read_label_entry(mask).array == _VOID).any())
    except AutosegError:
        return False


def _by_index(mask: Entry, void: int) -> Label:
    values = read_label_entry(mask).array
    highest = int(values[values != _VOID].max(initial=0))
    if highest >= void:
        raise AutosegError(f"{mask.where}: holds the value {highest}, but only {void} classes are named", "name all of them")
    return Label(array=np.where(values == _VOID, void, values).astype(np.uint8), spacing=None)


def _by_colour(mask: Entry, colours: dict[str, Colour], names: list[str]) -> Label:
    """Exact colours: PNG is lossless, so any other colour is an error."""
    pixels = read_image_entry(mask).array
    values = {name.casefold(): value for value, name in enumerate(names)}
    ids = np.full(pixels.shape[1:], 255, np.uint8)
    for name, colour in {**colours, "": _VOID_COLOUR}.items():
        value = values.get(name.casefold(), 0) if name else len(names)
        ids[(pixels == np.array(colour)[:, None, None]).all(0)] = value
    unknown = ids == 255
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        shown = tuple(int(part) for part in pixels[:, row, column])
        raise AutosegError(f"{mask.where}: {int(unknown.sum())} pixels of colours like {shown}", "add it to labelmap.txt")
    return Label(array=ids, spacing=None)
