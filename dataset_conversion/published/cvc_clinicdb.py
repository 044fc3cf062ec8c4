"""CVC-ClinicDB: 612 frames with polyps from 29 (some count 31) colonoscopy sequences.

Bernal et al.: WM-DOVA maps for accurate polyp highlighting in colonoscopy. Computerized Medical Imaging and Graphics 43
(2015). For research; to be had from polyp.grand-challenge.org/CVCClinicDB. Layout (as public training code has it):

    Original/<number>.tif      Ground Truth/<number>.tif      (a second copy as PNG/Original/<number>.png may be there)
    metadata.csv               (in some mirrors) with the columns sequence_id and png_image_path

Where `metadata.csv` is there, frames of one sequence are one group.
"""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"Original/(?P<id>\d+)\.{}"
_MASKS = r"Ground ?Truth/(?P<id>\d+)\.{}"
_ALONE = "there is no metadata.csv with the sequences: frames of one sequence may be on both sides of a split"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, polyp; grouped by sequence if metadata.csv exists."""
    suffix = "tif" if source.find(_IMAGES.format("tif")) else "png"
    table = source.find_one(r"metadata\.csv")
    rows = list(csv.DictReader(io.StringIO(table.text()))) if table else []
    sequences = {PurePosixPath(row["png_image_path"]).stem: f"sequence{row['sequence_id'].strip()}" for row in rows}
    plan = binary_plan(
        source, _IMAGES.format(suffix), _MASKS.format(suffix), "polyp", group=lambda fields: sequences.get(fields["id"], "")
    )
    if not sequences:
        plan.notes.append(_ALONE)
    return plan
