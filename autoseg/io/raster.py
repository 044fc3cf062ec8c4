"""Pictures: PNG, JPEG, BMP and TIFF. A file has one decoder: OpenCV for images, Pillow for masks, tifffile for TIFF."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

import autoseg.io.tiff as tiff
from autoseg.io.types import UNREADABLE, Array, Decoded, Image, Label, as_image, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, is_utf8
from autoseg.support.pixel_limit import check_pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_PNG, _JPEG, _BMP = b"\x89PNG", b"\xff\xd8\xff", b"BM"
_SIGNATURES = (_PNG, _JPEG, _BMP, *tiff.SIGNATURES)
# Pillow's readers of headers. `Image.open` would ask its limit on pixels, which is one for the whole process: not ours to set.
_HEADERS: tuple[tuple[bytes, Callable[[BinaryIO], Pillow.Image]], ...] = (
    (_PNG, PngImageFile),
    (_JPEG, JpegImageFile),
    (_BMP, BmpImageFile),
)
_OTHERS = ("GIF", "WEBP", "PPM", "JPEG2000")
_PNG_UNSCALE = {2: 85, 4: 17}  # Decoders stretch 2- and 4-bit grays to 0..255; class ids must not be.
_GRAY_WITH_ALPHA = b"\x04"  # colour type in the header of a PNG; Pillow tells it for 8 bits only
_STRIP = 256  # rows
_RAMP = 16  # entries; a complete inverting ramp of so many is a display table, not the work of a PNG optimiser


def is_picture(path: Path) -> bool:
    """Whether this is a picture, by the suffix or else the first bytes."""
    if path.suffix.lower() in SUFFIXES or not path.is_file():
        return True
    return _read_bytes(path, 4).startswith(_SIGNATURES)


def count_pixels(path: Path) -> int:
    """Rows times columns, from the header. Raises AutosegError for unreadable files."""
    if _read_bytes(path, 4).startswith(tiff.SIGNATURES):
        return tiff.count_pixels(path)
    with path.open("rb") as stream:
        picture = _open_header(stream, path)
        return int(picture.width * picture.height)


def read_image(path: Path) -> Image:
    """See `autoseg.io.read_image`."""
    decoded = tiff.decode(path) if _read_bytes(path, 4).startswith(tiff.SIGNATURES) else _decode_image(path)
    array, notes = decoded.array, decoded.notes
    if decoded.alpha is not None:
        array, alpha_notes = _drop_alpha(array, decoded.alpha, path)
        notes += alpha_notes
    if decoded.palette is not None:
        array, notes = decoded.palette[array], (*notes, "palette colours resolved")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    array, rounding_notes = as_image(array)
    array, orientation_notes = _apply_orientation(array, decoded.orientation)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    return Image(
        array=array,
        spacing=None,
        geometry=None,
        notes=notes + orientation_notes + rounding_notes,
        orientation=decoded.orientation,
    )


def read_label(path: Path) -> Label:
    """See `autoseg.io.read_label`."""
    decoded = tiff.decode(path, mask=True) if _read_bytes(path, 4).startswith(tiff.SIGNATURES) else _decode_label(path)
    array, notes = decoded.array, decoded.notes
    if decoded.alpha is not None:
        array, alpha_notes = _drop_alpha(array, decoded.alpha, path)
        notes += alpha_notes
    if decoded.palette is not None:
        array, palette_notes = _palette_values(array, decoded.palette)
        notes += palette_notes
    array, orientation_notes = _apply_orientation(array, decoded.orientation)
    notes += orientation_notes
    if array.ndim == 3:
        array = _to_one_channel(array, path)
    values = as_label(array)
    if values is None:
        raise AutosegError(
            f"{path} is no mask: its values are not whole numbers from 0 to 65535 ({array.min()} to {array.max()})",
            "store class ids: 0 for the background, 1 for the first class, and so on",
        )
    return Label(array=values, spacing=None, geometry=None, notes=notes, lossy=decoded.lossy)


def write(path: Path, array: Array) -> None:
    """(C, H, W) with one or three channels. Raises ValueError for what the format cannot hold."""
    suffix = path.suffix.lower()
    kinds = {".png": "uint8 uint16", ".bmp": "uint8"}.get(suffix, "uint8 uint16 float32").split()
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype.name not in kinds:
        raise ValueError(f"{path}: {suffix} cannot hold {array.shape[0]} channels of {array.dtype}")
    pixels = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)[..., ::-1]
    succeeded, encoded = cv2.imencode(suffix, np.ascontiguousarray(pixels))
    if not succeeded:
        raise ValueError(f"{path}: OpenCV could not encode {array.shape} {array.dtype} as {suffix}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_palette(path: Path, labels: Array, colours: Mapping[int, tuple[int, int, int]]) -> None:
    """A PNG of label values (H, W) uint8 that viewers show in colours (RGB): the values are the indices of its palette.

    Values without a colour are shown black.
    """
    picture = Pillow.fromarray(labels)
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    picture.putpalette(palette.tobytes(), "RGB")
    with atomic_write(path) as temporary:
        picture.save(temporary, "PNG")


def apply_exif_orientation(array: Array, orientation: int) -> Array:
    """(H, W) or (H, W, C) as stored, turned as viewers show it for EXIF orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _apply_orientation(array: Array, orientation: int) -> tuple[Array, tuple[str, ...]]:
    """`apply_exif_orientation`, and a note if it changed the array."""
    return (
        (array, ())
        if orientation == 1
        else (apply_exif_orientation(array, orientation), (f"EXIF orientation {orientation} applied",))
    )


def _decode_image(path: Path) -> Decoded:
    data = _read_bytes(path)
    orientation, notes, gray = _inspect(data, path)
    del data  # Free the file content before decoding.
    array = _decode_with_opencv(path)
    if array is None:
        raise AutosegError(f"{path} cannot be read as an image", UNREADABLE)
    if array.ndim == 3 and gray:  # OpenCV shows grays with alpha as colours.
        array = array[..., :: array.shape[2] - 1] if array.shape[2] == 4 else array[..., 0]
    elif array.ndim == 3:
        array = _bgr_to_rgb(array)
    return Decoded(array=array, notes=notes, orientation=orientation, alpha=_last_of_two_or_four(array))


def _decode_with_opencv(path: Path) -> Array | None:
    """Decode into an array that numpy owns; one that OpenCV owns would be copied."""
    if is_utf8(path):
        try:
            array = cv2.imread(str(path), None, cv2.IMREAD_UNCHANGED)
            if array is not None or str(path).isascii():
                return array
        except cv2.error:  # OpenCV before 4.11 takes no array to fill.
            array = None
    # On some systems OpenCV opens no path with letters beyond ASCII; a path that is no UTF-8 ends the process.
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def _bgr_to_rgb(array: Array) -> Array:
    """(H, W, 3) BGR or (H, W, 4) BGRA to RGB or RGBA; in place, strip by strip, to save memory."""
    order = cv2.COLOR_BGR2RGB if array.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    for start in range(0, len(array), _STRIP):
        array[start : start + _STRIP] = cv2.cvtColor(array[start : start + _STRIP], order)
    return array


def _read_bytes(path: Path, count: int = -1) -> bytes:
    """The file's first bytes, or all of them."""
    try:
        with path.open("rb") as stream:
            data = stream.read(count)
    except FileNotFoundError as error:
        raise AutosegError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise AutosegError(f"{path} cannot be read: {error.strerror}", "check the file and its permissions") from error
    if not data:
        raise AutosegError(f"{path} is empty", UNREADABLE)
    return data


def _open_header(stream: BinaryIO, path: Path) -> Pillow.Image:
    """A picture with its header only. Raises AutosegError for an invalid header or too many pixels."""
    start = stream.read(4)
    stream.seek(0)
    reader = next((reader for signature, reader in _HEADERS if start.startswith(signature)), _open_other)
    try:
        picture = reader(stream)
    except Pillow.DecompressionBombError as error:
        raise AutosegError(f"{path} is too large: {error}", "save it as PNG, JPEG or TIFF") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many exceptions for damaged headers.
        raise AutosegError(f"{path} cannot be read as an image", UNREADABLE) from error
    check_pixels(path, picture.width, picture.height)
    return picture


def _open_other(stream: BinaryIO) -> Pillow.Image:
    """Other pictures under a name of ours. Not all that Pillow knows: it hands PostScript to another program, for example."""
    return Pillow.open(stream, formats=_OTHERS)


def _inspect(data: bytes, path: Path) -> tuple[int, tuple[str, ...], bool]:
    """EXIF orientation to apply, notes, and whether this is a PNG of grays with alpha.

    Raises AutosegError for a truncated file: OpenCV before 5 fills the rest of a JPEG with gray without an error.
    """
    picture = _open_header(io.BytesIO(data), path)
    notes = {"CMYK": ("CMYK converted to RGB",), "P": ("palette colours resolved",)}.get(picture.mode, ())
    exif, complete = picture.info.get("exif", b""), True
    if data.startswith(_PNG):
        # Pillow would decode the whole file to find a tag behind the pixels.
        chunks = _png_chunks(data)
        exif, complete = bytes(chunks.get(b"eXIf", b"")), b"IEND" in chunks
    elif data.startswith(_JPEG):
        complete = b"\xff\xd9" in data
    elif data.startswith(_BMP):
        complete = int.from_bytes(data[2:6], "little") <= len(data)
    if not complete:
        raise AutosegError(f"{path} cannot be read as an image: it is cut short", UNREADABLE)
    return _orientation(exif), notes, data.startswith(_PNG) and data[25:26] == _GRAY_WITH_ALPHA


def _png_chunks(data: bytes) -> dict[bytes, memoryview]:
    """Content of the first complete chunk of each kind."""
    view, position = memoryview(data), 8
    chunks: dict[bytes, memoryview] = {}
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        chunks.setdefault(data[position + 4 : position + 8], view[position + 8 : end])
        position = end + 4
    return chunks


def _orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 if it is missing or invalid."""
    if not exif:
        return 1
    tags = Pillow.Exif()
    try:
        tags.load(bytes(exif))
        value = tags.get(0x0112, 1)
    except Exception:  # A damaged EXIF block raises many exceptions; viewers ignore it too.
        return 1
    return value if value in range(1, 9) else 1


def _last_of_two_or_four(array: Array) -> int | None:
    """Index of the alpha band of PNG and BMP, which have no other extra bands."""
    return array.shape[2] - 1 if array.ndim == 3 and array.shape[2] in (2, 4) else None


def _drop_alpha(array: Array, band: int, path: Path) -> tuple[Array, tuple[str, ...]]:
    """(H, W) or (H, W, C) without the alpha band, and a note. Raises AutosegError if it varies."""
    alpha = array[..., band]
    if alpha.min() != alpha.max():
        raise AutosegError(
            f"{path} has a transparency (alpha) channel that varies from {alpha.min()} to {alpha.max()}",
            "flatten the picture onto a background, or save its channels as separate files (case_0000, case_0001, ...)",
        )
    others = np.ascontiguousarray(np.delete(array, band, axis=2) if band < array.shape[2] - 1 else array[..., :-1])
    return others[..., 0] if others.shape[2] == 1 else others, ("constant alpha channel dropped",)


def _decode_label(path: Path) -> Decoded:
    data = _read_bytes(path)
    picture = _open_header(io.BytesIO(data), path)
    png = data.startswith(_PNG)
    if png and data[24:25] == b"\x10" and data[25:26] != b"\0":
        # Pillow would cut 16-bit colours to 8 bits.
        return _decode_image(path)
    try:
        array = np.array(picture)
        orientation = _orientation(picture.info.get("exif", b""))
    except (OSError, SyntaxError, ValueError) as error:
        raise AutosegError(f"{path} cannot be read as a mask", UNREADABLE) from error
    palette = None
    if picture.mode in ("P", "PA"):
        array = array[..., 0] if array.ndim == 3 else array
        palette = np.reshape(picture.getpalette("RGB") or [], (-1, 3)).astype(np.uint8)
    elif png and picture.mode == "L" and data[24] in _PNG_UNSCALE:
        array = array // np.uint8(_PNG_UNSCALE[data[24]])
    return Decoded(
        array=array,
        orientation=orientation,
        lossy=data.startswith(_JPEG),
        palette=palette,
        alpha=_last_of_two_or_four(array),
    )


def _palette_values(indices: Array, palette: Array) -> tuple[Array, tuple[str, ...]]:
    """Values of a mask with a palette (N, 3): its indices, or the grays of the palette."""
    used = np.unique(indices)
    if used[-1] < len(palette):
        colours = palette[used]
        if len(palette) >= _RAMP and (palette == np.linspace(255, 0, len(palette)).round()[:, None]).all():
            return indices, ("inverting palette not applied: class ids taken as stored",)
        # PNG optimisers reorder the palette of a gray picture; its indices are then meaningless.
        if (colours == colours[:, :1]).all() and (np.diff(colours[:, 0].astype(int)) <= 0).any():
            return palette[indices, 0], ("palette of grays out of order: gray values taken",)
    return indices, ("palette read by index",)


def _to_one_channel(array: Array, path: Path) -> Array:
    """(H, W) of a mask stored with several bands (H, W, C), which must be equal."""
    if (array != array[..., :1]).any():
        colours = np.unique(array.reshape(-1, array.shape[2]), axis=0)
        shown = ", ".join(str(tuple(int(v) for v in colour)) for colour in colours[:6])
        more = f" and {len(colours) - 6} more" if len(colours) > 6 else ""
        raise AutosegError(f"{path} is a colour picture, not a mask of class ids: {shown}{more}", "give each colour an id")
    return array[..., 0]
