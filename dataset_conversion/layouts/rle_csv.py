"""A folder of images and a table of run lengths, as Kaggle's competitions have them.

A row is an object: the image's name, pairs of start and length counted from 1 down the columns (or along rows, with --by-rows),
and perhaps a class. With --relative, a start is the number of pixels since the end of the run before, as in one competition.
Rows without runs ("" or -1) show nothing. Columns are guessed by their usual names, such as ImageId,
EncodedPixels and class; ImageId_ClassId holds both. Images that the table does not name are skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import partial

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Images, Options, label_names
from dataset_conversion.layouts.normalise_cases import normalise_cases
from dataset_conversion.reading import decode_run_lengths, paint_objects, read_image_entry
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
    table = _find_table(source, options.get("table"))
    reader = csv.DictReader(io.StringIO(table.text()))
    columns = {key: _find_column(key, reader.fieldnames or [], options.get(key), table) for key in _USUAL}
    rows = [_parse_row(row, columns) for row in reader]
    kinds = sorted({kind for _, kind, _ in rows}, key=lambda kind: (int(kind), "") if kind.isdigit() else (10**9, kind))
    names = label_names(options) or ["background", *(_name(kind) for kind in kinds)]
    plan = ConversionPlan(labels=names)
    if len(names) != len(kinds) + 1:
        plan.problems.append(f"{table.where}: {len(kinds)} classes ({', '.join(kinds)}) for {len(names) - 1} labels")
    values = {kind: value for value, kind in enumerate(kinds, 1)}
    images = Images(source, options["images"])
    runs_by_image: dict[str, list[tuple[int, str]]] = {}
    for name, kind, runs in rows:
        runs_by_image.setdefault(name, [])
        if runs.strip().casefold() not in _NOTHING:
            runs_by_image[name].append((values[kind], runs))
    for name, objects in runs_by_image.items():
        image = images.get(name)
        if image is None:
            plan.problems.append(f"{table.where}: names the image {name}, which is not in {options['images']}")
        else:
            plan.cases.append(NewCase(name=image.stem, images=[image], label=partial(_draw_label, image, objects, options)))
    unused = len(images.entries) - len(plan.cases)
    if unused > 0:
        plan.notes.append(f"{unused} images are not in the table and were skipped")
    normalise_cases(plan)
    return plan


def _find_table(source: Source, file_name: str | None) -> Entry:
    table = source.find_one(rf"(.*/)?{re.escape(file_name)}" if file_name else r".*\.csv")
    if table is None:
        raise source.layout_error(f"table {file_name or '*.csv'}")
    return table


def _find_column(key: str, columns: Sequence[str], name: str | None, table: Entry) -> str:
    """The name of a column; "" where there is none of the class."""
    if name:
        if name not in columns:
            raise AutosegError(f"{table.where} has no column {name!r}", f"it has {', '.join(columns)}")
        return name
    plain = {re.sub(r"[^a-z]", "", name.casefold()): name for name in columns}
    match = next((plain[usual] for usual in _USUAL[key] if usual in plain), "")
    if not match and key != "class_column":
        raise AutosegError(
            f"{table.where}: cannot guess the column among {', '.join(columns)}", f"give it with --{key.replace('_', '-')}"
        )
    return match


def _parse_row(row: Mapping[str, str], columns: Mapping[str, str]) -> tuple[str, str, str]:
    """Image, class and run lengths."""
    name, kind = row[columns["id_column"]], row.get(columns["class_column"]) or ""
    if not kind and re.sub(r"[^a-z]", "", columns["id_column"].casefold()) == _BOTH:
        name, _, kind = name.rpartition("_")
    return name.strip(), (kind or "foreground").strip(), row[columns["rle_column"]] or ""


def _name(kind: str) -> str:
    return f"class{kind}" if kind.isdigit() else kind


def _draw_label(image: Entry, objects: Sequence[tuple[int, str]], options: Options) -> Label:
    height, width = read_image_entry(image).array.shape[1:]
    try:
        masks = [
            (value, decode_run_lengths(runs, (height, width), not options["by_rows"], options["relative"]))
            for value, runs in objects
        ]
    except AutosegError as error:
        raise AutosegError(f"{image.where}: {error.problem}", error.remedy) from error
    return paint_objects((height, width), masks)
