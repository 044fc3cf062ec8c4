"""Reads and writes masks as DICOM-SEG objects through highdicom, which hospital archives store with the images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import autoseg
import autoseg.io.dicom as dicom
from autoseg.io.types import UNREADABLE, Array, Label, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write

if TYPE_CHECKING:
    from pydicom import Dataset

# Attributes that the standard requires; empty if the source lacks them or they are to be removed.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
# All that a segmentation without identity takes from its image: what it refers to, and geometry. These hold numbers and UIDs;
# every other attribute, private ones included, stays behind, whatever it is called.
_ALLOWED = frozenset((
    "SOPClassUID", *_IDENTIFIERS, "FrameOfReferenceUID",
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "ImageOrientationSlide", "PlanePositionSlideSequence",
    "XOffsetInSlideCoordinateSystem", "YOffsetInSlideCoordinateSystem", "ZOffsetInSlideCoordinateSystem",
    "RowPositionInTotalImagePixelMatrix", "ColumnPositionInTotalImagePixelMatrix", "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns", "TotalPixelMatrixOriginSequence",
))  # fmt: skip
_OWN_CODES = "99AUTOSEG"
FRACTIONAL_NOTE = "fractional segmentation: objects are pixels of at least half the highest value"
_ONE_IMAGE = "1.2.840.10008.5.1.4.1.1.7"


def available() -> bool:
    """Whether highdicom is installed; it is not imported for this."""
    return importlib.util.find_spec("highdicom") is not None


def is_segmentation(path: Path) -> bool:
    """Whether a DICOM file is a segmentation object."""
    return str(dicom.header(path).get("SOPClassUID", "")) == dicom.SEGMENTATION


def write(
    path: Path, mask: Array, source: Path, names: Mapping[int, str], *, frame: int | None = None, keep_patient: bool = False
) -> None:
    """A label map (H, W) of the DICOM file `source` as a segmentation object that refers to it.

    frame: the one the mask belongs to, if the source has several. names: label value -> name of the segment; each
    value becomes a segment, 1, 2, ... in the order of the values. Nothing of patient, study, trial and equipment is copied
    unless keep_patient; the UIDs of study, series and image stay, since an archive needs them to find the image. Raises
    AutosegError if the source lacks a required attribute.
    """
    import highdicom as hd

    tags = _source_header(source, frame, keep_patient)
    values = sorted(names)
    try:
        segmentation = hd.seg.Segmentation(
            source_images=[tags],
            pixel_array=np.searchsorted([0, *values], mask).astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=[_description(number, names[value]) for number, value in enumerate(values, 1)],
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            content_label="AUTOSEG",
            manufacturer="autoseg",
            manufacturer_model_name="autoseg",
            software_versions=autoseg.__version__,
            device_serial_number="0",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AutosegError(f"no DICOM-SEG can be made for {source}: {error}", "write PNG masks instead") from error
    if frame is not None:
        _set_references(segmentation, str(dicom.header(source).SOPClassUID), frame)
    with atomic_write(path) as temporary:
        segmentation.save_as(temporary)


def read(path: Path) -> Label:
    """The label map of a segmentation object of one image: segment numbers as values, later segments over earlier ones.

    Probabilities of a fractional object are thresholded at half, with a note. spacing and geometry: of its frames. Raises
    AutosegError if it belongs to several images.
    """
    import pydicom

    try:
        tags = pydicom.dcmread(path)
        pixels = tags.pixel_array
        frames = pixels if pixels.ndim == 3 else pixels[None]
        numbers = _segment_numbers(tags, len(frames))
        is_object, notes = _threshold(tags)
        places = [dicom.frame_geometry(dicom.FrameTags(tags, frame), frames.shape[1:]) for frame in range(len(frames))]
    except MemoryError:
        raise
    except Exception as error:  # As in `dicom.header`: pydicom and its decoders raise many things.
        raise AutosegError(f"{path} cannot be read as a segmentation: {error}", UNREADABLE) from error
    spacing, geometry, _ = places[0]
    if len(set(numbers)) < len(numbers) or any(place[1] != geometry for place in places):
        raise AutosegError(f"{path} holds the masks of several images", "save each one as a file of its own")
    labels = np.zeros(frames.shape[1:], np.uint16)
    overlap = np.zeros(frames.shape[1:], np.bool_)
    for number, frame in sorted(zip(numbers, frames, strict=True), key=lambda pair: pair[0]):
        inside = is_object(frame)
        overlap |= inside & (labels > 0)
        labels = np.where(inside, frame if number == 0 else number, labels).astype(np.uint16)
    if overlap.any():
        notes += (f"{int(overlap.sum())} pixels belong to two segments; the later one was kept",)
    values = as_label(labels)
    assert values is not None
    return Label(array=values, spacing=spacing, geometry=geometry, notes=notes)


def _segment_numbers(tags: Dataset, frames: int) -> list[int]:
    """The segment of each frame; 0 for label maps, whose pixels are segment numbers."""
    if tags.SegmentationType == "LABELMAP":
        return [0] * frames
    groups = tags.PerFrameFunctionalGroupsSequence
    shared = tags.SharedFunctionalGroupsSequence[0]
    identified = [group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence for group in groups]
    return [int(sequence[0].ReferencedSegmentNumber) for sequence in identified]


def _threshold(tags: Dataset) -> tuple[Callable[[Array], Array], tuple[str, ...]]:
    """From the pixels of a frame to the pixels (H, W) bool of its object; and a note."""
    if tags.SegmentationType != "FRACTIONAL":
        return lambda frame: frame > 0, ()
    highest = int(tags.get("MaximumFractionalValue") or 255)
    return lambda frame: 2 * frame.astype(np.int64) >= highest, (FRACTIONAL_NOTE,)


def _source_header(path: Path, frame: int | None, keep_patient: bool) -> Dataset:
    """The tags of one image that a segmentation object is made from."""
    from pydicom.uid import UID, generate_uid

    tags = dicom.header(path)
    if keep_patient:
        tags.decode()  # Texts become Unicode, which the names of classes need too.
    else:
        tags = _allowed(tags)
    tags.SpecificCharacterSet = "ISO_IR 192"
    for name in _REQUIRED:
        if name not in tags:
            setattr(tags, name, "")
    for name in _IDENTIFIERS:
        if not UID(str(tags.get(name) or "")).is_valid:
            setattr(tags, name, generate_uid())
    if frame is not None:
        # highdicom accepts several frames only with a position in space, which those of a video do not have.
        if tags.get("PerFrameFunctionalGroupsSequence"):
            tags.NumberOfFrames = 1
            tags.PerFrameFunctionalGroupsSequence = [tags.PerFrameFunctionalGroupsSequence[frame]]
        else:
            del tags.NumberOfFrames
            tags.SOPClassUID = _ONE_IMAGE
    return tags


def _allowed(tags: Dataset) -> Dataset:
    """The allowed attributes only, in sequences too."""
    import pydicom

    result = pydicom.Dataset()
    for name in _ALLOWED:
        if name in tags:
            value = tags[name].value
            is_sequence = isinstance(value, pydicom.Sequence)
            setattr(result, name, [_allowed(item) for item in value] if is_sequence else value)
    return result


def _set_references(segmentation: Dataset, kind: str, frame: int) -> None:
    """Set the referenced frame of the source and the source's true SOP class."""
    for element in segmentation.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = kind
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence") or ():
            for image in derivation.SourceImageSequence:
                image.ReferencedFrameNumber = frame + 1


def _description(number: int, name: str) -> Any:
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        # Class names of a dataset have no standard code, so a private coding scheme is used.
        segmented_property_category=CodedConcept("class", _OWN_CODES, "class of a trained network"),
        segmented_property_type=CodedConcept(f"class-{number}", _OWN_CODES, name[:64]),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="autoseg",
            version=autoseg.__version__,
            family=CodedConcept("123109", "DCM", "Artificial Intelligence"),
        ),
    )
