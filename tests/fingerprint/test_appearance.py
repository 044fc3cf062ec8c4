"""Borders, dark ground, layers and what is drawn over a picture."""

import cv2
import numpy as np
import pytest

from autoseg.fingerprint.appearance import background_share, border_share, brightness, busy_box, layering, overlay_share, spread
from autoseg.fingerprint.case import astray
from tests.fingerprint.datasets import picture

NOTHING = np.zeros((120, 160), bool)


def scan() -> np.ndarray:
    """(120, 160) uint8: a disc of tissue on black."""
    tissue = np.zeros((120, 160), np.uint8)
    disc = cv2.circle(tissue.copy(), (80, 60), 45, 1, -1) > 0
    tissue[disc] = np.maximum(picture(1, (120, 160))[0], 60)[disc]
    return tissue


def overlay(planes: list[np.ndarray], marked: np.ndarray = NOTHING) -> float:
    return overlay_share(planes, spread(planes), brightness(planes), marked)


def box(plane: np.ndarray) -> tuple[int, int, int, int]:
    return busy_box([plane], spread([plane]))


def test_text_on_dark_ground_is_seen_and_the_scene_is_not() -> None:
    assert overlay([scan()]) == 0
    written = cv2.putText(scan(), "L3", (3, 15), cv2.FONT_HERSHEY_PLAIN, 1.0, 255)
    letters = int((written != scan()).sum())
    assert overlay([written]) == pytest.approx(letters / written.size, rel=0.3)
    assert overlay([written], written != scan()) == 0, "what a mask marks was meant to be there"


def test_small_things_that_are_dim_or_cut_off_are_no_text() -> None:
    dim, cut = scan(), scan()
    dim[5:9, 5:12] = 60
    cut[:6, 20:26] = 255
    assert overlay([dim]) == overlay([cut]) == 0


def test_colours_in_a_gray_picture_are_drawn() -> None:
    gray = picture(2, (120, 160))[0]
    coloured = [gray.copy() for _ in range(3)]
    coloured[2][10:14, 10:40] = 0
    coloured[0][10:14, 10:40] = 255
    assert overlay([gray] * 3) == 0
    assert overlay(coloured) == pytest.approx(4 * 30 / gray.size)
    assert overlay(list(picture(2, (120, 160)))) == 0, "a colour picture has colours"


def test_dark_ground_and_borders() -> None:
    tissue = scan()
    assert background_share(brightness([tissue])) == pytest.approx((tissue == 0).mean(), abs=0.01)
    framed = np.pad(picture(3)[0], ((10, 0), (0, 20)))
    assert box(framed) == (10, 70, 0, 80)
    assert border_share([framed]) == pytest.approx(1 - 60 * 80 / framed.size)
    assert border_share([np.full((8, 8), 3, np.uint8)]) == 1.0
    assert box(np.full((8, 8), 3, np.uint8)) == (0, 0, 0, 0)


def test_layers_across_the_beam() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (90, 90)).astype(np.float32)
    even, layered = cv2.GaussianBlur(noise, (0, 0), 2), cv2.GaussianBlur(noise, (0, 0), sigmaX=4, sigmaY=1)
    assert layering(even.astype(np.float32)) == pytest.approx(1, abs=0.15)
    assert layering(layered.astype(np.float32)) > 2
    assert layering(np.zeros((5, 5), np.float32)) == 0


def test_masks_on_nothing() -> None:
    busy = (20, 60, 0, 80)

    def share(rows: slice, flat: bool = False) -> float:
        return astray(np.ones((rows.stop - rows.start, 10), bool), (rows, slice(10, 20)), flat, busy)

    assert share(slice(40, 50)) == 0
    assert share(slice(15, 25)) == pytest.approx(0.5)
    assert share(slice(0, 15)) == 1.0
    assert share(slice(55, 65)) == pytest.approx(0.5)
    assert share(slice(40, 50), flat=True) == 1.0
    assert astray(np.zeros((60, 80), bool), (slice(0, 60), slice(0, 80)), False, busy) == 0
