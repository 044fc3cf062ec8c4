"""An image or mask file as an array with its geometry, and back; a raw dataset folder as a list of cases.

Takes paths; gives arrays. Must not resample, normalise or decide anything.
"""

from autoseg.io import dicom, segmentation
from autoseg.io.contents import Geometry, Image, Label
from autoseg.io.files import (
    is_image,
    mask_ending,
    read_case,
    read_image,
    read_label,
    stem_of,
    suffix_of,
    write_image,
    write_label,
)
from autoseg.io.kept import Kept
from autoseg.io.raw_dataset import Case, RawDataset, list_cases

__all__ = [
    "Case",
    "Geometry",
    "Image",
    "Kept",
    "Label",
    "RawDataset",
    "dicom",
    "is_image",
    "list_cases",
    "mask_ending",
    "read_case",
    "read_image",
    "read_label",
    "segmentation",
    "stem_of",
    "suffix_of",
    "write_image",
    "write_label",
]
