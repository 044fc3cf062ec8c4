"""Contact sheet: each image next to the same image with its mask, to check a conversion at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from skimage.util import montage

from autoseg.io import read_case, read_label, write_image
from autoseg.io.types import Array
from autoseg.schema.dataset import DatasetSpec
from dataset_conversion.stage import StoredCase

_CASES, _COLUMNS = 18, 3
_SIDE, _MARGIN, _LINE = 200, 8, 18
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_INK = (30, 30, 30)
# Colours that people with any colour vision can distinguish (Okabe and Ito). None looks like tissue.
_COLOURS = ((0, 158, 115), (240, 228, 66), (86, 180, 233), (213, 94, 0), (204, 121, 167), (0, 114, 178), (230, 159, 0))
_FILL = 0.35


def write_contact_sheet(path: Path, folder: Path, spec: DatasetSpec, cases: Sequence[StoredCase]) -> None:
    """Draws up to 18 cases of a raw dataset, spread over it; each class is among them.

    folder: of the dataset, which holds the files. Each class has a colour, filled lightly and outlined.
    """
    values = sorted({item for value in spec.labels.values() for item in ((value,) if isinstance(value, int) else value)})
    foreground = [value for value in values if value]
    chosen = _choose_cases([case for case in cases if case.pixels], foreground)
    cells = [_draw_cell(folder, case, foreground) for case in chosen]
    columns = min(_COLUMNS, len(cells))
    grid = montage(cells, fill=(255, 255, 255), grid_shape=(math.ceil(len(cells) / columns), columns), channel_axis=-1)
    sheet = np.concatenate([grid, _draw_legend(grid.shape[1], spec, foreground)])
    write_image(path, np.ascontiguousarray(sheet.transpose(2, 0, 1)))


def _choose_cases(cases: Sequence[StoredCase], foreground: Sequence[int]) -> list[StoredCase]:
    """For each class the two cases with most of its pixels; the rest evenly from all."""
    places: set[int] = set()
    for value in foreground[: _CASES // 3]:
        order = sorted(range(len(cases)), key=lambda place: -cases[place].pixels.get(str(value), 0))
        places.update(place for place in order[:2] if cases[place].pixels.get(str(value)))
    others = [place for place in range(len(cases)) if place not in places]
    free = min(_CASES - len(places), len(others))
    if free > 0:
        places.update(others[place] for place in np.linspace(0, len(others) - 1, free).round().astype(int))
    return [cases[place] for place in sorted(places)]


def _draw_cell(folder: Path, case: StoredCase, foreground: Sequence[int]) -> Array:
    """(H, W, 3): the image, the image with its mask, and the name below."""
    images = [folder / file for file in case.files if file.startswith("images")]
    plain = _to_rgb8(read_case(images).array)
    label = read_label(folder / case.files[-1]).array
    factor = _SIDE / max(plain.shape[:2])
    size = (max(1, round(plain.shape[1] * factor)), max(1, round(plain.shape[0] * factor)))
    plain = cv2.resize(plain, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    marked = plain.copy()
    for place, value in enumerate(foreground):
        # The fraction of the class in each drawn pixel: a vessel one pixel wide must stay visible when the mask shrinks.
        fraction = cv2.resize((label == value).astype(np.float32), size, interpolation=cv2.INTER_AREA if factor < 1 else 0)
        inside = (fraction >= 0.4).astype(np.uint8)
        colour = np.array(_COLOURS[place % len(_COLOURS)])
        marked[inside > 0] = (marked[inside > 0] * (1 - _FILL) + colour * _FILL).astype(np.uint8)
        polygon_mask, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(marked, polygon_mask, -1, tuple(int(part) for part in colour), 1)
    cell = np.full((_SIDE + _LINE + _MARGIN, 2 * _SIDE + 3 * _MARGIN, 3), 255, np.uint8)
    for left, picture in ((_MARGIN, plain), (2 * _MARGIN + _SIDE, marked)):
        cell[_MARGIN : _MARGIN + size[1], left : left + size[0]] = picture
    name = f"{case.name} (test)" if case.part == "Ts" else case.name
    shown = f"{name}  {case.group}" if case.group and case.group not in name else name
    cv2.putText(cell, shown[:58], (_MARGIN, _SIDE + _LINE), _FONT, _SCALE, _INK, 1, cv2.LINE_AA)
    return cell


def _to_rgb8(planes: Array) -> Array:
    """(H, W, 3) uint8: colours as they are, anything else as gray between its 0.5 and 99.5 percentiles."""
    channels = planes if planes.shape[0] == 3 else planes[:1]
    if channels.dtype != np.uint8:
        low, high = np.percentile(channels, (0.5, 99.5))
        channels = (np.clip((channels - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(channels, (3, *channels.shape[1:])).transpose(1, 2, 0))


def _draw_legend(width: int, spec: DatasetSpec, foreground: Sequence[int]) -> Array:
    strip = np.full((2 * _LINE, width, 3), 255, np.uint8)
    left = _MARGIN
    for place, value in enumerate(foreground):
        name = next((name for name, label_value in spec.labels.items() if label_value == value), str(value))
        colour = tuple(int(part) for part in _COLOURS[place % len(_COLOURS)])
        cv2.rectangle(strip, (left, _LINE // 2), (left + 12, _LINE // 2 + 12), colour, -1)
        cv2.putText(strip, name, (left + 18, _LINE // 2 + 11), _FONT, _SCALE, _INK, 1, cv2.LINE_AA)
        left += 34 + cv2.getTextSize(name, _FONT, _SCALE, 1)[0][0]
    return strip
