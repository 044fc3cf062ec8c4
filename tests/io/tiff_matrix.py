"""Every kind of TIFF: how to write one, what reading it must give, and the table of documentation/reading.md."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.io.outcomes import Row, observe

SIZE = (36, 44)
INTEGERS, FLOATS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"), ("float16", "float32", "float64")
SIGNED = (*INTEGERS[4:], *FLOATS)
COMMON = ("uint8", "uint16", "float32")
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint16)
GRAYS_FALLING = np.repeat(np.arange(255, -1, -1)[:, None], 3, 1).astype(np.uint16)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """title: in the page. image, mask: from stored values (H, W) or (H, W, C) to what reading gives; None: refused.

    constant: bands with one value everywhere. palette: (256, 3) of 0..255.
    """

    title: str
    photometric: str
    types: tuple[str, ...]
    bands: int = 1
    extras: tuple[str, ...] = ()
    constant: tuple[int, ...] = ()
    palette: Any = None
    image: Callable[[Any], Any] | None = lambda stored: stored
    mask: Callable[[Any], Any] | None = lambda stored: stored if stored.ndim == 2 else stored[..., 0]


def inverted(stored):
    return ~stored if stored.dtype == bool else (np.iinfo(stored.dtype).max - stored).astype(stored.dtype)


def first(count):
    return lambda stored: stored[..., 0] if count == 1 else stored[..., :count]


def cmyk_as_rgb(stored):
    inverse = 255 - stored.astype(int)
    return inverse[..., :3] * inverse[..., 3:] // 255


KINDS = (
    Kind(title="gray", photometric="minisblack", types=(*INTEGERS, *FLOATS)),
    Kind(title="gray, one bit", photometric="minisblack", types=("bool",), image=lambda stored: stored * 255),
    Kind(title="gray, complex numbers", photometric="minisblack", types=("complex64", "complex128"), image=None, mask=None),
    Kind(title="gray, white is zero", photometric="miniswhite", types=("uint8", "uint16"), image=inverted),
    Kind(title="gray, white is zero", photometric="miniswhite", types=("uint32", "uint64", *SIGNED)),
    Kind(
        title="gray, white is zero, one bit",
        photometric="miniswhite",
        types=("bool",),
        image=lambda stored: ~stored * 255,
        mask=inverted,
    ),
    Kind(
        title="gray with constant alpha",
        photometric="minisblack",
        types=COMMON,
        bands=2,
        extras=("unassalpha",),
        constant=(1,),
        image=first(1),
    ),
    Kind(
        title="gray, white is zero, constant alpha",
        photometric="miniswhite",
        types=("uint8", "uint16"),
        bands=2,
        extras=("assocalpha",),
        constant=(1,),
        image=lambda stored: inverted(stored[..., 0]),
    ),
    Kind(
        title="gray with varying alpha",
        photometric="minisblack",
        types=COMMON,
        bands=2,
        extras=("assocalpha",),
        image=None,
        mask=None,
    ),
    *(
        Kind(
            title=f"{bands} gray bands",
            photometric="minisblack",
            types=COMMON,
            bands=bands,
            extras=("unspecified",) * (bands - 1),
        )
        for bands in (2, 3, 4, 5)
    ),
    Kind(
        title="4 gray bands, the last constant",
        photometric="minisblack",
        types=COMMON,
        bands=4,
        extras=("unspecified",) * 3,
        constant=(3,),
        mask=None,
    ),
    Kind(title="RGB", photometric="rgb", types=(*INTEGERS, *FLOATS), bands=3),
    Kind(
        title="RGB with constant alpha",
        photometric="rgb",
        types=COMMON,
        bands=4,
        extras=("unassalpha",),
        constant=(3,),
        image=first(3),
    ),
    Kind(
        title="RGB with varying alpha", photometric="rgb", types=COMMON, bands=4, extras=("unassalpha",), image=None, mask=None
    ),
    Kind(
        title="RGB with a constant fourth band",
        photometric="rgb",
        types=COMMON,
        bands=4,
        extras=("unspecified",),
        constant=(3,),
        image=first(3),
    ),
    Kind(title="RGB with a fourth band", photometric="rgb", types=COMMON, bands=4, extras=("unspecified",)),
    Kind(
        title="RGB with constant alpha and a fifth band",
        photometric="rgb",
        types=COMMON,
        bands=5,
        extras=("unassalpha", "unspecified"),
        constant=(3,),
        image=lambda stored: stored[..., [0, 1, 2, 4]],
    ),
    Kind(
        title="palette of colours",
        photometric="palette",
        types=("uint8",),
        palette=COLOURS,
        image=lambda stored: COLOURS[stored],
    ),
    Kind(
        title="palette of falling grays (ImageJ's inverting table)",
        photometric="palette",
        types=("uint8",),
        palette=GRAYS_FALLING,
        image=lambda stored: GRAYS_FALLING[stored],
    ),
    Kind(title="CMYK", photometric="separated", types=("uint8",), bands=4, image=cmyk_as_rgb, mask=None),
    Kind(title="CMYK", photometric="separated", types=("uint16",), bands=4, image=None, mask=None),
    Kind(
        title="CMYK with alpha",
        photometric="separated",
        types=("uint8",),
        bands=5,
        extras=("unassalpha",),
        image=None,
        mask=None,
    ),
    *(
        Kind(title=name, photometric=photometric, types=("uint8",), bands=bands, image=None, mask=None)
        for name, photometric, bands in (
            ("CIELAB", "cielab", 3),
            ("ICCLAB", "icclab", 3),
            ("YCbCr without JPEG", "ycbcr", 3),
            ("LogL", "logl", 1),
            ("LogLuv", "logluv", 3),
            ("camera raw (CFA)", "cfa", 1),
            ("linear raw", "linear_raw", 3),
            ("transparency mask", "mask", 1),
            ("depth map", "depth_map", 1),
        )
    ),
)
PLANES = ("contig", "separate")
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "LZW": {"compression": "lzw"},
    "Deflate": {"compression": "zlib"},
    "Deflate with predictor": {"compression": "zlib", "predictor": True},
    "PackBits": {"compression": "packbits"},
    "Zstandard": {"compression": "zstd"},
    "LZMA": {"compression": "lzma"},
}


@dataclass(frozen=True)
class Layout:
    """write: (path, values, options of tifffile). image: page of the image, as indices; None: refused."""

    title: str
    write: Callable[[Path, Any, dict[str, Any]], None]
    image: tuple[int, ...] | None = (0,)


def _single(**options):
    def write(path, values, common):
        file = {key: options[key] for key in ("byteorder", "bigtiff") if key in options}
        page = {key: value for key, value in options.items() if key not in file}
        with tifffile.TiffWriter(path, **file) as writer:
            writer.write(values, **page, **common)

    return write


def _pages(*parts):
    """parts: (rows and columns as a fraction, options of the page)."""

    def write(path, values, common):
        rows, columns = (1, 2) if common.get("planarconfig") == "separate" else (0, 1)
        with tifffile.TiffWriter(path) as writer:
            for fraction, options in parts:
                part = np.take(values, range(max(1, round(SIZE[0] * fraction))), rows)
                writer.write(np.take(part, range(max(1, round(SIZE[1] * fraction))), columns), **options, **common)

    return write


def _behind_one_page(path, values, common):
    tifffile.imwrite(
        path, np.stack([values] * 3), truncate=True, **{key: common[key] for key in common if key == "photometric"}
    )


def _imagej(path, values, common):
    tifffile.imwrite(path, np.stack([values] * 3), imagej=True)


def _volume(path, values, common):
    tifffile.imwrite(path, np.stack([values] * 16), volumetric=True, tile=(16, 16, 16), photometric=common["photometric"])


LAYOUTS = (
    Layout("one strip", _single()),
    Layout("several strips", _single(rowsperstrip=5)),
    Layout("tiles", _single(tile=(16, 32))),
    Layout("big-endian", _single(byteorder=">")),
    Layout("BigTIFF", _single(bigtiff=True)),
    Layout("a thumbnail after the image", _pages((1, {}), (0.3, {}))),
    Layout("a thumbnail before the image", _pages((0.3, {}), (1, {})), (1,)),
    Layout("a page marked as reduced before the image", _pages((0.8, {"subfiletype": 1}), (1, {})), (1,)),
    Layout("smaller copies inside the page (SubIFDs)", _pages((1, {"subifds": 2}), (0.8, {"subfiletype": 1}), (0.4, {}))),
    Layout("the image inside a thumbnail (SubIFD)", _pages((0.3, {"subfiletype": 1, "subifds": 1}), (1, {})), (0, 0)),
)
REFUSED_LAYOUTS = (
    Layout("several pages of one size", _pages((1, {}), (1, {})), None),
    Layout("pages of similar size", _pages((1, {}), (0.8, {})), None),
    Layout("a thumbnail between two images", _pages((1, {}), (0.3, {}), (1, {})), None),
    Layout("an ImageJ stack", _imagej, None),
    Layout("a stack behind one page", _behind_one_page, None),
    Layout("a volume (ImageDepth)", _volume, None),
)


def values_of(kind: Kind, dtype: str, mask: bool = False) -> Any:
    """Stored values (H, W) or (H, W, C). mask: few values, and all but the constant bands equal."""
    random = np.random.default_rng(len(kind.title))
    limit = 2 if dtype == "bool" else 4 if mask else 100
    shape = SIZE if mask or kind.bands == 1 else (*SIZE, kind.bands)
    values = random.integers(0, limit, shape)
    if kind.bands > 1 and mask:
        values = np.repeat(values[..., None], kind.bands, 2)
    for band in kind.constant:
        values[..., band] = 77
    if dtype.startswith("complex"):
        values = values + 1j
    return values.astype(dtype)


def write(
    path: Path, kind: Kind, values: Any, planar: str = "contig", compression: str = "none", layout: Layout = LAYOUTS[0]
) -> None:
    common: dict[str, Any] = {"photometric": kind.photometric, **COMPRESSIONS[compression]}
    if kind.palette is not None:
        common["colormap"] = kind.palette.T * 257
    if kind.extras:
        common["extrasamples"] = kind.extras
    if values.ndim == 3:
        common["planarconfig"] = planar
        values = np.moveaxis(values, 2, 0).copy() if planar == "separate" else values
    layout.write(path, values, common)


def as_tifffile_reads(path: Path, layout: Layout, planar: str) -> Any:
    """(H, W) or (H, W, C) by tifffile."""
    with tifffile.TiffFile(path) as file:
        assert layout.image is not None
        page = file.pages[layout.image[0]]
        for index in layout.image[1:]:
            page = page.pages[index]
        values = page.asarray()
    return np.moveaxis(values, 0, 2) if values.ndim == 3 and planar == "separate" else values


def codecs_for(dtype: str) -> list[str]:
    predictable = dtype in ("float16", "float32", "float64") or (dtype in INTEGERS and not dtype.endswith("64"))
    return [name for name in COMPRESSIONS if predictable or not name.endswith("predictor")]


def combinations(kind: Kind, dtype: str) -> Iterator[tuple[str, str, Layout]]:
    """Planes, compression and layout: all for the commonest kinds, for the others each of them once."""
    codecs = codecs_for(dtype)
    for planar in PLANES if kind.bands > 1 else PLANES[:1]:
        if (kind.title, dtype) in (("gray", "uint8"), ("gray", "uint16"), ("RGB", "uint16")):
            yield from ((planar, codec, layout) for codec in codecs for layout in LAYOUTS)
        else:
            count = max(len(codecs), len(LAYOUTS))
            yield from ((planar, codecs[index % len(codecs)], LAYOUTS[index % len(LAYOUTS)]) for index in range(count))


def write_tags(
    path: Path,
    bits: list[int],
    *,
    photometric: int | None,
    sample_format: int = 1,
    extras: list[int] | None = None,
    data: bytes = b"",
) -> Path:
    """A TIFF by its tags and bytes (default: zeros), for kinds that tifffile does not write."""
    data = data or bytes(SIZE[0] * SIZE[1] * max(1, sum(bits) // 8))
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [SIZE[1]]),
        257: ("I", [SIZE[0]]),
        258: ("H", bits),
        259: ("H", [1]),
        273: ("I", [8]),
        277: ("H", [len(bits)]),
        278: ("I", [SIZE[0]]),
        279: ("I", [len(data)]),
        339: ("H", [sample_format] * len(bits)),
    }
    if photometric is not None:
        tags[262] = ("H", [photometric])
    if photometric == 3:
        tags[320] = ("H", [int(value) * 257 for value in COLOURS.T.ravel()])
    if extras:
        tags[338] = ("H", extras)
    entries, outside, start = b"", b"", 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, (code, numbers) in sorted(tags.items()):
        content = struct.pack(f"<{len(numbers)}{code}", *numbers)
        if len(content) > 4:
            content, outside = struct.pack("<I", start + len(outside)), outside + content
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[code], len(numbers)) + content.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + outside)
    return path


def rows(folder: Path) -> list[Row]:
    """The table of the page: what reading each kind gives."""
    table = []
    for number, kind in enumerate(KINDS):
        for dtype in kind.types:
            images, masks = folder / f"i{number}{dtype}.tif", folder / f"m{number}{dtype}.tif"
            write(images, kind, values_of(kind, dtype))
            write(masks, kind, values_of(kind, dtype, mask=True))
            table.append(observe(kind.title, dtype, images, masks))
    by_tags = (
        ("gray, without PhotometricInterpretation", "uint8", [8], {"photometric": None}),
        ("palette with constant alpha", "uint8", [8, 8], {"photometric": 3, "extras": [2]}),
        ("bands of different bits", "5, 6, 5 bits", [5, 6, 5], {"photometric": 2}),
        ("gray, complex whole numbers", "2 x 16 bits", [32], {"photometric": 1, "sample_format": 5}),
        ("gray, floats", "128 bits", [128], {"photometric": 1, "sample_format": 3}),
    )
    for title, types, bits, options in by_tags:
        path = write_tags(folder / f"{title}.tif", bits, **options)
        table.append(observe(title, types, path, path))
    return table


def layout_rows(folder: Path) -> list[Row]:
    table = []
    for number, layout in enumerate((*LAYOUTS, *REFUSED_LAYOUTS)):
        path = folder / f"layout{number}.tif"
        write(path, KINDS[0], values_of(KINDS[0], "uint8", mask=True), layout=layout)
        table.append(observe(layout.title, "", path, path))
    return table
