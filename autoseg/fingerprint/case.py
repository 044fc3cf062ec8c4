"""Measures one case."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import cv2
import numpy as np
import xxhash

from autoseg.fingerprint.appearance import (
    Box,
    background_fraction,
    content_box,
    fraction_outside,
    layering,
    measure_brightness,
    overlay_fraction,
)  # fmt: skip
from autoseg.fingerprint.intensities import ChannelHistogram, compute_histogram
from autoseg.fingerprint.near_duplicates import Thumbnail, thumbnail
from autoseg.fingerprint.objects import SPECK, measure_class
from autoseg.fingerprint.pixel_hash import pixel_hash
from autoseg.fingerprint.validation import load_case, validate_case
from autoseg.io import Case, DecodedImageCache
from autoseg.io.types import Array
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.fingerprint import CaseFingerprint, ClassInCase

MASK_THUMBNAIL_SIDE = 32


@dataclass(frozen=True, slots=True)
class MaskSummary:
    """Facts for the quality checks that the fingerprint does not store. gray: three channels that are equal everywhere.
    label_hash: of the decoded mask. specks: number of objects of at most 4 pixels. fraction_outside_content: of the foreground.
    """

    gray: bool
    label_hash: bytes
    specks: int
    fraction_outside_content: float


@dataclass(frozen=True, kw_only=True)
class MeasuredCase:
    """Measurements of one case. values: for each channel, histograms of all pixels and of the foreground.

    is_integer: the values are integer levels. mask_thumbnail: (32, 32) uint8 of the foreground.
    """

    case: CaseFingerprint
    values: tuple[tuple[ChannelHistogram, ChannelHistogram], ...]
    is_integer: bool
    thumbnail: Thumbnail | None
    mask: MaskSummary
    mask_thumbnail: Array


def measure_case(
    case: Case, spec: DatasetSpec, scheme: LabelScheme, file_hash: str, cache: DecodedImageCache | None = None
) -> MeasuredCase | list[str]:
    """The measurements, or the list of faults. cache: see `load_case`."""
    image, label, faults = load_case(case, cache)
    faults += validate_case(case, image, label, len(spec.channel_names), scheme)
    if faults or image is None or label is None:
        return faults
    pixels = image.array
    foreground = label.array > 0 if scheme.ignore is None else (label.array > 0) & (label.array != scheme.ignore)
    mask = foreground.view(np.uint8)
    planes = _planes(pixels)
    bbox = _bounding_box(mask)
    values = tuple((compute_histogram(plane), compute_histogram(plane[bbox], mask[bbox])) for plane in planes)
    low, high = min(histogram.low for histogram, _ in values), max(histogram.high for histogram, _ in values)
    gray = len(planes) == 3 and all(_arrays_equal(planes[0], plane) for plane in planes[1:])
    classes, specks = measure_classes(label.array[bbox], scheme)
    has_foreground = values[0][1].pixels > 0
    image_brightness, box = measure_brightness(planes), content_box(planes, high - low)
    fingerprint = CaseFingerprint(
        case=case.name,
        size=(pixels.shape[1], pixels.shape[2]),
        channels=len(planes),
        dtype=sys.intern(str(pixels.dtype)),
        spacing=image.spacing or label.spacing,
        file_hash=file_hash,
        pixel_hash=pixel_hash(planes[:1] if gray else planes),
        low=low,
        high=high,
        border=fraction_outside(box, planes[0].size),
        classes=classes,
        group=spec.groups.get(case.name, ""),
        foreground_mean=tuple(histogram.mean for _, histogram in values) if has_foreground else (),
        bits=32 if pixels.dtype == np.float32 else int(high).bit_length(),
        background=background_fraction(image_brightness),
        layering=layering(planes[0] if len(planes) == 1 else image_brightness.channel_sum),
        overlay=overlay_fraction(planes, high - low, image_brightness, foreground),
        notes=image.notes + tuple(note if note.startswith("mask:") else f"mask: {note}" for note in label.notes),
    )
    is_constant = has_foreground and all(inside.low == inside.high for _, inside in values)
    mask_summary = MaskSummary(
        gray, _hash([label.array]), specks, fraction_outside_content(foreground[bbox], bbox, is_constant, box)
    )
    image_thumbnail = thumbnail(pixels, image_brightness.channel_sum)
    return MeasuredCase(
        case=fingerprint,
        values=values,
        is_integer=pixels.dtype != np.float32,
        thumbnail=image_thumbnail,
        mask=mask_summary,
        mask_thumbnail=mask_thumbnail(foreground),
    )


def measure_classes(label: Array, scheme: LabelScheme) -> tuple[dict[str, ClassInCase], int]:
    """Measures each foreground class or region of a label map (H, W), zeros for absent ones; second: the number of specks."""
    measured: dict[str, ClassInCase] = {}
    specks = 0
    for name, values in scheme.foreground.items():
        measured[name], areas = measure_class(label == values[0] if len(values) == 1 else np.isin(label, values))
        specks += int((areas <= SPECK).sum())
    return measured, specks


def mask_thumbnail(foreground: Array) -> Array:
    """A mask (H, W) bool, reduced to (32, 32) uint8: enough to compare two masks."""
    # Large masks are subsampled: at least 4 x 4 pixels for each pixel of the thumbnail.
    step = max(1, min(foreground.shape) // (4 * MASK_THUMBNAIL_SIDE))
    return cv2.resize(
        foreground[::step, ::step].astype(np.uint8) * 255,
        (MASK_THUMBNAIL_SIDE, MASK_THUMBNAIL_SIDE),
        interpolation=cv2.INTER_AREA,
    )


def fraction_outside_content(foreground: Array, bbox: tuple[slice, slice], is_constant: bool, box: Box) -> float:
    """Fraction of the foreground in the constant borders of the image; 1 if the foreground has a single value.

    foreground: (h, w) bool, cropped to `bbox`. is_constant: the image has one value there. box: see `content_box`.
    """
    pixels = np.count_nonzero(foreground)
    if pixels <= SPECK:
        return 0.0
    if is_constant:
        return 1.0
    top, bottom, left, right = box
    first, start = (side.start for side in bbox)
    in_content = foreground[max(top - first, 0) : max(bottom - first, 0), max(left - start, 0) : max(right - start, 0)]
    return 1.0 - np.count_nonzero(in_content) / pixels


def _bounding_box(mask: Array) -> tuple[slice, slice]:
    """Bounding box (rows, columns) of a mask (H, W) uint8; the complete image for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask)
    height, width = (height, width) if width else mask.shape
    return slice(top, top + height), slice(left, left + width)


def _planes(pixels: Array) -> list[Array]:
    """The channels of (C, H, W) as contiguous arrays."""
    interleaved = np.moveaxis(pixels, 0, -1)
    if len(pixels) > 1 and interleaved.flags.c_contiguous:
        return list(cv2.split(interleaved))
    return [np.ascontiguousarray(plane) for plane in pixels]


def _arrays_equal(one: Array, other: Array) -> bool:
    # The first row differs in most images.
    return np.array_equal(one[:1], other[:1]) and np.array_equal(one, other)


def _hash(planes: list[Array]) -> bytes:
    digest = xxhash.xxh3_128(f"{len(planes)} {planes[0].shape} {planes[0].dtype}".encode())
    for plane in planes:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.digest()
