"""Every fault of a raw dataset, in one list."""

import numpy as np
import pytest

from autoseg.fingerprint import check_dataset
from autoseg.io import RawDataset, write_image, write_label
from autoseg.support.errors import SeveralProblems
from tests.fingerprint.datasets import describe, mask, picture, raw_dataset


def test_valid_dataset_passes(tmp_path):
    check_dataset(RawDataset.open(raw_dataset(tmp_path)))


def test_all_faults_are_listed_at_once(tmp_path):
    dataset = raw_dataset(tmp_path, 7)
    describe(dataset, 7, groups={"case0": "p", "cage1": "p"})
    images, labels = dataset.raw / "imagesTr", dataset.raw / "labelsTr"
    (labels / "case0.png").unlink()
    (images / "case1_0000.png").write_bytes((images / "case1_0000.png").read_bytes()[:200])
    write_label(labels / "case2.png", np.where(mask() == 2, 7, mask()))
    write_label(labels / "case3.png", mask((60, 81)))
    write_image(images / "case4_0000.png", picture(4)[:1])
    write_label(labels / "extra.png", mask())
    (labels / "case5.png").write_bytes(b"not a mask")
    with pytest.raises(SeveralProblems) as caught:
        check_dataset(RawDataset.open(dataset), workers=2)
    lines = "\n".join(caught.value.problems)
    line = int((mask() == 2).sum())
    for part in (
        "case0: no mask",
        "case1_0000.png cannot be read",
        f"case2.png: has the value 7 ({line} pixels); declared are 0, 1, 2",
        "case3.png: 60 x 81 pixels, its image has 60 x 80",
        "case4_0000.png: 1 channels, dataset.json has 3",
        "extra.png: a mask without an image",
        "case5.png cannot be read",
        "'cage1', which does not exist",
    ):
        assert part in lines
    assert len(caught.value.problems) == 8


def test_spacing_of_image_and_mask_must_agree(tmp_path):
    dataset = raw_dataset(tmp_path, 0)
    describe(dataset, 1, channel_names={"0": "CT"}, file_ending=".nii.gz")
    from autoseg.io import Image

    for folder, spacing, write in (("imagesTr/a_0000", 1.0, write_image), ("labelsTr/a", 2.0, write_label)):
        array = np.zeros((1, 9, 9), np.float32) if write is write_image else mask()[:9, :9]
        write(dataset.raw / f"{folder}.nii.gz", array, Image(array=np.zeros((1, 9, 9)), spacing=(spacing, spacing)))
    with pytest.raises(SeveralProblems, match="spacing"):
        check_dataset(RawDataset.open(dataset))
