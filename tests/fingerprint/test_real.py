"""On real sets: thin against large, twins found, different eyes not taken for one."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.fingerprint.objects import measure_class
from autoseg.fingerprint.resemblance import compare, groups, thumbnail
from autoseg.io import read_image, read_label

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real sets are not at {DATA}")


def thickness(name, most=25):
    files = sorted((DATA / name / "masks").iterdir())[:most]
    found = [measure_class(read_label(path).array > 0)[0].thickness for path in files]
    return float(np.median([value for value in found if value]))


def twins(name):
    files = sorted((DATA / name / "images").iterdir())
    found = compare([thumbnail(read_image(path).array) for path in files])
    return [[files[place].stem for place in group] for group in groups([*found.same, *found.scene])]


def test_vessels_are_thin_and_polyps_are_not():
    assert 1 <= thickness("drive") < 5
    assert thickness("neopolyp") > 40
    assert 10 < thickness("nuclei_histology") < 30


def test_different_eyes_are_not_duplicates():
    assert twins("drive") == []
    assert twins("isic") == []


def test_frames_of_one_lesion_are_found():
    assert twins("busi") == [["malignant_005", "malignant_006", "malignant_009"], ["malignant_027", "malignant_028"]]


def test_two_moments_of_one_heart_resemble_each_other_and_no_other_heart():
    for group in twins("acdc"):
        assert len({stem.split("_")[0] for stem in group}) == 1
    assert len(twins("acdc")) >= 30
