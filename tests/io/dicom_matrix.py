"""Kinds of DICOM objects: how to write one, what reading it must give, and the tables of documentation/reading.md."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.io import Image, medical, read_image
from tests.io.outcomes import Row, describe
from tests.io.scans import scan

SIZE = (40, 48)
OBJECTS = ("classic", "enhanced, shared groups", "enhanced, groups of the frame", "enhanced, three frames")
# Rescale slope and intercept of each frame.
RESCALES = {"no rescale": ((1, 0),) * 3, "rescale": ((1, -1024), (2, -1000), (0.5, 7))}
# (dtype, bits stored)
NUMBERS = {
    "uint8": ("uint8", 8),
    "12 of 16 bits": ("uint16", 12),
    "uint16": ("uint16", 16),
    "int16": ("int16", 16),
    "12 of 16 bits, signed": ("int16", 12),
}
PHOTOMETRICS = ("MONOCHROME2", "MONOCHROME1")
SYNTAXES = ("implicit", "plain", "big endian", "deflated", "rle", "jpeg lossless", "jpeg lossless 57", "jls", "j2k")
SPACING, POSITION = (0.5, 0.25), (11.0, -7.0, 3.0)
ORIENTATION = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)
_ENHANCED_CT, _CT = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A combination of the dimensions above."""

    object: str
    rescale: str
    photometric: str
    numbers: str
    syntax: str

    def __str__(self) -> str:
        return f"{self.object}, {self.rescale}, {self.photometric}, {self.numbers}, {self.syntax}"

    @property
    def frames(self) -> int:
        return 3 if self.object.endswith("three frames") else 1


KINDS = [
    Kind(object=what, rescale=rescale, photometric=photometric, numbers=numbers, syntax=syntax)
    for what, rescale, photometric, numbers, syntax in product(OBJECTS, RESCALES, PHOTOMETRICS, NUMBERS, SYNTAXES)
    # Not every release of pydicom encodes signed values as JPEG-LS or JPEG 2000.
    if syntax not in ("jls", "j2k") or NUMBERS[numbers][0].startswith("u")
]


def stored_values(kind: Kind) -> Any:
    """(H, W) or (frames, H, W)."""
    dtype, bits = NUMBERS[kind.numbers]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.startswith("i") else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits).integers(low, high + 1, (kind.frames, *SIZE)).astype(dtype)
    values[:, 0, :2] = low, high
    return values if kind.frames > 1 else values[0]


def expected_values(kind: Kind, frame: int) -> Any:
    """(H, W): what the tags say the values of a frame are."""
    dtype, bits = NUMBERS[kind.numbers]
    values = stored_values(kind)
    values = (values[frame] if values.ndim == 3 else values).astype(np.int64)
    if kind.photometric == "MONOCHROME1":
        values = (-1 if dtype.startswith("i") else (1 << bits) - 1) - values
    slope, intercept = RESCALES[kind.rescale][frame]
    return (values * slope + intercept).astype(np.float32)


def write(path: Path, kind: Kind) -> Path:
    tags: dict[str, Any] = {"Modality": "CT", "SOPClassUID": _CT}
    slopes = RESCALES[kind.rescale]
    if kind.object == "classic":
        tags |= {
            "PixelSpacing": list(SPACING),
            "ImagePositionPatient": list(POSITION),
            "ImageOrientationPatient": list(ORIENTATION),
        }
        tags |= {"SliceThickness": 2} | (
            dict(zip(("RescaleSlope", "RescaleIntercept"), slopes[0], strict=True)) if kind.rescale == "rescale" else {}
        )
    else:
        groups = [
            _groups(slope if kind.rescale == "rescale" else None, place) for place, slope in enumerate(slopes[: kind.frames])
        ]
        shared = kind.object == "enhanced, shared groups"
        tags |= {"SOPClassUID": _ENHANCED_CT, "NumberOfFrames": kind.frames}
        tags |= {"SharedFunctionalGroupsSequence": groups if shared else [_empty()]}
        tags |= {"PerFrameFunctionalGroupsSequence": [_empty()] if shared else groups}
    return scan(path, stored_values(kind), kind.syntax, kind.photometric, stored=NUMBERS[kind.numbers][1], **tags)


def _empty() -> Any:
    import pydicom

    return pydicom.Dataset()


def _groups(rescale: tuple[float, float] | None, place: int) -> Any:
    """Functional groups of a frame; frames lie 2 mm apart."""
    groups = _empty()
    content: dict[str, dict[str, Any]] = {
        "PixelMeasuresSequence": {"PixelSpacing": list(SPACING), "SliceThickness": 2},
        "PlanePositionSequence": {"ImagePositionPatient": [*POSITION[:2], POSITION[2] + 2 * place]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": list(ORIENTATION)},
    }
    if rescale is not None:
        content["PixelValueTransformationSequence"] = {
            "RescaleSlope": rescale[0], "RescaleIntercept": rescale[1], "RescaleType": "HU"
        }  # fmt: skip
    for sequence, values in content.items():
        item = _empty()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(groups, sequence, [item])
    return groups


def special_kinds(folder: Path) -> dict[str, tuple[Path, Any]]:
    """Title -> a file, and what reading it must give (C, H, W); None: refused."""
    import pydicom
    from pydicom.encaps import encapsulate

    random = np.random.default_rng(5)
    gray, colours = random.integers(0, 200, SIZE).astype(np.uint8), random.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    wide, planes = gray.astype(np.uint16), np.moveaxis(colours, 2, 0)
    palette = random.integers(0, 256, (256, 3))
    ramp = (np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) * 40).astype(np.uint16)
    ybr = pydicom.pixels.convert_color_space(colours, "RGB", "YBR_FULL")
    written: dict[str, tuple[Path, Any]] = {}

    def add(title, expected, pixels, syntax="plain", photometric=None, palette=None, stored=None, edit=None, **tags):
        path = scan(folder / f"{len(written)}.dcm", pixels, syntax, photometric, palette, stored=stored, **tags)
        if edit:
            content = pydicom.dcmread(path)
            edit(content)
            content.save_as(path)
        written[title] = (path, expected)

    def set_tags(**tags):
        return lambda content: [setattr(content, name, value) for name, value in tags.items()]

    def with_table(content):
        table = pydicom.Dataset()
        table.LUTDescriptor, table.LUTData = [256, 0, 16], (np.arange(256) * 7).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        content.ModalityLUTSequence = [table]

    def as_floats(content):
        del content.PixelData, content.BitsStored, content.HighBit, content.PixelRepresentation
        content.FloatPixelData, content.BitsAllocated = (gray / np.float32(8)).tobytes(), 32

    def as_jpeg_of_12_bits(content):
        import imagecodecs

        content.PixelData = encapsulate([imagecodecs.jpeg8_encode(ramp, level=99, bitspersample=12)])
        content["PixelData"].VR = "OB"
        content.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.51"

    for syntax in ("plain", "rle", "j2k", "jpeg lossless", "jpeg lossless 57"):
        add(f"RGB, {syntax}", planes, colours, syntax)
    add("RGB plane by plane", planes, colours, edit=set_tags(PlanarConfiguration=1, PixelData=planes.tobytes()))
    add("RGB of 16 bits, rle", planes.astype(np.uint16) * 250, colours.astype(np.uint16) * 250, "rle")
    add(
        "YBR_FULL",
        np.moveaxis(pydicom.pixels.convert_color_space(ybr, "YBR_FULL", "RGB"), 2, 0),
        colours,
        photometric="YBR_FULL",
    )
    add("palette", palette.T[:, gray], gray, palette=palette)
    add("palette with a rescale slope", palette.T[:, gray], gray, palette=palette, RescaleSlope=2, RescaleIntercept=1)
    add("modality table", wide[None] * 7, wide, edit=with_table)
    add("modality table, MONOCHROME1", 65535 - wide[None] * 7, wide, photometric="MONOCHROME1", edit=with_table)
    for name, uid in (("CR", "1"), ("MR", "4"), ("US", "6.1"), ("secondary capture", "7"), ("PET", "128")):
        sop = f"1.2.840.10008.5.1.4.1.1.{uid}"
        add(f"rescale of a {name}", wide[None] * 2.0 - 100, wide, SOPClassUID=sop, RescaleSlope=2, RescaleIntercept=-100)
    add("rescale slope of 0", None, gray, RescaleSlope=0, RescaleIntercept=5)
    add(
        "12 bits stored, other data in the bits above",
        wide[None],
        wide,
        stored=12,
        edit=set_tags(PixelData=(wide | 0xF000).tobytes()),
    )
    add("12 bits stored in the upper bits", None, wide << 4, stored=12, edit=set_tags(HighBit=15))
    bits = np.packbits((gray % 2).ravel(), bitorder="little").tobytes()
    add("one bit", (gray % 2)[None], gray, edit=set_tags(BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=bits))
    add("32 bits", wide[None] * np.float32(1000), wide.astype(np.uint32) * 1000)
    add("floats", gray[None] / np.float32(8), gray, edit=as_floats)
    add("JPEG of 12 bits", ramp[None], ramp, stored=12, edit=as_jpeg_of_12_bits)
    return written


def without_pydicom(path: Path) -> Image:
    """As an installation without the extra reads it."""
    planes, spacing, geometry, notes = medical._read_with_simpleitk(path)
    return Image(array=planes, spacing=spacing, geometry=geometry, notes=notes)


def rows(folder: Path) -> list[Row]:
    """The table of the page."""
    table_rows = [
        (f"{kind.object}, {kind.photometric}", f"{kind.numbers}", write(folder / f"kind{number}.dcm", kind), kind.frames)
        for number, kind in enumerate(kind for kind in KINDS if kind.syntax == "plain" and kind.rescale == "rescale")
    ]
    table_rows += [(title, "", path, 1) for title, (path, _) in special_kinds(folder).items()]
    return [
        Row(
            title,
            numbers,
            (
                describe(lambda: read_image(path, frames - 1 if frames > 1 else None), path),  # noqa: B023 (called at once)
                describe(lambda: without_pydicom(path), path),  # noqa: B023
            ),
        )
        for title, numbers, path, frames in table_rows
    ]
