"""Data Science Bowl 2018: nuclei in fluorescence, bright-field and stained microscopy.

Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 16 (2019). Licence:
CC0. To be had from bbbc.broadinstitute.org/BBBC038 or the Kaggle competition data-science-bowl-2018. Layout (as in those
archives and in torch-em's loader):

    stage1_train/<id>/images/<id>.png      stage1_train/<id>/masks/<another id>.png      (one mask for each nucleus)
    stage1_test/<id>/images/<id>.png       stage1_solution.csv      ImageId, EncodedPixels, Height, Width, Usage

The solution's run lengths go down columns and count from 1. Test images without it have no masks.
"""

from __future__ import annotations

import csv
import io
from functools import partial

import numpy as np

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Options, match_files
from dataset_conversion.reading import decode_run_lengths, read_foreground
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_IMAGES = r"(?P<part>stage1_train|stage1_test)/(?P<id>[0-9a-f]+)/images/(?P=id)\.png"
_MASKS = r"(?P<part>stage1_train)/(?P<id>[0-9a-f]+)/masks/[^/]+\.png"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, nucleus; stage 1's test images are the test split."""
    plan = ConversionPlan(labels=("background", "nucleus"))
    solution = _solution(source.find_one(r"stage1_solution\.csv"))
    for item in match_files(source, _IMAGES, _MASKS, plan, needs_mask=False):
        name = item.fields["id"]
        if item.fields["part"].casefold() == "stage1_test":
            label = partial(_draw_label, solution[name]) if name in solution else None
            plan.cases.append(NewCase(name=name, images=[item.image], label=label, part="Ts"))
        elif item.masks:
            plan.cases.append(NewCase(name=name, images=[item.image], label=partial(read_foreground, item.masks)))
        else:
            plan.problems.append(f"{item.image.where}: no mask for this image")
    return plan


def _solution(table: Entry | None) -> dict[str, list[dict[str, str]]]:
    """Image -> the rows of its nuclei."""
    rows_by_image: dict[str, list[dict[str, str]]] = {}
    if table is None:
        return rows_by_image
    for row in csv.DictReader(io.StringIO(table.text())):
        if not {"ImageId", "EncodedPixels", "Height", "Width"} <= set(row):
            raise AutosegError(f"{table.where} lacks the columns ImageId, EncodedPixels, Height, Width", "fetch it again")
        rows_by_image.setdefault(row["ImageId"], []).append(row)
    return rows_by_image


def _draw_label(rows: list[dict[str, str]]) -> Label:
    shape = (int(rows[0]["Height"]), int(rows[0]["Width"]))
    union = np.zeros(shape, np.bool_)
    for row in rows:
        union |= decode_run_lengths(row["EncodedPixels"], shape)
    return Label(array=union.astype(np.uint8), spacing=None)
