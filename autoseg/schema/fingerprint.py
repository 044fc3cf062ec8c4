"""Measurements of a dataset: `fingerprint.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import AboveZero, Count, FileName, NonNegative, NonNegativeResult, Result, Share, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassInCase:
    """One class in one label map. pixels: area. objects: 8-connected components.

    largest, object_area: pixels of the largest and of the median object. thickness: twice the median of the distance
    transform's ridge, in pixels. compactness: 4 pi area / perimeter^2, 0.8 to 0.9 for a disc of pixels, near 0 for a
    branching line. In both each object weighs by its area.
    """

    pixels: Count
    objects: Count
    largest: Count
    thickness: NonNegative
    object_area: NonNegative = 0.0
    compactness: NonNegative = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprint:
    """One case. size: (height, width) in pixels. spacing: (row, column) in mm, or None if the files have none.

    file_hash and pixel_hash: XXH3, 128 bits, of the image files' bytes and of the decoded pixels (see
    `autoseg.fingerprint.pixel_hash`). classes: every foreground class, zeros if it is absent. low, high: smallest and
    largest value. bits: that the highest value needs, 32 for floats. Fractions of the image: border, in constant borders;
    background, as dark as its darkest parts; overlay, drawn over it (text, markers). layering: changes down against changes
    across. foreground_mean: mean value of each channel inside the foreground (empty without foreground). notes: changes by
    the reader, such as a dropped alpha channel.
    """

    case: FileName
    size: tuple[Side, Side]
    channels: Side
    dtype: str
    spacing: tuple[AboveZero, AboveZero] | None
    file_hash: str
    pixel_hash: str
    low: float
    high: float
    border: Share
    classes: dict[FileName, ClassInCase]
    group: str = ""
    foreground_mean: tuple[Result, ...] = ()
    bits: Count = 8
    background: Share = 0.0
    layering: NonNegativeResult = 1.0
    overlay: Share = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Values of one channel over all images, and inside the foreground: mean, deviation, percentiles (0.5, 50, 99.5)."""

    name: str
    mean: Result
    std: Result
    percentiles: tuple[Result, Result, Result]
    foreground_mean: Result
    foreground_std: Result
    foreground_percentiles: tuple[Result, Result, Result]


@dataclass(frozen=True, kw_only=True)
class ClassStatistics:
    """One class over the set. presence: share of cases that hold it. pixel_share: of all pixels.

    Medians are taken over the cases that hold it: area share of the image, objects a case, thickness in pixels and
    relative_thickness as a share of the image's shorter side, object_area in pixels and object_share of the image,
    compactness (see ClassInCase).
    """

    name: str
    cases: Count
    presence: Share
    pixel_share: Share
    area_share: Share
    objects: NonNegative
    thickness: NonNegative
    relative_thickness: NonNegative
    object_area: NonNegative = 0.0
    object_share: NonNegative = 0.0
    compactness: NonNegative = 0.0


@dataclass(frozen=True)
class Finding:
    """Something that a person should check. kind: a short word to filter by. cases: the affected cases."""

    kind: str
    text: str
    cases: tuple[FileName, ...]


def _without_perceptual_hash(content: Content) -> Content:
    """Version 2: thumbnails, not a perceptual hash, find near-duplicates."""
    for case in content["cases"]:
        case.pop("perceptual_hash", None)
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class Fingerprint(Artefact, Tabular):
    """`fingerprint.json`. content_hash: of all images, labels and the dataset description, to detect outdated fingerprints.

    modality: one of colour, ultrasound, mr, ct, xray, microscopy, gray, multichannel; evidence says why.
    gray_as_rgb: three channels that are equal everywhere. duplicates: groups of cases that show the same picture, or
    probably the same scene; splits must not separate them, and findings list both kinds. hash_version: how the hashes of
    pixels were made; older ones differ for gray images stored as RGB and for small values of large types.
    """

    NAME = "fingerprint"
    VERSION = 2
    MIGRATIONS = (_without_perceptual_hash,)

    dataset: FileName
    content_hash: str
    modality: str
    evidence: str
    gray_as_rgb: bool
    dtype: str
    channels: tuple[ChannelStatistics, ...]
    classes: tuple[ClassStatistics, ...]
    cases: tuple[CaseFingerprint, ...]
    median_size: tuple[Side, Side]
    median_spacing: tuple[AboveZero, AboveZero] | None
    duplicates: tuple[tuple[FileName, ...], ...] = ()
    findings: tuple[Finding, ...] = field(default_factory=tuple)
    hash_version: Count = 1

    def summary(self) -> str:
        height, width = self.median_size
        counted = f"{count(len(self.cases), 'case')} of {count(len(self.classes), 'class')}"
        findings = count(len(self.findings), "finding")
        return f"{self.dataset}: {counted}, {self.modality}, median size {height} x {width}, {findings}"

    def to_rows(self) -> list[Row]:
        columns = ("case", "group", "size", "spacing", "channels", "dtype", "low", "high", "border", "background", "notes")
        return [
            {column: getattr(case, column) for column in columns}
            | {f"pixels_{name}": statistics.pixels for name, statistics in case.classes.items()}
            for case in self.cases
        ]

    def overview(self) -> list[Row]:
        return [fields(one) for one in self.classes]
