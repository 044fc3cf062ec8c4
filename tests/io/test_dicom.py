"""DICOM as hospitals have it: both readers agree, frames and ultrasound spacing are read, nothing is executed or leaked."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.io import dicom, read_image, read_label, read_label_of, segmentation
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace
from dataset_conversion.run import convert
from tests.io.scans import scan

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(8)
GRAY = RNG.integers(0, 200, (40, 48)).astype(np.uint8)
COLOUR = np.kron(RNG.integers(0, 255, (10, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def through_simpleitk(path):
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]


@pytest.mark.parametrize("syntax", ["plain", "rle", "j2k", "jls", "deflated", "big endian"])
@pytest.mark.parametrize("pixels", [GRAY, GRAY.astype(np.uint16) * 20, COLOUR], ids=["gray", "gray 16", "colour"])
def test_lossless_syntaxes_give_the_stored_values(tmp_path, syntax, pixels):
    if syntax == "jls" and pixels.ndim == 3:
        pytest.skip("the encoder wants another plane order")
    path = scan(tmp_path / "a.dcm", pixels, syntax=syntax)
    array = read_image(path).array
    expected = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    assert array.dtype == pixels.dtype and np.array_equal(array, expected)


@pytest.mark.parametrize("kind", ["jpeg gray", "jpeg colour", "ybr", "palette", "monochrome1", "slope", "signed"])
def test_both_readers_agree(tmp_path, kind):
    options = {
        "jpeg gray": {"pixels": GRAY, "syntax": "jpeg"},
        "jpeg colour": {"pixels": COLOUR, "syntax": "jpeg"},
        "ybr": {"pixels": COLOUR, "photometric": "YBR_FULL"},
        "palette": {"pixels": GRAY % 16, "palette": RNG.integers(0, 256, (16, 3))},
        "monochrome1": {"pixels": GRAY.astype(np.uint16) * 16, "photometric": "MONOCHROME1", "stored": 12},
        "slope": {"pixels": GRAY, "RescaleSlope": 2, "RescaleIntercept": -100},
        "signed": {"pixels": GRAY.astype(np.int16) - 90},
    }[kind]
    path = scan(tmp_path / "a.dcm", **options)
    image = read_image(path)
    assert image.array.shape[0] == (3 if kind in ("jpeg colour", "ybr", "palette") else 1)
    assert np.abs(image.array.astype(float) - through_simpleitk(path).astype(float)).max() <= (1 if kind == "ybr" else 0)


def test_spacing_of_pixels_detectors_and_ultrasound(tmp_path):
    assert read_image(scan(tmp_path / "a.dcm", GRAY)).spacing is None
    assert read_image(scan(tmp_path / "a.dcm", GRAY, PixelSpacing=[0.5, 0.25])).spacing == (0.5, 0.25)
    assert read_image(scan(tmp_path / "a.dcm", GRAY, ImagerPixelSpacing=[0.2, 0.2])).spacing == (0.2, 0.2)
    two = scan(tmp_path / "a.dcm", GRAY, regions=[((0, 0, 5, 5), 0.5), ((0, 6, 31, 23), 0.02)])
    image = read_image(two)
    assert image.spacing == pytest.approx((0.2, 0.2)) and "largest ultrasound region" in image.notes[0]
    assert read_image(scan(tmp_path / "a.dcm", GRAY, regions=[((0, 0, 5, 5), 0.5, 4)])).spacing is None


def test_frames(tmp_path):
    frames = np.stack([GRAY, GRAY + 20, GRAY + 40])
    path = scan(tmp_path / "a.dcm", frames, syntax="rle")
    assert dicom.count_frames(path) == 3 and dicom.count_frames(tmp_path / "none.png") == 1
    assert np.array_equal(read_image(path, 2).array[0], GRAY + 40)
    with pytest.raises(AutosegError, match="3 frames"):
        read_image(path)
    with pytest.raises(AutosegError, match="no frame 3"):
        read_image(path, 3)


def test_faulty_files_are_named(tmp_path):
    path = scan(tmp_path / "a.dcm", GRAY)
    whole = path.read_bytes()
    for name, content in (("cut", whole[:-200]), ("short", whole[:140]), ("garbage", b"x" * 500)):
        bad = tmp_path / f"{name}.dcm"
        bad.write_bytes(content)
        with pytest.raises(AutosegError, match=f"{name}.dcm"):
            read_image(bad)
    del (report := pydicom.dcmread(path)).Rows, report.Columns, report.PixelData
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(AutosegError, match="holds no image"):
        read_image(tmp_path / "report.dcm")


def test_who_is_shown(tmp_path):
    path = scan(tmp_path / "a.dcm", GRAY, PatientName="Mustermann^Erika", PatientID="4711-08")
    assert dicom.patient_identifiers(path) == ("4711-08", "erika", "mustermann")
    (tmp_path / "b.png").write_bytes(b"no dicom")
    assert dicom.patient_identifiers(tmp_path / "b.png") == ()


@pytest.fixture
def mask():
    mask = np.zeros(GRAY.shape, np.uint8)
    mask[4:10, 4:20], mask[12:20, 8:30] = 1, 2
    return mask


@pytest.mark.parametrize("kind", ["gray", "colour", "mr", "video"])
def test_segmentations_come_back_and_refer_to_their_image(tmp_path, mask, kind):
    pytest.importorskip("highdicom")
    pixels = {"gray": GRAY, "colour": COLOUR, "mr": GRAY.astype(np.uint16), "video": np.stack([GRAY, GRAY, GRAY])}[kind]
    source = scan(tmp_path / "a.dcm", pixels, mr=kind == "mr", PatientName="Secret^Name", PatientID="S1")
    frame = 1 if kind == "video" else None
    segmentation.write(tmp_path / "s.dcm", mask, source, {1: "cyst", 2: "lesion"}, frame=frame)
    assert np.array_equal(read_label(tmp_path / "s.dcm").array, mask)
    written, origin = pydicom.dcmread(tmp_path / "s.dcm"), pydicom.dcmread(source)
    assert written.PatientName == "" and written.PatientID == "" and b"Secret" not in (tmp_path / "s.dcm").read_bytes()
    assert written.StudyInstanceUID == origin.StudyInstanceUID
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["cyst", "lesion"]
    (referred,) = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert (referred.ReferencedSOPInstanceUID, referred.ReferencedSOPClassUID) == (origin.SOPInstanceUID, origin.SOPClassUID)
    if kind == "video":
        group = written.PerFrameFunctionalGroupsSequence[0]
        assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 2


def test_segmentations_keep_the_patient_where_asked_and_may_be_empty(tmp_path, mask):
    pytest.importorskip("highdicom")
    source = scan(tmp_path / "a.dcm", GRAY, PatientName="Known^Name")
    segmentation.write(tmp_path / "s.dcm", mask * 0, source, {1: "cyst"}, keep_patient=True)
    assert pydicom.dcmread(tmp_path / "s.dcm").PatientName == "Known^Name"
    assert not read_label(tmp_path / "s.dcm").array.any()


def fractional(path, source, fractions):
    """A segmentation object of probabilities 0 to 255 of one segment."""
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept

    code = CodedConcept("10200004", "SCT", "Liver")
    segment = hd.seg.SegmentDescription(1, "liver", code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
    segmentation = hd.seg.Segmentation(
        [pydicom.dcmread(source)], fractions, hd.seg.SegmentationTypeValues.FRACTIONAL, [segment],
        "1.2.3.5", 1, "1.2.3.6", 1, "us", "autoseg", "1", "1", max_fractional_value=200,
    )  # fmt: skip
    segmentation.save_as(path)


def test_fractional_segmentations_are_thresholded_at_half(tmp_path):
    pytest.importorskip("highdicom")
    fractions = np.tile(np.linspace(0, 1, GRAY.shape[1], dtype=np.float32), (GRAY.shape[0], 1))
    source = scan(tmp_path / "source" / "a.dcm", GRAY.astype(np.uint16), mr=True, PatientName="A", PatientID="1")
    content = pydicom.dcmread(source)
    for name in (
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "PatientBirthDate",
        "PatientSex",
        "ReferringPhysicianName",
    ):
        setattr(content, name, "")
    content.save_as(source)
    fractional(tmp_path / "source" / "s.dcm", source, fractions)
    label = read_label(tmp_path / "source" / "s.dcm")
    assert np.array_equal(label.array, fractions >= 0.5) and "at least half" in label.notes[0]
    report = convert("dicom_seg", tmp_path / "source", Workspace(tmp_path / "root"), "Set")
    (stored,) = (report.dataset.raw / "labelsTr").iterdir()
    assert np.array_equal(read_label(stored).array, fractions >= 0.5)
    assert any("at least half" in note for note in report.notes)


def test_overlapping_segments_are_counted(tmp_path, mask):
    highdicom = pytest.importorskip("highdicom")
    source = scan(tmp_path / "a.dcm", GRAY.astype(np.uint16), mr=True)
    segmentation.write(tmp_path / "s.dcm", mask, source, {1: "cyst", 2: "lesion"})
    content = pydicom.dcmread(tmp_path / "s.dcm")
    assert read_label(tmp_path / "s.dcm").notes == () and highdicom.seg.segread(tmp_path / "s.dcm")
    frames = content.pixel_array.copy()
    frames[0] |= frames[1]
    content.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    content.save_as(tmp_path / "s.dcm")
    label = read_label(tmp_path / "s.dcm")
    assert np.array_equal(label.array, mask) and f"{(mask == 2).sum()} pixels belong to two segments" in label.notes[0]


def written_segmentation(tmp_path, mask):
    """An image with a position, its segmentation object, and the content of the object."""
    pytest.importorskip("highdicom")
    source = scan(tmp_path / "a.dcm", GRAY.astype(np.uint16), mr=True)
    segmentation.write(tmp_path / "s.dcm", mask, source, {1: "cyst", 2: "lesion"})
    return source, pydicom.dcmread(tmp_path / "s.dcm")


def test_a_mirrored_segmentation_is_brought_onto_its_image(tmp_path, mask):
    source, content = written_segmentation(tmp_path, mask)
    image = read_image(source)
    assert read_label(tmp_path / "s.dcm").geometry == image.geometry
    content.PixelData = np.packbits(content.pixel_array[..., ::-1].ravel(), bitorder="little").tobytes()
    content.save_as(tmp_path / "s.dcm")
    assert np.array_equal(read_label_of(tmp_path / "s.dcm", [source]).array, mask[:, ::-1])
    shared = content.SharedFunctionalGroupsSequence[0]
    orientation = [float(one) for one in pydicom.dcmread(source).ImageOrientationPatient]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-one for one in orientation[:3]] + orientation[3:]
    last_column = np.array(image.geometry.origin) + np.array(orientation[:3]) * image.spacing[1] * (mask.shape[1] - 1)
    for group in content.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient = [float(one) for one in last_column]
    content.save_as(tmp_path / "s.dcm")
    label = read_label_of(tmp_path / "s.dcm", [source])
    assert np.array_equal(label.array, mask) and "columns mirrored" in label.notes[0]


def test_segments_in_different_planes_are_no_mask_of_one_image(tmp_path, mask):
    _, content = written_segmentation(tmp_path, mask)
    position = content.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], float(position.ImagePositionPatient[2]) + 5]
    content.save_as(tmp_path / "s.dcm")
    with pytest.raises(AutosegError, match="masks of several images"):
        read_label(tmp_path / "s.dcm")
