"""A folder of images and a table of run lengths, as Kaggle's competitions have them.

A row is an object: the image's name, pairs of start and length counted from 1 down the columns (or along rows, with --by-rows),
and perhaps a class. Rows without runs ("" or -1) show nothing. Columns are guessed by their usual names, such as ImageId,
EncodedPixels and class; ImageId_ClassId holds both. Images that the table does not name are passed over.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import partial

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, names_given
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import image_of, painted, run_lengths
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_BOTH = "imageidclassid"
_USUAL = {
    "id_column": (_BOTH, "imageid", "id", "image", "img", "imagename", "filename", "file"),
    "rle_column": ("encodedpixels", "rle", "runlengths", "segmentation", "encoding", "maskrle", "mask", "annotation"),
    "class_column": ("class", "classid", "label", "category", "classname"),
}
_NOTHING = ("", "-1", "nan")


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each value of the class column in its order, named by --labels; without one, `foreground`."""
    table = _table(source, options.get("table"))
    reader = csv.DictReader(io.StringIO(table.text()))
    columns = {key: _column(key, reader.fieldnames or [], options.get(key), table) for key in _USUAL}
    rows = [_row(row, columns) for row in reader]
    kinds = sorted({kind for _, kind, _ in rows}, key=lambda kind: (int(kind), "") if kind.isdigit() else (10**9, kind))
    names = names_given(options) or ["background", *(_name(kind) for kind in kinds)]
    draft = ConversionPlan(labels=names)
    if len(names) != len(kinds) + 1:
        draft.problems.append(f"{table.where}: {len(kinds)} classes ({', '.join(kinds)}) for {len(names) - 1} labels")
    values = {kind: value for value, kind in enumerate(kinds, 1)}
    images = Images(source, options["images"])
    drawn: dict[str, list[tuple[int, str]]] = {}
    for name, kind, runs in rows:
        drawn.setdefault(name, [])
        if runs.strip().casefold() not in _NOTHING:
            drawn[name].append((values[kind], runs))
    for name, objects in drawn.items():
        image = images.get(name)
        if image is None:
            draft.problems.append(f"{table.where}: names the image {name}, which is not in {options['images']}")
        else:
            draft.cases.append(
                NewCase(name=image.stem, images=[image], label=partial(_drawn, image, objects, not options["by_rows"]))
            )
    left = len(images.entries) - len(draft.cases)
    if left > 0:
        draft.notes.append(f"{left} images are not in the table and were passed over")
    normalise_cases(draft)
    return draft


def _table(source: Source, wanted: str | None) -> Entry:
    found = source.one(rf"(.*/)?{re.escape(wanted)}" if wanted else r".*\.csv")
    if found is None:
        raise source.nothing_found(f"table {wanted or '*.csv'}")
    return found


def _column(key: str, there: Sequence[str], given: str | None, table: Entry) -> str:
    """The name of a column; "" where there is none of the class."""
    if given:
        if given not in there:
            raise AutosegError(f"{table.where} has no column {given!r}", f"it has {', '.join(there)}")
        return given
    plain = {re.sub(r"[^a-z]", "", name.casefold()): name for name in there}
    found = next((plain[usual] for usual in _USUAL[key] if usual in plain), "")
    if not found and key != "class_column":
        raise AutosegError(
            f"{table.where}: which of the columns {', '.join(there)} is it?", f"say it with --{key.replace('_', '-')}"
        )
    return found


def _row(row: Mapping[str, str], columns: Mapping[str, str]) -> tuple[str, str, str]:
    """Image, class and run lengths."""
    name, kind = row[columns["id_column"]], row.get(columns["class_column"]) or ""
    if not kind and re.sub(r"[^a-z]", "", columns["id_column"].casefold()) == _BOTH:
        name, _, kind = name.rpartition("_")
    return name.strip(), (kind or "foreground").strip(), row[columns["rle_column"]] or ""


def _name(kind: str) -> str:
    return f"class{kind}" if kind.isdigit() else kind


def _drawn(image: Entry, objects: Sequence[tuple[int, str]], by_columns: bool) -> Label:
    height, width = image_of(image).array.shape[1:]
    try:
        masks = [(value, run_lengths(runs, (height, width), by_columns)) for value, runs in objects]
    except AutosegError as error:
        raise AutosegError(f"{image.where}: {error.problem}", error.remedy) from error
    return painted((height, width), masks)
