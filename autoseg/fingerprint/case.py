"""One case, measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import cv2
import numpy as np
import xxhash

from autoseg.fingerprint.appearance import (
    Box,
    background_share,
    brightness,
    busy_box,
    layering,
    overlay_share,
    share_outside,
)  # fmt: skip
from autoseg.fingerprint.intensities import ChannelHistogram, count
from autoseg.fingerprint.near_duplicates import Thumbnail, thumbnail
from autoseg.fingerprint.objects import SPECK, measure_class
from autoseg.fingerprint.validation import load_case, validate_case
from autoseg.io import Case, DecodedImageCache
from autoseg.io.types import Array
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.fingerprint import CaseFingerprint, ClassInCase

OUTLINE = 32


@dataclass(frozen=True, slots=True)
class SeenMask:
    """What findings need beyond the fingerprint. gray: three channels that are equal everywhere. label_hash: of the decoded
    mask. specks: objects of at most 4 pixels. astray: share of the foreground on nothing.
    """

    gray: bool
    label_hash: bytes
    specks: int
    astray: float


@dataclass(frozen=True, kw_only=True)
class MeasuredCase:
    """What the set's sums need of one case. values: of each channel, everywhere and inside the foreground.

    whole: the values are integer levels. outline: (32, 32) uint8 of the foreground.
    """

    case: CaseFingerprint
    values: tuple[tuple[ChannelHistogram, ChannelHistogram], ...]
    whole: bool
    thumbnail: Thumbnail | None
    mask: SeenMask
    outline: Array


def measure_case(
    case: Case, spec: DatasetSpec, scheme: LabelScheme, file_hash: str, kept: DecodedImageCache | None = None
) -> MeasuredCase | list[str]:
    """The case's fingerprint, or a list of its faults. kept: see `load_case`."""
    image, label, faults = load_case(case, kept)
    faults += validate_case(case, image, label, len(spec.channel_names), scheme)
    if faults or image is None or label is None:
        return faults
    pixels = image.array
    inside = label.array > 0 if scheme.ignore is None else (label.array > 0) & (label.array != scheme.ignore)
    mask = inside.view(np.uint8)
    planes = _planes(pixels)
    around = _around(mask)
    values = tuple((count(plane), count(plane[around], mask[around])) for plane in planes)
    low, high = min(counted.low for counted, _ in values), max(counted.high for counted, _ in values)
    gray = len(planes) == 3 and all(_equal(planes[0], plane) for plane in planes[1:])
    classes, specks = classes_in(label.array[around], scheme)
    marked = values[0][1].pixels > 0
    bright, box = brightness(planes), busy_box(planes, high - low)
    fingerprint = CaseFingerprint(
        case=case.name,
        size=(pixels.shape[1], pixels.shape[2]),
        channels=len(planes),
        dtype=sys.intern(str(pixels.dtype)),
        spacing=image.spacing or label.spacing,
        file_hash=file_hash,
        pixel_hash=_hash(planes).hex(),
        low=low,
        high=high,
        border=share_outside(box, planes[0].size),
        classes=classes,
        group=spec.groups.get(case.name, ""),
        foreground_mean=tuple(counted.mean for _, counted in values) if marked else (),
        bits=32 if pixels.dtype == np.float32 else int(high).bit_length(),
        background=background_share(bright),
        layering=layering(planes[0] if len(planes) == 1 else bright.summed),
        overlay=overlay_share(planes, high - low, bright, inside),
        notes=image.notes,
    )
    flat = marked and all(inner.low == inner.high for _, inner in values)
    seen = SeenMask(gray, _hash([label.array]), specks, astray(inside[around], around, flat, box))
    small = thumbnail(pixels, bright.summed)
    return MeasuredCase(
        case=fingerprint, values=values, whole=pixels.dtype != np.float32, thumbnail=small, mask=seen, outline=outline(inside)
    )


def classes_in(label: Array, scheme: LabelScheme) -> tuple[dict[str, ClassInCase], int]:
    """Every foreground class or region of a label map (H, W), those that are absent with zeros; how many specks."""
    found: dict[str, ClassInCase] = {}
    specks = 0
    for name, members in scheme.foreground.items():
        found[name], areas = measure_class(label == members[0] if len(members) == 1 else np.isin(label, members))
        specks += int((areas <= SPECK).sum())
    return found, specks


def outline(inside: Array) -> Array:
    """(32, 32) uint8 of where a mask (H, W) bool marks anything: enough to see whether two agree."""
    # Of large masks some pixels will do: at least 4 x 4 of each place.
    step = max(1, min(inside.shape) // (4 * OUTLINE))
    return cv2.resize(inside[::step, ::step].astype(np.uint8) * 255, (OUTLINE, OUTLINE), interpolation=cv2.INTER_AREA)


def astray(inside: Array, around: tuple[slice, slice], flat: bool, box: Box) -> float:
    """Share of the foreground that lies in the constant borders; 1 where all of it lies on one value.

    inside: (h, w) bool, the foreground within the rows and columns `around`. flat: it lies on one value. box: what `busy_box`
    leaves of the image.
    """
    pixels = np.count_nonzero(inside)
    if pixels <= SPECK:
        return 0.0
    if flat:
        return 1.0
    top, bottom, left, right = box
    first, start = (side.start for side in around)
    busy = inside[max(top - first, 0) : max(bottom - first, 0), max(left - start, 0) : max(right - start, 0)]
    return 1.0 - np.count_nonzero(busy) / pixels


def _around(mask: Array) -> tuple[slice, slice]:
    """Rows and columns of what a mask (H, W) uint8 marks; of one that marks nothing, all."""
    left, top, width, height = cv2.boundingRect(mask)
    height, width = (height, width) if width else mask.shape
    return slice(top, top + height), slice(left, left + width)


def _planes(pixels: Array) -> list[Array]:
    """Each channel of (C, H, W) by itself, contiguous."""
    interleaved = np.moveaxis(pixels, 0, -1)
    if len(pixels) > 1 and interleaved.flags.c_contiguous:
        return list(cv2.split(interleaved))
    return [np.ascontiguousarray(plane) for plane in pixels]


def _equal(one: Array, other: Array) -> bool:
    # Mostly the first row says no.
    return np.array_equal(one[:1], other[:1]) and np.array_equal(one, other)


def _hash(planes: list[Array]) -> bytes:
    digest = xxhash.xxh3_128(f"{len(planes)} {planes[0].shape} {planes[0].dtype}".encode())
    for plane in planes:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.digest()
