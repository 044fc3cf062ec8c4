"""NIfTI, MetaImage, NRRD, DICOM: values, spacing, and masks that lie where the image lies."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.io import mask_ending, read_case, read_image, read_label, write_image, write_label
from autoseg.support.errors import AutosegError

RNG = np.random.default_rng(0)
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def slice_file(path, values, spacing=(0.5, 0.8, 3.0), direction=TURNED):
    image = sitk.GetImageFromArray(values[None])
    image.SetSpacing(spacing)
    image.SetOrigin((7.0, -3.0, 11.0))
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def dicom_file(path, values, **tags):
    image = sitk.GetImageFromArray(values)
    known = {"Modality": "0008|0060", "PatientName": "0010|0010", "Photometric": "0028|0004", "Spacing": "0028|0030"}
    known |= {"Slope": "0028|1053", "Intercept": "0028|1052"}
    for name, value in tags.items():
        image.SetMetaData(known[name], value)
    if "Spacing" in tags:
        row, column = (float(part) for part in tags["Spacing"].split("\\"))
        image.SetSpacing((column, row, 1.0) if values.ndim == 3 else (column, row))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_values_and_spacing(tmp_path, suffix):
    values = RNG.integers(-900, 900, (6, 9), dtype=np.int16)
    slice_file(tmp_path / f"a{suffix}", values)
    image = read_image(tmp_path / f"a{suffix}")
    assert image.array.dtype == np.float32 and (image.array == values[None]).all()
    assert image.spacing == pytest.approx((0.8, 0.5))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_mask_has_the_geometry_of_its_image(tmp_path, suffix):
    slice_file(tmp_path / f"a{suffix}", RNG.integers(0, 900, (6, 9), dtype=np.uint16))
    image = read_image(tmp_path / f"a{suffix}")
    classes = RNG.integers(0, 3, (6, 9))
    write_label(tmp_path / f"m{suffix}", classes, image)
    before, after = (sitk.ReadImage(str(tmp_path / f"{name}{suffix}")) for name in "am")
    assert after.GetSize() == before.GetSize() == (9, 6, 1)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, what)() == pytest.approx(getattr(before, what)())
    label = read_label(tmp_path / f"m{suffix}")
    assert (label.array == classes).all() and label.array.dtype == np.uint8
    assert label.spacing == pytest.approx(image.spacing)


def test_the_nifti_affine_is_the_same_for_another_library(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0.0, -0.7, 0.0, 5.0], [0.9, 0.0, 0.0, -8.0], [0.0, 0.0, 4.0, 2.0], [0, 0, 0, 1]])
    values = RNG.integers(0, 900, (9, 6, 1)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert (image.array[0] == values[..., 0].T).all()
    assert image.spacing == pytest.approx((0.7, 0.9))
    write_label(tmp_path / "m.nii.gz", image.array[0] > 450, image)
    mask = nibabel.load(tmp_path / "m.nii.gz")
    assert np.allclose(mask.affine, affine, atol=1e-5)
    assert (np.asarray(mask.dataobj) == (values > 450)).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_single_slice_may_lie_along_any_axis(tmp_path, axis):
    values = RNG.integers(0, 255, (6, 9), dtype=np.uint8)
    volume = sitk.GetImageFromArray(np.expand_dims(values, axis))
    volume.SetSpacing((2.0, 3.0, 5.0))
    sitk.WriteImage(volume, str(tmp_path / "a.nii.gz"))
    image = read_image(tmp_path / "a.nii.gz")
    spacings = [(5.0, 3.0, 2.0)[i] for i in range(3) if i != axis]
    assert (image.array == values[None]).all() and image.spacing == pytest.approx(tuple(spacings))
    write_label(tmp_path / "m.nii.gz", values > 9, image)
    assert sitk.ReadImage(str(tmp_path / "m.nii.gz")).GetSize() == volume.GetSize()


def test_flat_and_colour_files(tmp_path):
    pixels = RNG.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    flat = sitk.GetImageFromArray(pixels, isVector=True)
    flat.SetSpacing((0.5, 0.25))
    sitk.WriteImage(flat, str(tmp_path / "a.mha"))
    image = read_image(tmp_path / "a.mha")
    assert (image.array == pixels.transpose(2, 0, 1)).all() and image.spacing == (0.25, 0.5)
    write_image(tmp_path / "b.nrrd", image.array, image)
    assert (read_image(tmp_path / "b.nrrd").array == image.array).all()
    with pytest.raises(AutosegError, match="3 channels"):
        read_label(tmp_path / "a.mha")


def test_volumes_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 6, 9), np.uint8)), str(tmp_path / "a.nii.gz"))
    with pytest.raises(AutosegError, match=r"a\.nii\.gz is a volume of 9 x 6 x 4"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".dcm"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    slice_file(path, RNG.integers(0, 900, (50, 50), dtype=np.uint16), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AutosegError, match=f"scan{suffix}"):
        read_image(path)


def test_dicom_slope_spacing_and_modality(tmp_path):
    stored = RNG.integers(0, 2000, (6, 9), dtype=np.int16)
    dicom_file(tmp_path / "a.dcm", stored - 1024, Modality="CT", Spacing="0.8\\0.5", Slope="1", Intercept="-1024")
    image = read_image(tmp_path / "a.dcm")
    assert image.array.dtype == np.float32 and (image.array[0] == stored - 1024.0).all()
    assert image.spacing == pytest.approx((0.8, 0.5))


def test_dicom_without_spacing_has_none_and_needs_no_suffix(tmp_path):
    stored = RNG.integers(0, 200, (6, 9), dtype=np.uint8)
    dicom_file(tmp_path / "a.dcm", stored, Modality="US")
    plain = tmp_path / "IM0001"
    plain.write_bytes((tmp_path / "a.dcm").read_bytes())
    image = read_image(plain)
    assert (image.array == stored[None]).all() and image.spacing is None


def test_monochrome1_is_turned_to_bright_is_high(tmp_path):
    stored = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    dicom_file(tmp_path / "a.dcm", stored)
    data = (tmp_path / "a.dcm").read_bytes()
    assert data.count(b"MONOCHROME2 ") == 1
    (tmp_path / "b.dcm").write_bytes(data.replace(b"MONOCHROME2 ", b"MONOCHROME1 "))
    image = read_image(tmp_path / "b.dcm")
    assert (image.array[0] == 255 - stored).all() and "MONOCHROME1" in image.notes[0]


def test_no_patient_tag_reaches_a_mask(tmp_path):
    dicom_file(tmp_path / "a.dcm", RNG.integers(0, 200, (6, 9), dtype=np.uint8), PatientName="SECRET^NAME", Spacing="0.8\\0.5")
    image = read_image(tmp_path / "a.dcm")
    assert mask_ending(".dcm") == ".nii.gz"
    for ending in (".nii", ".mha", ".nrrd"):
        write_label(tmp_path / f"m{ending}", image.array[0] > 100, image)
        assert b"SECRET" not in (tmp_path / f"m{ending}").read_bytes()
        assert read_label(tmp_path / f"m{ending}").spacing == pytest.approx((0.8, 0.5))


def test_channel_files_are_stacked_and_must_agree(tmp_path):
    for name, size, spacing in (("a", (6, 9), 1.0), ("b", (6, 9), 1.0), ("c", (5, 9), 1.0), ("d", (6, 9), 2.0)):
        slice_file(tmp_path / f"{name}.nii.gz", np.full(size, ord(name), np.uint8), spacing=(spacing, 1.0, 1.0))
    paths = {name: tmp_path / f"{name}.nii.gz" for name in "abcd"}
    case = read_case([paths["a"], paths["b"]])
    assert case.array.shape == (2, 6, 9) and [int(plane[0, 0]) for plane in case.array] == [97, 98]
    for other, word in (("c", "5 x 9"), ("d", "spacing")):
        with pytest.raises(AutosegError, match=word):
            read_case([paths["a"], paths[other]])
