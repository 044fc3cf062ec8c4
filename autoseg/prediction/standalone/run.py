"""Masks for images, with NumPy, ONNX Runtime and Pillow only: python run.py -i IMAGES -o MASKS

All settings are in runtime.json next to this file. Arrays are (H, W, C) until the network, (K, H, W) after it. The order of
the operations and their types follow autoseg's and OpenCV's, so that masks equal those of autoseg_predict.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = Any  # of NumPy
Spacing = tuple[float, float] | None
F = np.float32
MAX_PIXELS = (1 << 25) - 1  # autoseg_predict treats larger images differently: in bands, without post-processing.
PICTURES = {".png": ".png", ".jpg": ".png", ".jpeg": ".png", ".tif": ".tif", ".tiff": ".tiff", ".bmp": ".bmp"}
DICOM, VOLUMES = ".dcm", (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
SIGNATURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
REPORT = "report.json"
VERSION = 1  # of runtime.json
BAND = 1 << 21  # pixels of a mask that are made at once
ELSE = "use autoseg_predict"


class UserError(Exception):
    """What is wrong, in which file, and what to do."""


# Reading -----------------------------------------------------


def read_image(path: Path) -> tuple[Array, Spacing]:
    """(H, W, C) uint8, uint16 or float32, colours as RGB, and the spacing (row, column) in mm of a DICOM file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of pydicom, which repeat tags of patients; of Pillow about large images.
        array, spacing = _read_dicom(path) if _suffix(path) == DICOM else (_read_picture(path), None)
    if array.dtype not in (np.uint8, np.uint16, np.float32):
        array = array.astype(F)
    if array.dtype == F and not np.isfinite(array).all():
        raise UserError(f"{path} holds values that are not finite numbers: replace them, for example by 0")
    return (array[..., None] if array.ndim == 2 else array), spacing


def _read_picture(path: Path) -> Array:
    data = path.read_bytes()
    start, end = data[:26], {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
    kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), None)
    if kind is None:
        raise UserError(f"{path} is no PNG, JPEG, TIFF or BMP file: save it as one of them")
    if end.get(kind, b"") not in data or (kind == "BMP" and int.from_bytes(data[2:6], "little") > len(data)):
        raise UserError(f"{path} cannot be read: it is cut short")
    del data
    try:
        picture: Any = Image.open(path, formats=[kind])
        _check_pixels(path, *picture.size)
        _check_kind(path, picture, kind, start)
        picture.load()
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if picture.mode == "PA" or ("transparency" in picture.info and picture.mode in ("P", "RGB")):
        picture = picture.convert("RGBA")
    elif picture.mode == "P":
        picture = picture.convert("RGB")
    array = np.asarray(picture)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(F if kind == "TIFF" and picture.tag_v2.get(339, (1,))[0] == 2 else np.uint16)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = _without_alpha(path, array)
    return _upright(array, picture, kind)


def _check_kind(path: Path, picture: Any, kind: str, start: bytes) -> None:
    """Refuse what Pillow would change without a word, or reads otherwise than autoseg does."""
    reason = ""
    if kind == "PNG" and start[24] == 16 and start[25] != 0:
        reason = "colours or transparency of 16 bits"
    elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        reason = f"{picture.mode} colours"
    elif kind == "TIFF":
        tags = picture.tag_v2
        bits, number = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
        stack = re.search(r"^images=(\d+)", str(tags.get(270, "")), re.MULTILINE)
        if getattr(picture, "n_frames", 1) > 1 or (stack and int(stack[1]) > 1):
            reason = "several pages"
        elif 0 in tags.get(338, ()) or tags.get(277, 1) != len(picture.getbands()):
            reason = "bands of no declared meaning"
        elif (bits not in ({1}, {8}) or number != {1}) and (
            tags.get(277, 1) > 1 or (bits, number) not in (({16}, {1}), ({16}, {2}), ({32}, {3})) or tags.get(262) == 0
        ):
            reason = f"numbers of {max(bits)} bits of this kind"
    if reason:
        raise UserError(f"{path} holds {reason}, which are not read here: {ELSE}, or save it as 8 bit RGB")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(f"{path} is too large: {width} x {height} pixels, more than {MAX_PIXELS}: {ELSE}, or cut it into tiles")


def _without_alpha(path: Path, array: Array) -> Array:
    alpha = array[..., -1]
    if alpha.min() == alpha.max():
        return array[..., 0] if array.shape[2] == 2 else array[..., :3]
    raise UserError(f"{path} has a transparency (alpha) channel that varies: flatten the picture onto a background")


def _upright(array: Array, picture: Any, kind: str) -> Array:
    """The array turned by its EXIF orientation, as viewers show it. Pillow has done so for TIFF."""
    orientation, exif = 1, picture.info.get("exif", b"")
    if exif and kind != "TIFF":
        try:
            tags = Image.Exif()
            tags.load(bytes(exif))
            orientation = tags.get(0x0112, 1)
        except Exception:  # A damaged block raises many exceptions; viewers ignore it too.
            orientation = 1
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array[::-1] if orientation in (3, 4, 7, 8) else array)


def _read_dicom(path: Path) -> tuple[Array, Spacing]:
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise UserError(f"{path}: DICOM needs pydicom: pip install pydicom") from error
    try:
        tags = pydicom.dcmread(path, stop_before_pixels=True)
        kind = str(tags.PhotometricInterpretation)
        if int(tags.get("NumberOfFrames") or 1) > 1 or tags.get("SharedFunctionalGroupsSequence"):
            raise UserError(f"{path} is a DICOM file of several frames, which is not read here: {ELSE}")
        if kind == "PALETTE COLOR" or tags.get("ModalityLUTSequence") or int(tags.HighBit) != int(tags.BitsStored) - 1:
            raise UserError(f"{path} is a DICOM file with tables of values, which is not read here: {ELSE}")
        _check_pixels(path, int(tags.Columns), int(tags.Rows))
        values = np.asarray(pixel_array(path, index=0))
        slope, intercept = float(tags.get("RescaleSlope") or 1), float(tags.get("RescaleIntercept") or 0)
    except UserError:
        raise
    except Exception as error:  # pydicom and its decoders raise many exceptions on damaged files.
        raise UserError(f"{path} cannot be read as DICOM: {error}") from error
    if kind == "MONOCHROME1":
        highest = -1 if int(tags.PixelRepresentation) else (1 << int(tags.BitsStored)) - 1
        values = (highest - values.astype(np.int64)).astype(values.dtype)
    if values.ndim == 2 and (slope, intercept) != (1.0, 0.0):
        values = values.astype(F) * F(slope) + F(intercept)
    stated = (tags.get(name) for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"))
    found = next((one for one in stated if one and len(one) == 2 and min(map(float, one)) > 0), None)
    return values, (float(found[0]), float(found[1])) if found else None


# Resizing, as cv2.resize does it -----------------------------


def resize_pixels(pixels: Array, size: tuple[int, int]) -> Array:
    """(H, W, C) -> (h, w, C) of the same type: area averages where an axis shrinks, then bilinear where one grows."""
    parts = []
    for start in range(0, pixels.shape[2], 4):  # autoseg gives OpenCV four channels at a time.
        part = pixels[..., start : start + 4]
        smaller = (min(part.shape[0], size[0]), min(part.shape[1], size[1]))
        part = part if smaller == part.shape[:2] else _shrink(part, smaller)
        parts.append(part if size == part.shape[:2] else _enlarge(part, size))
    return np.concatenate(parts, axis=2)


def _shrink(pixels: Array, size: tuple[int, int]) -> Array:
    """INTER_AREA."""
    steps = [1.0 / (short / long) for short, long in zip(size, pixels.shape[:2], strict=True)]
    rows, columns = whole = [round(step) for step in steps]
    if max(abs(step - one) for step, one in zip(steps, whole, strict=True)) < np.finfo(float).eps:
        return _average_blocks(pixels, size, rows, columns)
    result = np.empty((pixels.shape[0], size[1], pixels.shape[2]), F)
    for start in range(0, len(pixels), 64):
        band = pixels[start : start + 64].astype(F).swapaxes(0, 1)
        result[start : start + 64] = _average(band, size[1]).swapaxes(0, 1)
    return _rounded(_average(result, size[0]), pixels.dtype)


def _average_blocks(pixels: Array, size: tuple[int, int], rows: int, columns: int) -> Array:
    """Averages of blocks of whole pixels: integers are summed as such, 16 bits in groups of four."""
    blocks = pixels.reshape(size[0], rows, size[1], columns, pixels.shape[2])
    taps = [blocks[:, row, :, column] for row in range(rows) for column in range(columns)]
    exact = pixels.dtype.kind == "u"
    if exact and (rows, columns) == (2, 2) and pixels.shape[2] != 2:
        return ((sum(tap.astype(np.int32) for tap in taps) + 2) >> 2).astype(pixels.dtype)
    total = np.zeros(taps[0].shape, np.int64 if pixels.dtype == np.uint8 else F)
    for start in range(0, len(taps), 4):
        group = taps[start : start + 4]
        for part in [group] if len(group) == 4 else [[tap] for tap in group]:
            total += sum(tap.astype(np.int64 if exact else F) for tap in part)
    return _rounded(total.astype(F) * F(1.0 / (rows * columns)), pixels.dtype)


def _average(values: Array, length: int) -> Array:
    """Averages along axis 0, each pixel weighted by the part of it that is covered."""
    step = 1.0 / (length / len(values))
    first = np.arange(length) * step
    width, last = np.minimum(step, len(values) - first), first + step
    stop = np.minimum(np.floor(last), len(values) - 1)
    start = np.minimum(np.ceil(first), stop)
    before, after = start - first, last - stop
    result = np.zeros((length, *values.shape[1:]), F)
    for tap in range(int((stop - start).max()) + 2):
        place = start - 1 + tap
        weight = np.where((place >= start) & (place < stop), 1.0 / width, 0.0)
        weight = np.where((place < start) & (before > 1e-3), before / width, weight)
        weight = np.where((place == stop) & (after > 1e-3), np.minimum(np.minimum(after, 1.0), width) / width, weight)
        index = np.clip(place, 0, len(values) - 1).astype(np.intp)
        result += values[index] * _along(weight.astype(F), 0, values.ndim)
    return result


def _enlarge(pixels: Array, size: tuple[int, int]) -> Array:
    """INTER_LINEAR: 8 bits with weights of 11 bits, other types in float32."""
    if pixels.dtype != np.uint8:
        return _rounded(bilinear(pixels, size), pixels.dtype)
    (top, bottom, y), (left, right, x) = (_neighbours(pixels.shape[axis], size[axis], True) for axis in (0, 1))
    x = np.where((left == right), F(0), x)
    (x0, x1), (y0, y1) = (
        [_along(np.rint(one * F(2048)).astype(np.int32), axis, 3) for one in (F(1) - part, part)]
        for axis, part in ((1, x), (0, y))
    )
    result = np.empty((*size, pixels.shape[2]), np.uint8)
    rows = (pixels[:, left].astype(np.int32) * x0 + pixels[:, right].astype(np.int32) * x1) >> 4
    for start in range(0, size[0], 64):
        band = slice(start, start + 64)
        result[band] = ((y0[band] * rows[top[band]] >> 16) + (y1[band] * rows[bottom[band]] >> 16) + 2) >> 2
    return result


def bilinear(values: Array, size: tuple[int, int]) -> Array:
    """(H, W) or (H, W, C) -> float32 of `size`, pixel centres at 0.5. Products and sums are rounded once, together."""
    # OpenCV has another routine for two channels, and for single rows and columns.
    plain = (values.ndim == 3 and values.shape[2] == 2) or 1 in values.shape[:2]
    result = values.astype(F)
    for axis in (1, 0):
        low, high, part = _neighbours(values.shape[axis], size[axis], plain)
        part = _along(part, axis, values.ndim)
        first, second = np.take(result, low, axis), np.take(result, high, axis)
        if plain:
            result = first * (F(1) - part) + second * part
        else:
            result = (first + part.astype(np.float64) * (second - first)).astype(F)
    return result


def _neighbours(length: int, new: int, single: bool = False) -> tuple[Array, Array, Array]:
    """For each of `new` pixels the two of `length` around its centre, and the weight of the second."""
    place = (np.arange(new) + 0.5) * (1.0 / (new / length)) - 0.5
    place = place.astype(F) if single else place
    low = np.floor(place).astype(np.intp)
    return np.clip(low, 0, length - 1), np.clip(low + 1, 0, length - 1), (place - low).astype(F)


def _along(weights: Array, axis: int, ndim: int) -> Array:
    return weights.reshape([-1 if one == axis else 1 for one in range(ndim)])


def _rounded(values: Array, dtype: Any) -> Array:
    return values.astype(dtype) if dtype == F else np.rint(values).astype(dtype)


# The networks ------------------------------------------------


class Model:
    """The networks of a folder, and all that happens around them. threads: of ONNX Runtime, 0 for all cores."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Raises UserError if a file is missing or was changed after the export."""
        import onnxruntime

        self.settings = _read_settings(folder / "runtime.json")
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads
        self.sessions = []
        for member in self.settings["members"]:
            file = folder / member["file"]
            if not file.is_file() or _sha256(file) != member["sha256"]:
                raise UserError(f"{file} is missing, or was changed after the export: export the folder again")
            self.sessions.append(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))

    def predict(self, image: Array, spacing: Spacing = None, mirrored: bool | None = None) -> Array:
        """The mask (H, W) of an image (H, W, C). spacing: (row, column) in mm, where the networks need it.

        mirrored: average over mirrored views; None: as planned.
        """
        size = (image.shape[0], image.shape[1])
        total = np.zeros(0)
        for number, (member, session) in enumerate(zip(self.settings["members"], self.sessions, strict=True)):
            maps = self._member(member, session, image, spacing, mirrored)
            if number == 0:
                total = maps
            else:
                total = total + np.stack([_at_size(one, total.shape[1:]) for one in maps])
        return self._postprocess(self._label_map(total / F(len(self.sessions)), size))

    def _member(self, member: dict[str, Any], session: Any, image: Array, spacing: Spacing, mirrored: bool | None) -> Array:
        """One network's probabilities (K, h, w) of the image without its padding."""
        stored, rows, columns = preprocess(image, member, spacing)
        statistics = _statistics(stored, member["normalisation"])
        axes = [axis + 2 for axis in member["mirror"]] if (member["tta"] if mirrored is None else mirrored) else []
        views = [subset for count in range(len(axes) + 1) for subset in combinations(axes, count)]

        def probabilities(tile: Array) -> Array:
            values = normalise(tile, statistics, member["normalisation"])
            total = sum(np.flip(self._probabilities(member, session, np.flip(values, view)), view) for view in views)
            return total[0] / F(len(views))

        maps = probabilities(stored) if member["geometry"] == "resize" else self._tiled(stored, member, probabilities)
        return maps[:, rows, columns]

    def _tiled(self, stored: Array, member: dict[str, Any], probabilities: Callable[[Array], Array]) -> Array:
        """(K, h, w) of overlapping tiles, weighted by Gaussians. A smaller image is mirrored at its edges."""
        patch, size = member["input_size"], stored.shape[:2]
        missing = [max(0, side - length) for side, length in zip(patch, size, strict=True)]
        padded = np.pad(stored, [*((one // 2, one - one // 2) for one in missing), (0, 0)], mode="reflect")
        starts = [_starts(length, side, self.settings["tile_step"]) for length, side in zip(padded.shape, patch, strict=False)]
        weights = [_profile(side, self.settings["tile_sigma"]) for side in patch]
        total = np.zeros((len(self.settings["names"]), *padded.shape[:2]), F)
        for top, left in product(*starts):
            area = (slice(top, top + patch[0]), slice(left, left + patch[1]))
            total[:, area[0], area[1]] += probabilities(padded[area]) * weights[0][:, None] * weights[1]
        for axis in (0, 1):
            sums = np.zeros(padded.shape[axis], F)
            for start in starts[axis]:
                sums[start : start + patch[axis]] += weights[axis]
            total /= _along(sums, axis + 1, 3)
        top, left = (one // 2 for one in missing)
        return total[:, top : top + size[0], left : left + size[1]]

    def _probabilities(self, member: dict[str, Any], session: Any, values: Array) -> Array:
        """(1, C, h, w) -> (1, K, h, w)."""
        logits = session.run([member["output"]], {member["input"]: np.ascontiguousarray(values)})[0].astype(F)
        if member["activation"] == "softmax":
            powers = np.exp(logits - logits.max(1, keepdims=True))
            return powers / powers.sum(1, keepdims=True)
        with np.errstate(over="ignore"):
            maps = F(1) / (F(1) + np.exp(-logits))
        return maps if self.settings["regions"] else maps / np.maximum(maps.sum(1, keepdims=True), np.finfo(F).tiny)

    def _label_map(self, maps: Array, size: tuple[int, int]) -> Array:
        """(K, h, w) -> (H, W), in bands of rows, so that the probabilities of the whole image are never in memory."""
        values = self.settings["values"]
        labels = np.zeros(size, np.uint8 if max(values) < 256 else np.uint16)
        height = max(1, BAND // size[1])
        for start in range(0, size[0], height):
            rows = (start, min(start + height, size[0]))
            out = labels[slice(*rows)]
            if self.settings["regions"] or len(maps) == 2:
                for one, value in list(zip(maps, values, strict=True))[0 if self.settings["regions"] else 1 :]:
                    out[_band(one, size, rows) > 0.5] = value
                continue
            best = _band(maps[0], size, rows)
            for one, value in zip(maps[1:], values[1:], strict=True):
                candidate = _band(one, size, rows)
                out[candidate > best] = value
                best = np.maximum(best, candidate)
        return labels

    def _postprocess(self, labels: Array) -> Array:
        """Each class's post-processing. Dropped pixels become background, and only background is filled."""
        for one in self.settings["postprocessing"]:
            mask = np.isin(labels, one["members"])
            cleaned = clean(mask, one["min_object_fraction"], one["keep_largest"], one["fill_holes"])
            labels[mask & ~cleaned] = 0
            labels[cleaned & ~mask & (labels == 0)] = one["value"]
        return labels


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = settings["schema_version"] == VERSION and all(one["file"] and one["sha256"] for one in settings["members"])
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path} is missing, damaged, or of another version of autoseg: export the folder again")
    return settings


def preprocess(image: Array, member: dict[str, Any], spacing: Spacing) -> tuple[Array, slice, slice]:
    """The image as the network's training arrays are, and the rows and columns of it that are not padding."""
    image = _match_channels(image, member["channels"])
    height, width = image.shape[:2]
    if member["geometry"] == "resize":
        size = tuple(member["size"])
    elif member["spacing"] is None:
        size = tuple(max(1, round(side * member["scale"])) for side in (height, width))
    elif spacing is None:
        raise UserError("the networks need the image's spacing, which its file does not have: give --spacing ROW COLUMN (mm)")
    else:
        ratios = (one / other for one, other in zip(spacing, member["spacing"], strict=True))
        size = tuple(max(1, round(side * ratio)) for side, ratio in zip((height, width), ratios, strict=True))
    inner, top, left = size, 0, 0
    if member["pad"]:
        factor = min(size[0] / height, size[1] / width)
        inner = (max(1, round(height * factor)), max(1, round(width * factor)))
        top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    pixels = resize_pixels(image, inner)
    if member["pad"]:
        around = np.full((*size, pixels.shape[2]), 0 if pixels.dtype.kind == "u" else image.min(), pixels.dtype)
        around[top : top + inner[0], left : left + inner[1]] = pixels
        pixels = around
    return _cast(pixels, member["dtype"]), slice(top, top + inner[0]), slice(left, left + inner[1])


def _match_channels(image: Array, expected: int) -> Array:
    channels = image.shape[2]
    if channels == expected:
        return image
    if (channels, expected) == (1, 3):
        return np.repeat(image, 3, axis=2)
    if (channels, expected) == (3, 1):
        if (image == image[..., :1]).all():
            return image[..., :1]
        gray = np.empty((*image.shape[:2], 1), image.dtype)
        rows = max(1, (1 << 20) // image.shape[1])
        for start in range(0, len(image), rows):
            planes = np.moveaxis(image[start : start + rows], 2, 0).astype(F)
            luminance = np.tensordot(np.array((0.299, 0.587, 0.114), F), planes, 1)
            gray[start : start + rows, :, 0] = _rounded(luminance, image.dtype)
        return gray
    raise UserError(f"the image has {channels} channel{'s' * (channels > 1)}, the networks were trained for {expected}")


def _cast(pixels: Array, dtype: str) -> Array:
    limit = {"uint8": 255, "uint16": 65535}.get(dtype, math.inf)
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype != dtype and limit < math.inf and (low < 0 or high > limit):
        raise UserError(f"the image holds values {low:g}..{high:g}, the training images were {dtype} (0..{limit})")
    return pixels if pixels.dtype == dtype else (np.rint(pixels) if limit < math.inf else pixels).astype(dtype)


def _statistics(stored: Array, settings: dict[str, Any]) -> tuple[Array, Array]:
    """Mean and deviation of each channel: the plan's, or the image's own."""
    if settings["scheme"] == "constant":
        return np.array(settings["mean"], F), np.array(settings["std"], F)
    values = _clip(stored, settings).astype(np.float64)
    std = values.std((0, 1))
    return values.mean((0, 1)).astype(F), np.where(std > 1e-6 * np.abs(values).max((0, 1)), std, 1.0).astype(F)


def normalise(tile: Array, statistics: tuple[Array, Array], settings: dict[str, Any]) -> Array:
    """(h, w, C) as stored -> (1, C, h, w) float32."""
    mean, std = statistics
    values = _clip(tile, settings) - mean
    values = values * (F(1) / std) if settings["scheme"] == "constant" else values / std
    return values.transpose(2, 0, 1)[None]


def _clip(values: Array, settings: dict[str, Any]) -> Array:
    values = values.astype(F)
    return np.clip(values, np.array(settings["lower"], F), np.array(settings["upper"], F)) if settings["lower"] else values


def _starts(length: int, patch: int, step: float) -> list[int]:
    """First pixels of evenly spread tiles."""
    count = max(1, math.ceil((length - patch) / (patch * step)) + 1)
    return [round(index * (length - patch) / max(1, count - 1)) for index in range(count)]


def _profile(patch: int, sigma: float) -> Array:
    """Gaussian weights of a tile along one axis."""
    return np.exp(F(-0.5) * ((np.arange(patch, dtype=F) - F((patch - 1) / 2)) / F(patch * sigma)) ** 2)


def _at_size(channel: Array, size: tuple[int, ...]) -> Array:
    return channel if channel.shape == tuple(size) else bilinear(channel, (size[0], size[1]))


def _band(channel: Array, size: tuple[int, int], rows: tuple[int, int]) -> Array:
    """Rows of a map (h, w) at `size`."""
    if channel.shape == size:
        return channel[slice(*rows)]
    if rows == (0, size[0]):
        return bilinear(channel, size)
    place = np.clip((np.arange(*rows, dtype=F) + 0.5) * (len(channel) / size[0]) - 0.5, 0, len(channel) - 1)
    above = place.astype(np.intp)
    part = (place - above)[:, None].astype(F)
    lines = channel[above] * (1 - part) + channel[np.minimum(above + 1, len(channel) - 1)] * part
    return bilinear(lines, (len(lines), size[1]))


# Post-processing ---------------------------------------------


def clean(mask: Array, min_object_fraction: float, keep_largest: bool, fill_holes: bool) -> Array:
    """A boolean mask (H, W) without small objects (8-connected), the largest of them only, holes (4-connected) filled."""
    if min_object_fraction or keep_largest:
        objects, areas = components(mask, diagonal=True)
        kept = np.concatenate([[False], areas >= min_object_fraction * mask.size])
        if keep_largest and kept.any():
            kept = np.arange(len(kept)) == 1 + int(np.argmax(np.where(kept[1:], areas, 0)))
        mask = kept[objects]
    if fill_holes:
        gaps, areas = components(~mask, diagonal=False)
        outside = np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))
        mask = ~(np.isin(np.arange(len(areas) + 1), outside[outside > 0])[gaps])
    return mask


def components(mask: Array, diagonal: bool) -> tuple[Array, Array]:
    """Number of each pixel's component, from 1 in reading order, 0 outside of the mask; and the components' areas in pixels.

    Runs of pixels in a row are joined with the runs they touch in the row below.
    """
    height, width = mask.shape
    line = width + 1  # A gap after each row, so that no run goes on in the next.
    flat = np.zeros(height * line + 1, np.int8)
    flat[1:].reshape(height, line)[:, :width] = mask
    change = np.diff(flat)
    starts, stops = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    reach = int(diagonal)
    first = np.searchsorted(stops, starts + line - reach, "right")
    counts = np.maximum(np.searchsorted(starts, stops + line + reach, "left") - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.repeat(first, counts) + np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    root = np.arange(len(starts))
    while len(upper):
        one, other = root[upper], root[lower]
        if (one == other).all():
            break
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while (root[root] != root).any():
            root = root[root]
    _, number = np.unique(root, return_inverse=True)
    areas = np.bincount(number, stops - starts).astype(np.int64) if len(starts) else np.zeros(0, np.int64)
    labels = np.zeros(height * line + 1, np.int64)
    np.add.at(labels, starts, number + 1)
    np.add.at(labels, stops, -(number + 1))
    return np.cumsum(labels)[:-1].reshape(height, line)[:, :width], areas


# Files -------------------------------------------------------


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def find_cases(inputs: Sequence[Path], channels: int, hide: bool) -> dict[str, list[Path]]:
    """Name of each mask -> the files of its image. `<case>_0000`, `<case>_0001`, ... are the channels of one case."""
    files = list(inputs)
    if len(files) == 1 and files[0].is_dir():
        known = (*PICTURES, DICOM, *VOLUMES)
        files = sorted(one for one in files[0].iterdir() if _suffix(one) in known and one.is_file() and one.name[0] != ".")
    if not files or any(one.is_dir() for one in files) or not any(one.exists() for one in files):
        raise UserError(f"{inputs[0]} does not exist, or contains no images: give one folder of images, or image files")
    groups: dict[tuple[Path, str, str], dict[int, Path]] = {}
    for path in files:
        stem = path.name[: len(path.name) - len(_suffix(path))]
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        name, number = (match[1], int(match[2])) if match else (stem, -1)
        groups.setdefault((path.parent, name, _suffix(path)), {})[number] = path
    cases: list[tuple[str, list[Path]]] = []
    for (_, name, _), members in sorted(groups.items()):
        separate = members.pop(-1, None)
        if members and (max(members) >= channels or 0 not in members or (len(members) > 1 and _is_complete(members, channels))):
            cases += [(path.name[: len(path.name) - len(_suffix(path))], [path]) for path in members.values()]
        elif members:
            cases.append((name, [members[number] for number in sorted(members)]))
        cases += [(name, [separate])] if separate else []
    return _name_masks(cases, hide)


def _is_complete(members: dict[int, Path], channels: int) -> bool:
    """Whether a numbered file has all channels, as the frames of a video have."""
    try:
        return bool(read_image(next(iter(members.values())))[0].shape[2] == channels)
    except (UserError, OSError):
        return False


def _name_masks(cases: list[tuple[str, list[Path]]], hide: bool) -> dict[str, list[Path]]:
    named = []
    for name, files in cases:
        suffix = _suffix(files[0])
        # The names of DICOM files tell who the patient is.
        name = f"case_{_sha256(files[0])[:12]}" if (hide or suffix == DICOM) and files[0].is_file() else name
        named.append((name, PICTURES.get(suffix, ".png"), files))
    masks = [f"{name}{ending}".casefold() for name, ending, _ in named]
    result: dict[str, list[Path]] = {}
    for (name, ending, files), mask in zip(named, masks, strict=True):
        name = name if masks.count(mask) == 1 else f"{name}_{_suffix(files[0])[1:].replace('.', '_')}"
        number, final = 1, f"{name}{ending}"
        while final in result:
            number += 1
            final = f"{name}_{number}{ending}"
        result[final] = files
    return result


def _read_case(files: list[Path]) -> tuple[Array, Spacing]:
    images = [read_image(path) for path in files]
    first = images[0][0]
    for path, (image, _) in zip(files, images, strict=True):
        if image.shape[:2] != first.shape[:2]:
            raise UserError(f"{path} has another size than {files[0]}: all channels of a case need the same size")
    return np.concatenate([image for image, _ in images], axis=2), images[0][1]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, labels: Array, colours: dict[str, list[int]] | None) -> None:
    """Written next to it and renamed, so that a mask is complete. colours: label value -> RGB, for PNG."""
    picture = Image.fromarray(labels)
    if colours and path.suffix == ".png" and labels.dtype == np.uint8:
        table = np.zeros((256, 3), np.uint8)
        for value, colour in colours.items():
            table[int(value)] = colour
        picture.putpalette(table.tobytes(), "RGB")
    with _written_beside(path) as temporary:
        picture.save(temporary)


@contextmanager
def _written_beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run(model: Model, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the masks and the report: masks with what is known of them, and the problem of each image that has none."""
    cases = find_cases(options.input, model.settings["members"][0]["channels"], options.hide_names)
    inputs = {path.resolve() for files in cases.values() for path in files}
    there = [name for name in cases if (options.output / name).is_file()]
    if any((options.output / name).resolve() in inputs for name in cases):
        raise UserError(f"masks in {options.output} would overwrite images: give another output folder")
    if there and not (options.output / REPORT).is_file():
        raise UserError(f"{options.output} holds {there[0]}, which this program did not write: give another output folder")
    options.output.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}
    _report(model, options, done, failed)  # Marks the folder as ours, should the run be stopped.
    for name, files in cases.items():
        try:
            if _suffix(files[0]) in VOLUMES:
                raise UserError(f"{files[0]} is a {_suffix(files[0])} file, which is not read here: {ELSE}")
            image, spacing = _read_case(files)
            labels = model.predict(image, tuple(options.spacing) if options.spacing else spacing, options.tta)
        except (UserError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            text = text if str(files[0]) in text else f"{files[0]}: {text}"
            if options.hide_names or _suffix(files[0]) == DICOM:
                for secret in (one for path in files for one in (str(path), path.name)):
                    text = text.replace(secret, name)
            failed[name] = text
            continue
        _write(options.output / name, labels, model.settings["colours"] if options.visible else None)
        counts = np.bincount(labels.ravel())
        pixels = {str(value): int(counts[value]) for value in np.flatnonzero(counts)}
        done[name] = {"sha256": [_sha256(path) for path in files], "size": labels.shape, "pixels": pixels}
    _report(model, options, done, failed)
    return done, failed


def _report(model: Model, options: argparse.Namespace, done: dict[str, Any], failed: dict[str, str]) -> None:
    settings = model.settings
    networks = {one["file"]: one["sha256"] for one in settings["members"]}
    report = {"producer": settings["producer"], "dataset": settings["dataset"], "networks": networks, "tta": options.tta}
    report |= {"labels": settings["labels"], "cases": done, "failed": failed}
    with _written_beside(options.output / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8", errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all masks are written; 1 some images could not be predicted, the others were; 2 nothing could be done."""
    parser = argparse.ArgumentParser(description="Write a mask for each image, in the image's size.")
    parser.add_argument("-i", "--input", required=True, nargs="+", type=Path, metavar="IN", help="images, or a folder of them")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the masks")
    parser.add_argument(
        "--tta", action=argparse.BooleanOptionalAction, help="average over mirrored views or not (default: as planned)"
    )
    parser.add_argument("--visible", action="store_true", help="PNG masks with colours; their values stay class numbers")
    parser.add_argument("--spacing", nargs=2, type=float, metavar="MM", help="rows and columns, for images without a spacing")
    parser.add_argument("--hide-names", action="store_true", help="neutral names for all masks, not only those of DICOM files")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of ONNX Runtime (default: all cores)")
    options = parser.parse_args(arguments)
    if options.threads < 0 or not all(0 < one < math.inf for one in options.spacing or ()):
        parser.error("--spacing needs two numbers above 0, --threads 0 or more")
    try:
        done, failed = run(Model(Path(__file__).parent, options.threads), options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(done)} masks in {options.output}")
    if failed:
        print(f"{len(failed)} could not be predicted:", *(f"  - {name}: {text}" for name, text in failed.items()), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
