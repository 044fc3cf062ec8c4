"""DICOM: object x rescale x photometric x numbers x transfer syntax, against the tags, pydicom and SimpleITK."""

import numpy as np
import pytest

from autoseg.io import read_image
from autoseg.support.errors import AutosegError
from tests.io.dicom_matrix import (
    KINDS,
    ORIENTATION,
    POSITION,
    SPACING,
    SYNTAXES,
    expected_values,
    special_kinds,
    stored_values,
    without_pydicom,
    write,
)

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_values_spacing_and_position_are_those_of_the_frame(tmp_path, syntax):
    for kind in (kind for kind in KINDS if kind.syntax == syntax):
        path = write(tmp_path / "a.dcm", kind)
        if not syntax.startswith("jpeg lossless"):
            assert np.array_equal(pydicom.dcmread(path).pixel_array, stored_values(kind)), str(kind)
        for frame in range(kind.frames):
            image = read_image(path, frame if kind.frames > 1 else None)
            assert np.array_equal(image.array[0].astype(np.float32), expected_values(kind, frame)), (str(kind), frame)
            place = (*POSITION[:2], POSITION[2] + 2 * frame)
            assert image.spacing == SPACING and image.geometry.origin == place, str(kind)
            assert np.allclose(np.reshape(image.geometry.direction, (3, 3))[:, :2].T.ravel(), ORIENTATION), str(kind)
            assert image.geometry.spacing == (*reversed(SPACING), 2.0) and image.geometry.placed
            assert bool(image.notes) == (kind.photometric == "MONOCHROME1")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_without_pydicom_everything_is_the_same_or_the_file_is_refused(tmp_path, syntax):
    for kind in (kind for kind in KINDS if kind.syntax == syntax):
        path = write(tmp_path / "a.dcm", kind)
        if kind.frames > 1 or (kind.numbers, kind.photometric) == ("12 of 16 bits, signed", "MONOCHROME1"):
            with pytest.raises(AutosegError, match=r"frame|slice|autoseg\[dicom\]"):
                without_pydicom(path)
            continue
        image = without_pydicom(path)
        assert np.array_equal(image.array[0].astype(np.float32), expected_values(kind, 0)), str(kind)
        assert image.spacing == pytest.approx(SPACING) and image.geometry.origin == pytest.approx(POSITION), str(kind)
        assert np.allclose(np.reshape(image.geometry.direction, (3, 3))[:, :2].T.ravel(), ORIENTATION), str(kind)


def test_other_kinds_are_read_or_refused_and_never_differently_without_pydicom(tmp_path):
    for title, (path, expected) in special_kinds(tmp_path).items():
        if expected is None:
            for read in (read_image, without_pydicom):
                with pytest.raises(AutosegError):
                    read(path)
            continue
        assert np.array_equal(read_image(path).array, expected), title
        try:
            other = without_pydicom(path).array
        except AutosegError as error:
            assert "autoseg[dicom]" in error.remedy, title
        else:
            assert np.allclose(other.astype(float), expected, atol=1 if "YBR" in title else 0), title
