"""Reads and writes image and mask files as arrays with geometry; lists the cases of a raw dataset folder.

Takes paths; returns arrays. Must not resample, normalise or decide anything.
"""

from autoseg.io import dicom, nifti, segmentation
from autoseg.io.cache import DecodedImageCache
from autoseg.io.files import (
    is_dangling_image,
    is_image,
    mask_ending,
    read_case,
    read_image,
    read_label,
    read_label_of,
    stem_of,
    suffix_of,
    write_image,
    write_label,
)
from autoseg.io.grid import align
from autoseg.io.raw_dataset import Case, RawDataset, list_cases, split_channels
from autoseg.io.types import Geometry, Image, Label

__all__ = [
    "Case",
    "DecodedImageCache",
    "Geometry",
    "Image",
    "Label",
    "RawDataset",
    "align",
    "dicom",
    "is_dangling_image",
    "is_image",
    "list_cases",
    "mask_ending",
    "nifti",
    "read_case",
    "read_image",
    "read_label",
    "read_label_of",
    "segmentation",
    "split_channels",
    "stem_of",
    "suffix_of",
    "write_image",
    "write_label",
]
