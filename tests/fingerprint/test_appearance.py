"""Borders, dark background, layers, text and markers."""

import cv2
import numpy as np
import pytest

from autoseg.fingerprint.appearance import (
    background_fraction,
    border_fraction,
    content_box,
    layering,
    measure_brightness,
    overlay_fraction,
    value_range,
)
from autoseg.fingerprint.case import fraction_outside_content
from tests.fingerprint.datasets import picture

EMPTY = np.zeros((120, 160), bool)


def scan() -> np.ndarray:
    """(120, 160) uint8: a disc of tissue on black."""
    tissue = np.zeros((120, 160), np.uint8)
    disc = cv2.circle(tissue.copy(), (80, 60), 45, 1, -1) > 0
    tissue[disc] = np.maximum(picture(1, (120, 160))[0], 60)[disc]
    return tissue


def overlay(planes: list[np.ndarray], mask: np.ndarray = EMPTY) -> float:
    return overlay_fraction(planes, value_range(planes), measure_brightness(planes), mask)


def box(plane: np.ndarray) -> tuple[int, int, int, int]:
    return content_box([plane], value_range([plane]))


def test_text_on_dark_background_is_an_overlay() -> None:
    assert overlay([scan()]) == 0
    written = cv2.putText(scan(), "L3", (3, 15), cv2.FONT_HERSHEY_PLAIN, 1.0, 255)
    letters = int((written != scan()).sum())
    assert overlay([written]) == pytest.approx(letters / written.size, rel=0.3)
    assert overlay([written], written != scan()) == 0, "masked pixels do not count"


def test_dim_or_cut_off_components_are_no_text() -> None:
    dim, cut = scan(), scan()
    dim[5:9, 5:12] = 60
    cut[:6, 20:26] = 255
    assert overlay([dim]) == overlay([cut]) == 0


def test_colours_in_a_gray_image_are_an_overlay() -> None:
    gray = picture(2, (120, 160))[0]
    coloured = [gray.copy() for _ in range(3)]
    coloured[2][10:14, 10:40] = 0
    coloured[0][10:14, 10:40] = 255
    assert overlay([gray] * 3) == 0
    assert overlay(coloured) == pytest.approx(4 * 30 / gray.size)
    assert overlay(list(picture(2, (120, 160)))) == 0, "a colour picture has colours"


def test_dark_background_and_constant_borders() -> None:
    tissue = scan()
    assert background_fraction(measure_brightness([tissue])) == pytest.approx((tissue == 0).mean(), abs=0.01)
    framed = np.pad(picture(3)[0], ((10, 0), (0, 20)))
    assert box(framed) == (10, 70, 0, 80)
    assert border_fraction([framed]) == pytest.approx(1 - 60 * 80 / framed.size)
    assert border_fraction([np.full((8, 8), 3, np.uint8)]) == 1.0
    assert box(np.full((8, 8), 3, np.uint8)) == (0, 0, 0, 0)


def test_layering_of_isotropic_and_layered_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (90, 90)).astype(np.float32)
    even, layered = cv2.GaussianBlur(noise, (0, 0), 2), cv2.GaussianBlur(noise, (0, 0), sigmaX=4, sigmaY=1)
    assert layering(even.astype(np.float32)) == pytest.approx(1, abs=0.15)
    assert layering(layered.astype(np.float32)) > 2
    assert layering(np.zeros((5, 5), np.float32)) == 0


def test_fraction_of_masks_outside_content() -> None:
    content = (20, 60, 0, 80)

    def fraction(rows: slice, is_constant: bool = False) -> float:
        foreground = np.ones((rows.stop - rows.start, 10), bool)
        return fraction_outside_content(foreground, (rows, slice(10, 20)), is_constant, content)

    assert fraction(slice(40, 50)) == 0
    assert fraction(slice(15, 25)) == pytest.approx(0.5)
    assert fraction(slice(0, 15)) == 1.0
    assert fraction(slice(55, 65)) == pytest.approx(0.5)
    assert fraction(slice(40, 50), is_constant=True) == 1.0
    assert fraction_outside_content(np.zeros((60, 80), bool), (slice(0, 60), slice(0, 80)), False, content) == 0
