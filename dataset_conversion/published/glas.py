"""GlaS: glands in stained colon tissue, 165 images of 16 sections of bowel cancer.

Sirinukunwattana et al.: Gland Segmentation in Colon Histology Images: The GlaS Challenge Contest. Medical Image Analysis 35
(2017). For research; to be had from warwick.ac.uk/fac/cross_fac/tia/data/glascontest. Layout (as in that archive and in
torch-em's loader):

    Warwick QU Dataset (Released 2016_07_08)/train_1.bmp      train_1_anno.bmp      testA_1.bmp      testB_1.bmp      Grade.csv

Masks number the glands. `Grade.csv` has the columns name, patient ID and grade (GlaS), with blanks around.
"""

from __future__ import annotations

import csv
import io

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES, _MASKS = r"(?P<id>(?P<split>train|testA|testB)_\d+)\.bmp", r"(?P<id>(train|testA|testB)_\d+)_anno\.bmp"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, gland; groups by patient; tests A and B are the test split."""
    table = source.find_one(r"Grade\.csv")
    rows: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(io.StringIO(table.text())) if table else ():
        row = {key.strip(): (value or "").strip() for key, value in line.items() if key}
        rows[row.get("name", "")] = row
    plan = binary_plan(
        source, _IMAGES, _MASKS, "gland",
        group=lambda fields: f"patient{number}" if (number := rows.get(fields["id"], {}).get("patient ID")) else "",
        test=lambda fields: fields["split"].casefold().startswith("test"),
        attributes=lambda fields: {"grade": rows.get(fields["id"], {}).get("grade (GlaS)", "")},
        instances=True,
    )  # fmt: skip
    if table is None:
        plan.notes.append("there is no Grade.csv with the patients: images of one patient may be on both sides of a split")
    return plan
