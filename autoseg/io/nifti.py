"""Header of a NIfTI-1 file (Cox et al., nifti1.h): what SimpleITK hides, misreads, or calls damaged without a reason."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from autoseg.io.types import UNREADABLE, Array
from autoseg.support.errors import AutosegError
from autoseg.support.pixel_limit import check_pixels

SUFFIXES = (".nii", ".nii.gz")
_HEADER, _HEADER_2 = 348, 540
_FLOATS = {16: "f4", 64: "f8"}
_RGBA = 2304
_UNREAD = {32: "complex numbers", 1792: "complex numbers", 2048: "complex numbers", 1536: "floats of 128 bits"}
_BLOCK = 1 << 20
# Extensions of the header, which lie before the pixels, are far smaller.
_LARGEST_OFFSET = 1 << 26
_TOLERANCE = 1e-3  # pixels


@dataclass(frozen=True)
class NiftiHeader:
    """placed: the file says where the image lies. alpha: the fourth channel is transparency. notes: contradictions."""

    placed: bool
    alpha: bool
    notes: tuple[str, ...]


def check(path: Path) -> NiftiHeader:
    """Raises AutosegError for kinds that SimpleITK does not read, truncated files, and values that are not finite numbers.

    ITK fills truncated files with zeros, and replaces values that are not finite by zeros, both without an error.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            return _check(stream, path)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise AutosegError(f"{path} cannot be read: {error}", UNREADABLE) from error


@contextmanager
def apart_from_siblings(path: Path) -> Iterator[Path]:
    """A path under which ITK reads this very file: of x.nii.gz it takes the pixels from x.nii if both are in one folder."""
    if not path.name.lower().endswith(".nii.gz") or not path.with_suffix("").exists():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(path, Path(folder) / "apart.nii.gz"))


def _check(stream: BinaryIO, path: Path) -> NiftiHeader:
    header = stream.read(_HEADER)
    order = next((order for order in "<>" if header[:4] in (struct.pack(order + "i", one) for one in (_HEADER, _HEADER_2))), "")
    if not order or len(header) < _HEADER:
        raise AutosegError(f"{path} does not begin with a NIfTI header", UNREADABLE)
    if header[:4] == struct.pack(order + "i", _HEADER_2):
        raise AutosegError(f"{path} is NIfTI-2, which autoseg does not read", "save it as NIfTI-1")
    if header[344:347] == b"ni1":
        raise AutosegError(f"{path} is the header of two files (.hdr and .img)", "save it as one .nii file")
    dimensions = struct.unpack(order + "8h", header[40:56])
    kind, bits = struct.unpack(order + "2h", header[70:74])
    sides = sorted(max(side, 1) for side in dimensions[1:4])
    check_pixels(path, sides[0] * sides[2], sides[1])
    if kind in _UNREAD:
        raise AutosegError(f"{path} holds {_UNREAD[kind]}, which autoseg does not read", "save magnitudes as floats of 32 bits")
    stated_offset = struct.unpack(order + "f", header[108:112])[0]
    if not 0 <= stated_offset <= _LARGEST_OFFSET:
        raise AutosegError(f"{path} has its pixels at byte {stated_offset:g}", UNREADABLE)
    offset = int(stated_offset)
    expected = offset + math.ceil(math.prod(dimensions[1 : dimensions[0] + 1]) * bits / 8)
    dtype = np.dtype(order + _FLOATS[kind]) if kind in _FLOATS else None
    length = len(header) + len(stream.read(max(offset - len(header), 0)))
    undefined = 0
    # What follows the pixels is not read: a small file can unpack to any length.
    while length < expected and (block := stream.read(_BLOCK)):
        values = block[: expected - length]
        length += len(block)
        if dtype is not None:
            numbers = np.frombuffer(values, dtype, len(values) // dtype.itemsize)
            undefined += int((~np.isfinite(numbers)).sum())
    if length < expected:
        raise AutosegError(f"{path} holds {length} bytes of {expected}", UNREADABLE)
    if undefined:
        raise AutosegError(f"{path} holds {undefined} values that are not finite numbers", "replace them, for example by 0")
    return _read_transforms(header, order, path, alpha=kind == _RGBA)


def _read_transforms(header: bytes, order: str, path: Path, alpha: bool) -> NiftiHeader:
    codes = struct.unpack(order + "2h", header[252:256])
    qform, sform = (_matrix(header, order, code) for code in ("q", "s"))
    used = [form for form, code in ((qform, codes[0]), (sform, codes[1])) if code > 0]
    for form in used:
        steps = form[:, :3] / np.maximum(np.linalg.norm(form[:, :3], axis=0), 1e-12)
        if np.abs(steps.T @ steps - np.eye(3)).max() > _TOLERANCE:
            raise AutosegError(f"{path} is sheared: its axes are not at right angles", "resample it onto a plain grid")
    differ = len(used) == 2 and np.abs(np.linalg.inv(qform[:, :3]) @ (qform - sform)).max() > _TOLERANCE
    return NiftiHeader(bool(used), alpha, ("qform and sform of the header differ: SimpleITK's choice taken",) if differ else ())


def _matrix(header: bytes, order: str, form: str) -> Array:
    """(3, 4): from pixel indices to mm."""
    if form == "s":
        return np.array(struct.unpack(order + "12f", header[280:328])).reshape(3, 4)
    b, c, d = quaternion = struct.unpack(order + "3f", header[256:268])
    a = math.sqrt(max(0.0, 1 - sum(part**2 for part in quaternion)))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    steps = np.array(struct.unpack(order + "4f", header[76:92]))
    signs = np.array([1.0, 1.0, -1.0 if steps[0] < 0 else 1.0])
    offset = np.array(struct.unpack(order + "3f", header[268:280]))
    return np.concatenate([rotation * steps[1:] * signs, offset[:, None]], axis=1)
