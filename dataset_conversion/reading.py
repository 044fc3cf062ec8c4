"""Reads files of a source as images and masks: the formats and mask encodings of published datasets.

In addition to `autoseg.io`: GIF, PPM, gzip, masks with stray values, colour masks, polygons, run lengths.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Outline  # at the top: matplotlib's import is not thread-safe
from PIL import Image as Pillow
from PIL.GifImagePlugin import GifImageFile
from PIL.PpmImagePlugin import PpmImageFile

from autoseg.io import Image, Label, align, read_image, read_label
from autoseg.io.types import UNREADABLE, Array
from autoseg.support.archives import UnpackingBudget
from autoseg.support.errors import AutosegError
from autoseg.support.out_of_memory import REMEDY, is_out_of_memory
from autoseg.support.pixel_limit import check_pixels
from dataset_conversion.source import Entry

Colour = tuple[int, int, int]
OVERLAP_NOTE = "pixels belong to two classes; the later label was kept"
_LOSSY = (".jpg", ".jpeg")
_OWN_SUFFIXES = (".gif", ".ppm", ".pgm", ".pbm", ".pnm")
_HALF = 128
# Of a picture without compression to its gzip file.
_PICTURE_RATIO = 20
_MAX_COLOUR_DISTANCE = 60.0  # distance in RGB within which a pixel is of a colour without doubt
_CERTAIN_SHARE = 0.98


def read_image_entry(entry: Entry, *others: Entry) -> Image:
    """The image (C, H, W). others: files the reader also needs, such as the data file of an MHD header."""
    if _has_own_decoder(entry):
        pixels = _decode(entry)
        return Image(array=pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0), spacing=None)
    with entry.local(*others) as path:
        return read_image(path)


def read_gray_image(entry: Entry) -> Image:
    """The image (1, H, W); three equal channels become one; colours are converted to gray, with a note."""
    image = read_image_entry(entry)
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
        notes=(*image.notes, "colours converted to gray"),
        orientation=image.orientation,
    )


def read_label_entry(entry: Entry, *others: Entry) -> Label:
    """The mask's values as stored (H, W). Raises AutosegError for colour pictures."""
    if not _has_own_decoder(entry):
        with entry.local(*others) as path:
            return read_label(path)
    pixels = _decode(entry)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise AutosegError(f"{entry.where} is a colour picture, not a mask of class ids", "look at the file")
        pixels = pixels[..., 0]
    return Label(array=pixels, spacing=None)


def read_foreground(entries: Sequence[Entry], instances: bool = False) -> Label:
    """Union of masks: 1 where any mask is foreground, 0 elsewhere.

    Masks hold 0 and 1, or 0 and 255; values between (JPEG noise) are thresholded at 128, with a note.
    instances: mask values number objects from 1, so every value but 0 is foreground.
    """
    union: Label | None = None
    for entry in entries:
        one = _objects(entry) if instances else _binarise(entry)
        one = align(one, union, Path(entry.where), Path(entries[0].where)) if union is not None else one
        if union is not None and union.array.shape != one.array.shape:
            raise AutosegError(
                f"{entry.where}: {_size(one.array)} pixels, but {entries[0].where} has {_size(union.array)}", "look at both"
            )
        if union is not None:
            one = replace(union, array=union.array | one.array, notes=tuple(dict.fromkeys((*union.notes, *one.notes))))
        union = one
    assert union is not None, "a mask without files"
    return union


def merge_class_masks(masks: Mapping[int, Sequence[Entry]]) -> Label:
    """Class ids (H, W) from masks of one class each: id -> its files. Where they overlap, the later class wins, with a note."""
    objects = {value: read_foreground(entries) for value, entries in masks.items()}
    first = next(iter(objects))
    objects = {
        value: align(one, objects[first], Path(masks[value][0].where), Path(masks[first][0].where))
        for value, one in objects.items()
    }
    shapes = {one.array.shape: masks[value][0].where for value, one in objects.items()}
    if len(shapes) > 1:
        raise AutosegError(f"{' and '.join(shapes.values())} differ in size", "all masks of an image need the same size")
    notes = [note for one in objects.values() for note in one.notes]
    painted = paint_objects(next(iter(shapes)), ((value, one.array > 0) for value, one in objects.items()), notes)
    return replace(painted, geometry=objects[first].geometry)


def mask_outside_fov(label: Callable[[], Label], field: Entry, ignore: int) -> Label:
    """A label map with `ignore` outside the field of view given by a mask file."""
    ids = label()
    inside = read_foreground([field]).array
    if inside.shape != ids.array.shape:
        raise AutosegError(f"{field.where}: {_size(inside)} pixels, the mask has {_size(ids.array)}", "look at both")
    return Label(array=np.where(inside > 0, ids.array, ignore).astype(np.uint8), spacing=None, notes=ids.notes)


def label_from_colours(entry: Entry, colours: Mapping[Colour, int]) -> Label:
    """Class ids (H, W) by the nearest RGB colour; black is 0 unless `colours` maps it.

    Raises AutosegError if more than 2 % of the pixels are near none of the colours.
    """
    table = {(0, 0, 0): 0, **colours}
    pixels = read_image_entry(entry).array
    if pixels.shape[0] == 1:
        pixels = np.repeat(pixels, 3, axis=0)
    distances = np.stack([
        sum(((pixels[channel].astype(np.float32) - colour[channel]) ** 2 for channel in range(3)), np.float32(0))
        for colour in table
    ])  # fmt: skip
    nearest = distances.argmin(0)
    off = np.sqrt(distances.min(0))
    certain = float((off <= _MAX_COLOUR_DISTANCE).mean())
    if certain < _CERTAIN_SHARE:
        shown = ", ".join(str(colour) for colour in table)
        raise AutosegError(
            f"{entry.where}: {1 - certain:.1%} of the pixels are near none of the colours {shown}", "check the file"
        )
    notes = ("colours set to the nearest class colour",) if off.any() else ()
    return Label(array=np.array(list(table.values()), np.uint8)[nearest], spacing=None, notes=notes)


def polygon_mask(shape: tuple[int, ...], polygons: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Union (H, W) of closed polygons, each (N, 2) of x, y; pixel (row, column) covers [column, column + 1) in x.

    A pixel belongs to a polygon if its centre is inside.
    """
    mask = np.zeros(shape, np.bool_)
    for polygon in polygons:
        if len(polygon) < 3:
            continue
        low = np.clip(np.floor(polygon.min(0)).astype(int), 0, None)
        high = np.minimum(np.ceil(polygon.max(0)).astype(int), (shape[1], shape[0]))
        columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        if not columns.size:
            continue
        inside = Outline(polygon).contains_points(np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1))
        mask[low[1] : high[1], low[0] : high[0]] |= inside.reshape(columns.shape)
    return mask


def paint_objects(
    shape: tuple[int, ...], objects: Iterable[tuple[int, npt.NDArray[np.bool_]]], notes: Sequence[str] = ()
) -> Label:
    """Class ids (H, W) from (value, mask) objects, later ones over earlier ones; a note counts pixels of two classes."""
    ids = np.zeros(shape, np.uint8)
    overlap = np.zeros(shape, np.bool_)
    for value, inside in objects:
        overlap |= inside & (ids > 0) & (ids != value)
        ids[inside] = value
    pixels = int(overlap.sum())
    return Label(array=ids, spacing=None, notes=(*notes, f"{pixels} {OVERLAP_NOTE}") if pixels else tuple(notes))


def check_stated_size(shape: tuple[int, int], where: str) -> None:
    """Raises AutosegError for a size (H, W) in an annotation file that no image can have: the mask would fill the memory."""
    if min(shape) < 1:
        raise AutosegError(f"{where}: the annotations state a size of {shape[1]} x {shape[0]} pixels", "fix them")
    check_pixels(where, shape[1], shape[0])


def decode_run_lengths(
    text: str, shape: tuple[int, int], by_columns: bool = True, relative: bool = False
) -> npt.NDArray[np.bool_]:
    """Mask (H, W) from run lengths: pairs of start and length. by_columns: down each column, then right.

    Starts are counted from 1; relative: they are the number of pixels since the end of the run before. Raises AutosegError for
    invalid text, runs beyond the image, and runs that begin before the end of the run before.
    """
    words = text.split()
    if len(words) % 2 or not all(word.isdigit() for word in words):
        raise AutosegError(f"{text[:40]!r} is not a run-length encoding", "give pairs of start and length")
    starts, lengths = (np.array(words[first::2], np.int64) for first in (0, 1))
    starts = np.cumsum(starts) + np.cumsum(lengths) - lengths if relative else starts - 1
    ends = starts + lengths
    if len(starts) and (starts.min() < 0 or ends.max() > shape[0] * shape[1]):
        raise AutosegError(
            f"runs to pixel {ends.max()} of an image with {shape[0] * shape[1]}", "look at the file and the image's size"
        )
    backwards = np.flatnonzero(starts[1:] < ends[:-1])
    if backwards.size:
        place = int(backwards[0])
        raise AutosegError(
            f"the run lengths go backwards: {starts[place + 1] + 1} after a run to {ends[place]}",
            "if starts are relative to the run before, give --relative; else fix the table",
        )
    changes = np.zeros(shape[0] * shape[1] + 1, np.int32)
    np.add.at(changes, starts, 1)
    np.add.at(changes, ends, -1)
    flat = np.cumsum(changes[:-1]) > 0
    return flat.reshape(shape[::-1]).T.copy() if by_columns else flat.reshape(shape)


def _objects(entry: Entry) -> Label:
    """1 where a mask numbers an object."""
    label = read_label_entry(entry)
    return replace(label, array=(label.array > 0).astype(np.uint8), notes=())


def _binarise(entry: Entry) -> Label:
    if entry.suffix in _LOSSY:
        gray = read_image_entry(entry).array.mean(0)
        noisy = ((gray > 0) & (gray < 255)).any()
        return Label(
            array=(gray >= _HALF).astype(np.uint8), spacing=None, notes=("JPEG mask thresholded at 128",) if noisy else ()
        )
    label = read_label_entry(entry)
    values = label.array
    highest = int(values.max(initial=0))
    if highest <= 1:
        return replace(label, array=values.astype(np.uint8))
    if highest < _HALF or highest > 255:
        raise AutosegError(f"{entry.where}: values up to {highest}, neither 0 and 1 nor 0 and 255", "look at the file")
    stray = ((values > 0) & (values < 255)).any()
    notes = (*label.notes, "values between 0 and 255 thresholded at 128") if stray else label.notes
    return replace(label, array=(values >= _HALF).astype(np.uint8), notes=notes)


def _has_own_decoder(entry: Entry) -> bool:
    return entry.suffix.removesuffix(".gz") in _OWN_SUFFIXES


def _decode(entry: Entry) -> Array:
    """(H, W) or (H, W, 3) RGB uint8 or uint16 of a GIF or PPM, with or without gzip."""
    data = entry.bytes()
    try:
        if entry.suffix.endswith(".gz"):
            data = _decompress(data, entry)
        return _decode_gif(data, entry) if entry.suffix.startswith(".gif") else _decode_ppm(data, entry)
    except Pillow.DecompressionBombError as error:
        raise AutosegError(f"{entry.where} is too large: {error}", "cut it into tiles") from error
    except AutosegError:
        raise
    except Exception as error:  # Decoders raise many exceptions for damaged files.
        if is_out_of_memory(error):
            raise AutosegError(f"{entry.where} is too large for the memory of this machine", REMEDY) from error
        raise AutosegError(f"{entry.where} cannot be read as an image", UNREADABLE) from error


def _decompress(data: bytes, entry: Entry) -> bytes:
    budget = UnpackingBudget(where=entry.where, size=len(data), ratio=_PICTURE_RATIO)
    with gzip.open(io.BytesIO(data)) as stream:
        content = stream.read(budget.limit + 1)
    budget.spend(len(content), entry.where)
    return content


def _decode_gif(data: bytes, entry: Entry) -> Array:
    # Not `Pillow.open`: its limit on pixels is a setting of the whole process.
    with GifImageFile(io.BytesIO(data)) as picture:
        check_pixels(entry.where, picture.width, picture.height)
        # A GIF always has a palette; that of masks is gray.
        pixels = np.asarray(picture.convert("RGB"))
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def _decode_ppm(data: bytes, entry: Entry) -> Array:
    """Raises AutosegError for too many pixels, ValueError for damaged files."""
    with PpmImageFile(io.BytesIO(data)) as picture:
        check_pixels(entry.where, picture.width, picture.height)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("not a PPM file")
    return np.asarray(decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def _size(array: Array) -> str:
    return " x ".join(str(side) for side in array.shape)
