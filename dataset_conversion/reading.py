"""Files of a source as images and masks: the formats of published datasets, and what their masks mean.

Beyond `autoseg.io`: GIF, PPM, anything packed with gzip, masks with stray values, masks by colour, outlines.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Outline  # here and not where it is used: that is in threads, which matplotlib cannot bear
from PIL import Image as Pillow

from autoseg.io import Image, Label, read_image, read_label
from autoseg.io.types import UNREADABLE, Array
from autoseg.support.errors import AutosegError
from dataset_conversion.source import Entry

Colour = tuple[int, int, int]
DISPUTED = "pixels belong to two classes; the later label won there"
_LOSSY = (".jpg", ".jpeg")
_OWN = (".gif", ".ppm", ".pgm", ".pbm", ".pnm")
_HALF = 128
_NEAR = 60.0  # distance in RGB within which a pixel is of a colour without doubt
_CERTAIN_SHARE = 0.98


def image_of(entry: Entry, *others: Entry) -> Image:
    """The image (C, H, W). others: files the reader needs beside it, such as the data of an MHD header."""
    if _own(entry):
        pixels = _decode(entry)
        return Image(array=pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0), spacing=None)
    with entry.local(*others) as path:
        return read_image(path)


def gray_image_of(entry: Entry) -> Image:
    """The image (1, H, W); three equal channels are one, and colours are turned to gray with a note."""
    image = image_of(entry)
    if image.array.shape[0] == 1:
        return image
    planes = image.array
    if (planes == planes[:1]).all():
        return Image(
            array=np.ascontiguousarray(planes[:1]),
            spacing=image.spacing,
            geometry=None,
            notes=image.notes,
            orientation=image.orientation,
        )
    gray = cv2.cvtColor(np.ascontiguousarray(np.moveaxis(planes, 0, 2)), cv2.COLOR_RGB2GRAY)
    return Image(
        array=gray[None],
        spacing=image.spacing,
        geometry=None,
        notes=(*image.notes, "colours turned to gray"),
        orientation=image.orientation,
    )


def values_of(entry: Entry, *others: Entry) -> Label:
    """The mask's values as stored (H, W). Raises AutosegError for colour pictures."""
    if not _own(entry):
        with entry.local(*others) as path:
            return read_label(path)
    pixels = _decode(entry)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise AutosegError(f"{entry.where} is a colour picture, not a mask of class ids", "look at the file")
        pixels = pixels[..., 0]
    return Label(array=pixels, spacing=None)


def foreground_of(entries: Sequence[Entry], instances: bool = False) -> Label:
    """1 where any of the masks marks something, 0 elsewhere.

    Masks of 0 and 1, or of 0 and 255; stray values in between, and JPEG's noise, are cut at 128, which is noted.
    instances: the masks number objects from 1 on instead, so every value but 0 marks something.
    """
    made: Label | None = None
    for entry in entries:
        one = Label(array=(values_of(entry).array > 0).astype(np.uint8), spacing=None) if instances else _marked(entry)
        if made is not None and made.array.shape != one.array.shape:
            raise AutosegError(
                f"{entry.where}: {_size(one.array)} pixels, but {entries[0].where} has {_size(made.array)}", "look at both"
            )
        if made is not None:
            one = Label(array=made.array | one.array, spacing=None, notes=tuple(dict.fromkeys((*made.notes, *one.notes))))
        made = one
    assert made is not None, "a mask without files"
    return made


def classes_of(masks: Mapping[int, Sequence[Entry]]) -> Label:
    """Class ids (H, W) from masks of one class each: id -> its files. Where they overlap, the later wins, with a note."""
    objects = {value: foreground_of(entries) for value, entries in masks.items()}
    shapes = {one.array.shape: masks[value][0].where for value, one in objects.items()}
    if len(shapes) > 1:
        raise AutosegError(f"{' and '.join(shapes.values())} differ in size", "masks of one image are of one size")
    notes = [note for one in objects.values() for note in one.notes]
    return painted(next(iter(shapes)), ((value, one.array > 0) for value, one in objects.items()), notes)


def within(label: Callable[[], Label], field: Entry, ignore: int) -> Label:
    """A label map with `ignore` outside the field of view, which a mask file marks."""
    made = label()
    inside = foreground_of([field]).array
    if inside.shape != made.array.shape:
        raise AutosegError(f"{field.where}: {_size(inside)} pixels, the mask has {_size(made.array)}", "look at both")
    return Label(array=np.where(inside > 0, made.array, ignore).astype(np.uint8), spacing=None, notes=made.notes)


def coloured(entry: Entry, colours: Mapping[Colour, int]) -> Label:
    """Class ids (H, W) by the nearest of some RGB colours; black is 0 unless it is among them.

    Raises AutosegError where too many pixels are of no such colour: the file then holds something else.
    """
    table = {(0, 0, 0): 0, **colours}
    pixels = image_of(entry).array
    if pixels.shape[0] == 1:
        pixels = np.repeat(pixels, 3, axis=0)
    distances = np.stack([
        sum(((pixels[channel].astype(np.float32) - colour[channel]) ** 2 for channel in range(3)), np.float32(0))
        for colour in table
    ])  # fmt: skip
    nearest = distances.argmin(0)
    off = np.sqrt(distances.min(0))
    certain = float((off <= _NEAR).mean())
    if certain < _CERTAIN_SHARE:
        shown = ", ".join(str(colour) for colour in table)
        raise AutosegError(f"{entry.where}: {1 - certain:.1%} of the pixels are near none of the colours {shown}", "look at it")
    notes = ("colours taken to the nearest of a class",) if off.any() else ()
    return Label(array=np.array(list(table.values()), np.uint8)[nearest], spacing=None, notes=notes)


def outlines(shape: tuple[int, ...], polygons: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """The union (H, W) of closed outlines, each (N, 2) of x, y; pixel (row, column) covers [column, column + 1) of x.

    A pixel belongs to an outline if its centre lies inside.
    """
    union = np.zeros(shape, np.bool_)
    for polygon in polygons:
        if len(polygon) < 3:
            continue
        low = np.clip(np.floor(polygon.min(0)).astype(int), 0, None)
        high = np.minimum(np.ceil(polygon.max(0)).astype(int), (shape[1], shape[0]))
        columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        if not columns.size:
            continue
        inside = Outline(polygon).contains_points(np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1))
        union[low[1] : high[1], low[0] : high[0]] |= inside.reshape(columns.shape)
    return union


def painted(shape: tuple[int, ...], objects: Iterable[tuple[int, npt.NDArray[np.bool_]]], notes: Sequence[str] = ()) -> Label:
    """Class ids (H, W) from objects, value and mask, painted one over the other; a note tells pixels that two classes claim."""
    ids = np.zeros(shape, np.uint8)
    disputed = np.zeros(shape, np.bool_)
    for value, inside in objects:
        disputed |= inside & (ids > 0) & (ids != value)
        ids[inside] = value
    pixels = int(disputed.sum())
    return Label(array=ids, spacing=None, notes=(*notes, f"{pixels} {DISPUTED}") if pixels else tuple(notes))


def run_lengths(text: str, shape: tuple[int, int], by_columns: bool = True) -> npt.NDArray[np.bool_]:
    """Pairs of start and length, counted from 1, as a mask (H, W). by_columns: from top to bottom, then to the right.

    Raises AutosegError for text that is none, or runs that leave the image.
    """
    words = text.split()
    if len(words) % 2 or not all(word.isdigit() for word in words):
        raise AutosegError(f"{text[:40]!r} is no run-length code: pairs of start and length", "look at the file")
    starts = np.array(words[::2], np.int64) - 1
    ends = starts + np.array(words[1::2], np.int64)
    if len(starts) and (starts.min() < 0 or ends.max() > shape[0] * shape[1]):
        raise AutosegError(
            f"runs to pixel {ends.max()} of an image with {shape[0] * shape[1]}", "look at the file and the image's size"
        )
    changes = np.zeros(shape[0] * shape[1] + 1, np.int32)
    np.add.at(changes, starts, 1)
    np.add.at(changes, ends, -1)
    flat = np.cumsum(changes[:-1]) > 0
    return flat.reshape(shape[::-1]).T.copy() if by_columns else flat.reshape(shape)


def _marked(entry: Entry) -> Label:
    if entry.suffix in _LOSSY:
        gray = image_of(entry).array.mean(0)
        noisy = ((gray > 0) & (gray < 255)).any()
        return Label(array=(gray >= _HALF).astype(np.uint8), spacing=None, notes=("JPEG mask cut at 128",) if noisy else ())
    label = values_of(entry)
    values = label.array
    highest = int(values.max(initial=0))
    if highest <= 1:
        return Label(array=values.astype(np.uint8), spacing=None, notes=label.notes)
    if highest < _HALF or highest > 255:
        raise AutosegError(f"{entry.where}: values up to {highest}, neither 0 and 1 nor 0 and 255", "look at the file")
    stray = ((values > 0) & (values < 255)).any()
    notes = (*label.notes, "values between 0 and 255 cut at 128") if stray else label.notes
    return Label(array=(values >= _HALF).astype(np.uint8), spacing=None, notes=notes)


def _own(entry: Entry) -> bool:
    return entry.suffix.removesuffix(".gz") in _OWN


def _decode(entry: Entry) -> Array:
    """(H, W) or (H, W, 3) RGB uint8 or uint16 of a GIF or PPM, packed or not."""
    data = entry.bytes()
    try:
        if entry.suffix.endswith(".gz"):
            data = gzip.decompress(data)
        if entry.suffix.startswith(".gif"):
            picture = Pillow.open(io.BytesIO(data))
            # A GIF is palette colours by nature; those of masks are gray.
            pixels = np.asarray(picture.convert("RGB"))
            return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels
    except (OSError, EOFError, zlib.error, SyntaxError, ValueError) as error:
        raise AutosegError(f"{entry.where} cannot be read as an image", UNREADABLE) from error
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise AutosegError(f"{entry.where} cannot be read as an image", UNREADABLE)
    return np.asarray(decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def _size(array: Array) -> str:
    return " x ".join(str(side) for side in array.shape)
