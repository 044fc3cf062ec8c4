"""One case, measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.checks import case_faults, load_case
from autoseg.fingerprint.intensities import Counted, count
from autoseg.fingerprint.objects import SPECK, measure_class
from autoseg.fingerprint.resemblance import Thumbnail, perceptual_hash, thumbnail
from autoseg.io import Case
from autoseg.io.contents import Array
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.fingerprint import CaseFingerprint, ClassInCase

_BORDER_STEP = 8 / 255  # of the value range: black bars of a JPEG are not quite one value


@dataclass(frozen=True)
class MeasuredCase:
    """What the set's sums need of one case. values: of each channel, everywhere and inside the foreground.

    whole: the values are integer levels. gray: three channels that are equal everywhere. label_hash: of the decoded mask.
    specks: objects of at most 4 pixels.
    """

    case: CaseFingerprint
    values: tuple[tuple[Counted, Counted], ...]
    whole: bool
    thumbnail: Thumbnail | None
    gray: bool
    label_hash: str
    specks: int


def measure_case(case: Case, spec: DatasetSpec, scheme: LabelScheme, file_hash: str) -> MeasuredCase | list[str]:
    """The case's fingerprint, or a list of its faults."""
    image, label, faults = load_case(case)
    faults += case_faults(case, image, label, len(spec.channel_names), scheme)
    if faults or image is None or label is None:
        return faults
    pixels = image.array
    inside = label.array > 0 if scheme.ignore is None else (label.array > 0) & (label.array != scheme.ignore)
    mask = inside.astype(np.uint8)
    planes = [np.ascontiguousarray(plane) for plane in pixels]
    values = tuple((count(plane), count(plane, mask)) for plane in planes)
    gray = len(planes) == 3 and all(np.array_equal(planes[0], plane) for plane in planes[1:])
    small = thumbnail(pixels)
    classes, specks = classes_in(label.array, scheme)
    marked = bool(mask.any())
    fingerprint = CaseFingerprint(
        case=case.name,
        size=(pixels.shape[1], pixels.shape[2]),
        channels=len(planes),
        dtype=str(pixels.dtype),
        spacing=image.spacing or label.spacing,
        file_hash=file_hash,
        pixel_hash=_hash(planes),
        perceptual_hash=perceptual_hash(small),
        low=min(float(plane.min()) for plane in planes),
        high=max(float(plane.max()) for plane in planes),
        border=border_share(planes),
        classes=classes,
        group=spec.groups.get(case.name, ""),
        foreground_mean=tuple(counted.mean for _, counted in values) if marked else (),
    )
    return MeasuredCase(fingerprint, values, pixels.dtype != np.float32, small, gray, _hash([label.array]), specks)


def classes_in(label: Array, scheme: LabelScheme) -> tuple[dict[str, ClassInCase], int]:
    """Every foreground class or region of a label map (H, W), those that are absent with zeros; how many specks."""
    found: dict[str, ClassInCase] = {}
    specks = 0
    for name, members in scheme.foreground.items():
        found[name], areas = measure_class(label == members[0] if len(members) == 1 else np.isin(label, members))
        specks += int((areas <= SPECK).sum())
    return found, specks


def border_share(planes: list[Array]) -> float:
    """Share of the image in rows and columns at its edges that hold one value, such as black bars; 1 for a blank image."""
    stack = np.stack(planes)
    height, width = stack.shape[1:]
    step = _BORDER_STEP * float(stack.max() - stack.min())
    for axis in (1, 2, 1):
        others = 3 - axis
        low, high = stack.min(others), stack.max(others)
        busy = np.flatnonzero((high.astype(np.float64) - low > step).any(0))
        if not busy.size:
            return 1.0
        stack = stack.take(range(busy[0], busy[-1] + 1), axis)
    share: float = 1.0 - stack.shape[1] * stack.shape[2] / (height * width)
    return share


def _hash(planes: list[Array]) -> str:
    digest = hashlib.sha256(f"{len(planes)} {planes[0].shape} {planes[0].dtype}".encode())
    for plane in planes:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()
