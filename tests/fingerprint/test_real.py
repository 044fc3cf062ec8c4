"""Real datasets: thickness, near duplicates, modality."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.fingerprint import fingerprint_dataset
from autoseg.fingerprint.appearance import measure_brightness, overlay_fraction
from autoseg.fingerprint.near_duplicates import compare, connected_groups, thumbnail
from autoseg.fingerprint.objects import measure_class
from autoseg.io import read_image, read_label, write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.workspace import Workspace

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real sets are not at {DATA}")


def thickness(name, most=25):
    files = sorted((DATA / name / "masks").iterdir())[:most]
    values = [measure_class(read_label(path).array > 0)[0].thickness for path in files]
    return float(np.median([value for value in values if value]))


def similar_groups(name):
    files = sorted((DATA / name / "images").iterdir())
    values = compare([thumbnail(read_image(path).array) for path in files])
    return [[files[place].stem for place in group] for group in connected_groups([*values.same, *values.scene])]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("busi", "ultrasound"), ("acdc", "mr"), ("nuclei_histology", "microscopy"), ("isic", "colour"), ("drive", "colour")],
)
def test_modality_from_values_alone(name, expected, tmp_path):
    """Names without information: only values, channels and objects are left."""
    files = sorted((DATA / name / "images").iterdir())[:20]
    highest = max(int(read_label(path).array.max()) for path in (DATA / name / "masks").iterdir())
    first = read_image(files[0]).array
    channels = {"0": "R", "1": "G", "2": "B"} if len(first) == 3 else {"0": "image"}
    labels = {"background": 0, **{f"thing{value}": value for value in range(1, highest + 1)}}
    dataset = Workspace(tmp_path).new_dataset(501, "Set")
    for path in files:
        write_image(dataset.raw / "imagesTr" / f"{path.stem}_0000.png", read_image(path).array)
        write_label(dataset.raw / "labelsTr" / f"{path.stem}.png", read_label(DATA / name / "masks" / f"{path.stem}.png").array)
    write_description(
        dataset.description, DatasetSpec(channel_names=channels, labels=labels, numTraining=len(files), file_ending=".png")
    )
    assert fingerprint_dataset(dataset).modality == expected


def test_text_in_colonoscopy_corners_is_an_overlay():
    fractions = []
    for path in sorted((DATA / "neopolyp" / "images").iterdir())[:10]:
        planes, mask = list(read_image(path).array), read_label(DATA / "neopolyp" / "masks" / f"{path.stem}.png").array
        fractions.append(overlay_fraction(planes, 255.0, measure_brightness(planes), mask > 0))
    assert min(fractions) > 5e-4 and max(fractions) < 0.03


def test_vessels_are_thin_and_polyps_thick():
    assert 1 <= thickness("drive") < 5
    assert thickness("neopolyp") > 40
    assert 10 < thickness("nuclei_histology") < 30


def test_different_eyes_are_not_duplicates():
    assert similar_groups("drive") == []
    assert similar_groups("isic") == []


def test_frames_of_one_lesion_are_similar():
    assert similar_groups("busi") == [["malignant_005", "malignant_006", "malignant_009"], ["malignant_027", "malignant_028"]]


def test_frames_of_one_heart_are_similar_to_no_other_heart():
    for group in similar_groups("acdc"):
        assert len({stem.split("_")[0] for stem in group}) == 1
    assert len(similar_groups("acdc")) >= 30
