"""Pictures: PNG, JPEG, TIFF, BMP. OpenCV decodes images (fast, keeps 16 bits); Pillow decodes masks (palette indices)."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from kornia_rs.io import decode_image_png_u8, decode_image_png_u16
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from autoseg.io.contents import UNREADABLE, Array, Image, Label, as_image, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.files import replacing
from autoseg.support.workers import alone

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG"
_SIGNATURES = (_PNG, b"\xff\xd8\xff", b"BM", *_TIFF)
_PNG_UNSCALE = {2: 85, 4: 17}  # Decoders stretch 2- and 4-bit grays to 0..255; class ids must not be.
_TIFF_JPEG = (6, 7)
_PNG_GRAY, _PNG_DEEP_GRAY = b"\x08\x00", b"\x10\x00"
_PNG_KINDS = {
    _PNG_GRAY: (decode_image_png_u8, "mono"),
    _PNG_DEEP_GRAY: (decode_image_png_u16, "mono"),
    b"\x08\x02": (decode_image_png_u8, "rgb"),
    b"\x10\x02": (decode_image_png_u16, "rgb"),
}
_BRIEF = 1 << 22  # pixels
_LARGE = 1 << 28
_LARGE_FILE = 1 << 23
# OpenCV's own limit; Pillow refuses at twice its limit, and large scans are no attack.
Pillow.MAX_IMAGE_PIXELS = 1 << 29

# OpenCV prints its own complaints about damaged files; the error raised here says more, and once.
if hasattr(cv2, "setLogLevel"):
    cv2.setLogLevel(0)
elif hasattr(cv2.utils, "logging"):  # OpenCV 5
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def knows(path: Path) -> bool:
    """Whether this is a picture, going by the suffix or, without a known one, the first bytes."""
    if path.suffix.lower() in SUFFIXES or not path.is_file():
        return True
    with path.open("rb") as stream:
        return stream.read(4).startswith(_SIGNATURES)


def read_image(path: Path) -> Image:
    """See `autoseg.io.read_image`."""
    data = _bytes(path)
    orientation, notes, gray = _look(data, path)
    whole = not _cut_short(data)
    if len(data) >= _LARGE_FILE:
        data = b""  # So that the file and its pixels do not stand in memory together.
    plain = _plain_png(data)
    array = _pixels(data, path) if plain is None else plain
    if array is None or not whole:
        raise AutosegError(f"{path} cannot be read as an image", UNREADABLE)
    array, rounded = as_image(array)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array, dropped = _without_alpha(array, path)
        notes += dropped
    if array.ndim == 3 and array.shape[2] == 3 and plain is None:
        array = array[..., 0] if gray else _rgb(array)
    array, turned = _turned(array, orientation)
    notes += turned
    array = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    return Image(array, None, None, notes + rounded, orientation)


def read_label(path: Path) -> Label:
    """See `autoseg.io.read_label`."""
    data = _bytes(path)
    if data[:4] in _TIFF:
        array, lossy, notes = _decode_tiff_label(data, path)
    elif data.startswith(_PNG) and data[24:25] == b"\x10" and data[25:26] != b"\0":
        array, lossy, notes = _decode_exactly(data, path), False, ()  # Pillow would cut 16-bit colours to 8 bits.
    elif data[24:26] == _PNG_GRAY and (gray := _plain_png(data)) is not None:
        lossy, (array, notes) = False, _turned(gray, _orientation(_png_chunk(data, b"eXIf")))
    else:
        array, lossy, notes = _decode_label(data, path)
    if array.ndim == 3:
        array, merged = _one_channel(array, path)
        notes += merged
    values = as_label(array)
    if values is None:
        raise AutosegError(
            f"{path} is no mask: its values are not whole numbers from 0 to 65535 ({array.min()} to {array.max()})",
            "store class ids: 0 for the background, 1 for the first class, and so on",
        )
    return Label(values, None, None, notes, lossy)


def write(path: Path, array: Array) -> None:
    """(C, H, W) with one or three channels. Raises ValueError for what the format cannot hold."""
    suffix = path.suffix.lower()
    kinds = {".png": "uint8 uint16", ".bmp": "uint8"}.get(suffix, "uint8 uint16 float32").split()
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype.name not in kinds:
        raise ValueError(f"{path}: {suffix} cannot hold {array.shape[0]} channels of {array.dtype}")
    pixels = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)[..., ::-1]
    done, encoded = cv2.imencode(suffix, np.ascontiguousarray(pixels))
    if not done:
        raise ValueError(f"{path}: OpenCV could not encode {array.shape} {array.dtype} as {suffix}")
    with replacing(path) as beside:
        beside.write_bytes(encoded.tobytes())


def upright(array: Array, orientation: int) -> Array:
    """(H, W) or (H, W, C) as stored, turned as EXIF orientation 1 to 8 tells viewers to show it."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _turned(array: Array, orientation: int) -> tuple[Array, tuple[str, ...]]:
    """`upright`, and a note where something was turned."""
    return (array, ()) if orientation == 1 else (upright(array, orientation), (f"EXIF orientation {orientation} applied",))


def _plain_png(data: bytes) -> Array | None:
    """(H, W) of a PNG of grays, (H, W, 3) of one of colours; None for all other kinds, for what is damaged, and for grays of
    16 bits while other threads work: OpenCV has those.

    kornia-rs takes a third to two thirds of what others take, for masks a seventh, but keeps Python's lock meanwhile: where
    threads work side by side it gets nothing that takes long. imagecodecs takes 15 % less than OpenCV for colours.
    """
    kind, interlaced = data[24:26], data[28:29] != b"\0"
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    plain = data.startswith(_PNG) and kind in _PNG_KINDS and not interlaced
    if not plain or width * height > _LARGE // 8 or _has_transparency(data):
        return None
    try:
        if (kind == _PNG_GRAY and width * height <= _BRIEF) or alone():
            decode, mode = _PNG_KINDS[kind]
            pixels = np.asarray(decode(data, (height, width), mode))
            return pixels[..., 0] if mode == "mono" else pixels
        return None if kind == _PNG_DEEP_GRAY else np.asarray(imagecodecs.png_decode(data))
    except Exception:  # kornia-rs has no kinds of its own. Others may still see something in it, or say what is wrong.
        return None


def _has_transparency(data: bytes) -> bool:
    return b"tRNS" in data[: data.find(b"IDAT")]


def _pixels(data: bytes, path: Path) -> Array | None:
    """As OpenCV decodes them; from the disk where the data are let go, into an array that numpy owns: what OpenCV owns it
    copies, and both stand in memory for a moment."""
    if not data:
        try:
            array = cv2.imread(str(path), None, cv2.IMREAD_UNCHANGED)
        except cv2.error:  # Turned TIFFs; every file before OpenCV 4.11.
            array = None
        if array is not None:
            return array
        # On some systems OpenCV opens no path with letters beyond ASCII.
        data = path.read_bytes()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _rgb(array: Array) -> Array:
    """From OpenCV's order, in place where a second array would be large."""
    if array.nbytes < _LARGE:
        return np.asarray(cv2.cvtColor(array, cv2.COLOR_BGR2RGB))
    for start in range(0, len(array), 256):
        array[start : start + 256] = array[start : start + 256, :, ::-1].copy()
    return array


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise AutosegError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise AutosegError(f"{path} cannot be read: {error.strerror}", "check the file and its permissions") from error
    if not data:
        raise AutosegError(f"{path} is empty", UNREADABLE)
    return data


def _open(data: bytes, path: Path) -> Pillow.Image:
    try:
        return Pillow.open(io.BytesIO(data))
    except Pillow.DecompressionBombError as error:
        raise AutosegError(f"{path} is too large: {error}", "cut it into tiles of at most 10000 x 10000 pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise AutosegError(f"{path} cannot be read as an image", UNREADABLE) from error


def _look(data: bytes, path: Path) -> tuple[int, tuple[str, ...], bool]:
    """EXIF orientation to apply, notes, and whether OpenCV will return a gray image as colours."""
    if data[:4] in _TIFF:
        # OpenCV turns TIFFs upright by itself.
        _one_page(data, path)
        return 1, (), False
    if data.startswith(_PNG):
        # Pillow would decode the whole file to find a tag behind the pixels.
        palette, gray_with_alpha = data[25:26] == b"\3", data[25:26] == b"\4"
        exif = _png_chunk(data, b"eXIf")
        return _orientation(exif), ("palette colours resolved",) if palette else (), gray_with_alpha
    picture = _open(data, path)
    notes = {"CMYK": ("CMYK converted to RGB",), "P": ("palette colours resolved",)}.get(picture.mode, ())
    return _orientation(picture.info.get("exif", b"")), notes, False


def _orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 where there is none or it makes no sense."""
    if not exif:
        return 1
    tags = Pillow.Exif()
    try:
        tags.load(exif)
        value = tags.get(0x0112, 1)
    except Exception:  # A broken EXIF block lets all sorts through, and viewers ignore it too.
        return 1
    return value if value in range(1, 9) else 1


def _png_chunk(data: bytes, kind: bytes) -> bytes:
    """The content of the first chunk of a kind, b"" where there is none."""
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == kind:
            return data[place + 8 : place + 8 + length]
        place += 12 + length
    return b""


def _cut_short(data: bytes) -> bool:
    """OpenCV before 5 fills the rest of a cut JPEG with gray and says nothing."""
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data


def _without_alpha(array: Array, path: Path) -> tuple[Array, tuple[str, ...]]:
    alpha = array[..., -1]
    if alpha.min() != alpha.max():
        raise AutosegError(
            f"{path} has a transparency (alpha) channel that varies from {alpha.min()} to {alpha.max()}",
            "flatten the image onto a background, or save its channels as separate files (case_0000, case_0001, ...)",
        )
    kept = array[..., 0] if array.shape[2] == 2 else np.ascontiguousarray(array[..., :3])
    return kept, ("constant alpha channel dropped",)


def _tiff_directories(data: bytes, path: Path) -> list[ImageFileDirectory_v2]:
    """The tag directories of a TIFF's pages; Pillow's parser also knows pages that Pillow cannot decode."""
    stream = io.BytesIO(data)
    header = stream.read(16 if data[2:3] == b"+" or data[3:4] == b"+" else 8)
    pages: list[ImageFileDirectory_v2] = []
    try:
        directory = ImageFileDirectory_v2(header)
        place = directory.next
        while place and len(pages) < 2:
            stream.seek(place)
            directory.load(stream)
            pages.append(directory)
            place = directory.next
            directory = ImageFileDirectory_v2(header)
    except Exception as error:  # Pillow lets struct, Syntax, Index and OS errors through on damaged tags.
        raise AutosegError(f"{path} cannot be read as a TIFF", UNREADABLE) from error
    if not pages:
        raise AutosegError(f"{path} cannot be read as a TIFF", UNREADABLE)
    return pages


def _one_page(data: bytes, path: Path) -> ImageFileDirectory_v2:
    """The tags of the first page. Raises AutosegError where there are more of its size (smaller ones are thumbnails)."""
    pages = _tiff_directories(data, path)
    sizes = {(page.get(256), page.get(257)) for page in pages}
    if len(pages) > 1 and len(sizes) == 1:
        raise AutosegError(f"{path} holds several pages", "autoseg works on 2D images: save each page as a file of its own")
    return pages[0]


def _decode_label(data: bytes, path: Path) -> tuple[Array, bool, tuple[str, ...]]:
    picture = _open(data, path)
    lossy = picture.format in ("JPEG", "MPO")
    try:
        array = np.array(picture)
        orientation = _orientation(picture.info.get("exif", b""))
    except (OSError, SyntaxError, ValueError) as error:
        raise AutosegError(f"{path} cannot be read as a mask", UNREADABLE) from error
    notes: tuple[str, ...] = ()
    if picture.mode in ("P", "PA"):
        array, notes = _palette_values(picture, array)
    elif data.startswith(_PNG) and picture.mode == "L" and data[24] in _PNG_UNSCALE:
        array = array // np.uint8(_PNG_UNSCALE[data[24]])
    array, turned = _turned(array, orientation)
    return array, lossy, notes + turned


def _palette_values(picture: Pillow.Image, array: Array) -> tuple[Array, tuple[str, ...]]:
    indices = array[..., 0] if array.ndim == 3 else array
    used = np.unique(indices)
    palette = np.reshape(picture.getpalette("RGB") or [], (-1, 3))
    if used[-1] < len(palette):
        colours = palette[used]
        # Programs that shrink PNGs reorder a gray picture's palette as they like; its indices then mean nothing.
        if (colours == colours[:, :1]).all() and (np.diff(colours[:, 0]) <= 0).any():
            return palette[indices, 0].astype(np.uint8), ("palette of grays out of order: gray values taken",)
    return indices, ("palette read by index",)


def _decode_tiff_label(data: bytes, path: Path) -> tuple[Array, bool, tuple[str, ...]]:
    tags = _one_page(data, path)
    lossy = tags.get(259) in _TIFF_JPEG
    if tags.get(262) == 3:
        array, _, notes = _decode_label(data, path)
        return array, lossy, notes
    # Pillow knows few of TIFF's number formats; OpenCV knows all, and without a palette nothing is lost by it.
    return _decode_exactly(data, path), lossy, ()


def _decode_exactly(data: bytes, path: Path) -> Array:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise AutosegError(f"{path} cannot be read as a mask", UNREADABLE)
    return np.asarray(array)


def _one_channel(array: Array, path: Path) -> tuple[Array, tuple[str, ...]]:
    """A mask stored as gray with alpha, RGB or RGBA: one channel, where that loses nothing."""
    notes: tuple[str, ...] = ()
    if array.shape[2] in (2, 4):
        alpha = array[..., -1]
        if alpha.min() != alpha.max():
            raise AutosegError(f"{path} is a mask whose alpha channel varies", "save it as 8-bit gray with class ids")
        array, notes = array[..., :-1], ("constant alpha channel dropped",)
    if (array != array[..., :1]).any():
        colours = np.unique(array.reshape(-1, array.shape[2]), axis=0)
        shown = ", ".join(str(tuple(int(v) for v in colour)) for colour in colours[:6])
        more = f" and {len(colours) - 6} more" if len(colours) > 6 else ""
        raise AutosegError(f"{path} is a colour picture, not a mask of class ids: {shown}{more}", "give each colour an id")
    return array[..., 0], notes
