"""NIfTI, MetaImage and NRRD: number formats, axes and headers, against nibabel; what SimpleITK misreads is refused."""

import numpy as np
import pytest

from autoseg.io import read_image, read_label
from autoseg.support.errors import AutosegError
from dataset_conversion.source import Source
from dataset_conversion.volumes import Volumes
from tests.io.nifti_matrix import AFFINE, kinds

nibabel = pytest.importorskip("nibabel")


def test_every_kind_is_read_as_its_header_says_or_refused_by_name(tmp_path):
    for kind in kinds(tmp_path):
        if kind.expected is None:
            for read in (read_image, read_label):
                with pytest.raises(AutosegError, match=kind.words if read is read_image else kind.path.name) as caught:
                    read(kind.path)
                assert "damaged" not in str(caught.value), kind.title
            continue
        image = read_image(kind.path)
        assert np.array_equal(image.array, kind.expected), kind.title
        assert bool(image.notes) == kind.noted, (kind.title, image.notes)
        if len(image.array) == 1:
            assert np.array_equal(read_label(kind.path).array, kind.expected[0]), kind.title


def test_values_and_spacing_are_those_of_nibabel(tmp_path):
    for kind in kinds(tmp_path):
        if kind.expected is None or not kind.path.name.startswith("n") or "x uint8" in kind.types:
            continue
        theirs, image = nibabel.load(kind.path), read_image(kind.path)
        values = np.moveaxis(theirs.get_fdata().reshape(*theirs.shape[:2], -1), -1, 0).swapaxes(1, 2)
        assert np.array_equal(image.array, values), kind.title
        assert image.spacing == pytest.approx(theirs.header.get_zooms()[1::-1]), kind.title
        assert len(image.geometry.size) <= 3 and image.geometry.placed == (kind.title != "without qform and sform")


def test_volumes_that_are_cut_into_slices_are_checked_as_well(tmp_path):
    values = np.zeros((5, 6, 4), np.float32)
    values[1, 1, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    with Source(tmp_path) as source, pytest.raises(AutosegError, match="not finite"):
        Volumes().array(source.entries[0])
