from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from autoseg.data.geometry import Geometry, around_one, draw_geometry, warp_crop
from autoseg.schema.plan import Augmentation

RAMP = (np.mgrid[:40, :50][0] * 50 + np.mgrid[:40, :50][1]).astype(np.uint16)[..., None]
LABEL = (RAMP[..., 0] % 3).astype(np.uint8)


def test_a_plain_window_is_the_stored_pixels():
    pixels, labels = warp_crop(RAMP, LABEL, (3, 7), (16, 20), Geometry())
    assert np.array_equal(pixels, RAMP[3:19, 7:27])
    assert np.array_equal(labels, LABEL[3:19, 7:27])
    assert pixels.flags.owndata or pixels.base is not RAMP


@pytest.mark.parametrize("corner", [(-5, 3), (3, -6), (-4, -4), (30, 40), (-5, 35)])
def test_beyond_the_edge_the_image_is_reflected(corner):
    padded = np.pad(RAMP[..., 0], 30, mode="reflect")
    expected = padded[corner[0] + 30 : corner[0] + 46, corner[1] + 30 : corner[1] + 50]
    for geometry in (Geometry(), Geometry(angle=1e-9)):
        assert np.array_equal(warp_crop(RAMP, LABEL, corner, (16, 20), geometry)[0][..., 0], expected)


def test_a_window_larger_than_the_image_contains_all_of_it():
    pixels, labels = warp_crop(RAMP, LABEL, (-12, -7), (64, 64), Geometry())
    assert np.array_equal(pixels[12:52, 7:57], RAMP)
    assert np.array_equal(labels[12:52, 7:57], LABEL)


@pytest.mark.parametrize("mirrored", [(True, False), (False, True), (True, True)])
def test_mirroring_is_the_same_alone_and_in_a_warp(mirrored):
    axes = tuple(axis for axis in (0, 1) if mirrored[axis])
    expected = np.flip(RAMP[3:19, 7:27], axes)
    for angle in (0.0, 1e-9):
        pixels, labels = warp_crop(RAMP, LABEL, (3, 7), (16, 20), Geometry(mirrored=mirrored, angle=angle))
        assert np.array_equal(pixels, expected)
        assert np.array_equal(labels, np.flip(LABEL[3:19, 7:27], axes))


def test_a_rotation_by_90_degrees_and_a_zoom_are_exact():
    square = RAMP[:33, :33]
    turned = warp_crop(square, LABEL[:33, :33], (0, 0), (33, 33), Geometry(angle=90.0))[0]
    assert np.array_equal(turned, np.rot90(square)) or np.array_equal(turned, np.rot90(square, -1))
    dot = np.zeros((33, 33, 1), np.uint8)
    dot[16, 22] = 255
    zoomed = warp_crop(dot, dot[..., 0], (0, 0), (33, 33), Geometry(zoom=2.0))[0]
    assert np.unravel_index(zoomed.argmax(), zoomed.shape)[:2] == (16, 28)


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_image_and_label_move_together(dtype, elastic):
    rows, columns = np.mgrid[:300, :280]
    label = (np.hypot(rows - 150, columns - 130) < 60).astype(np.uint8)
    image = np.repeat((label * 200)[..., None], 5, axis=2).astype(dtype)
    grid = np.random.default_rng(0).normal(0, 0.02, (6, 6, 2)).astype(np.float32) if elastic else None
    geometry = Geometry(mirrored=(True, False), angle=23.0, zoom=1.2, elastic=grid)
    pixels, labels = warp_crop(image, label, (40, 30), (200, 180), geometry)
    assert pixels.shape == (200, 180, 5) and pixels.dtype == image.dtype and labels.shape == (200, 180)
    assert np.mean((pixels[..., 4] > 100) != labels) < 0.002
    assert labels.sum() == pytest.approx(np.pi * (60 * 1.2) ** 2, rel=0.1 if elastic else 0.01)
    if elastic:
        plain = replace(geometry, elastic=None)
        assert not np.array_equal(labels, warp_crop(image, label, (40, 30), (200, 180), plain)[1])


def test_a_window_of_a_very_long_image_is_cropped():
    strip = np.broadcast_to(np.arange(40_000, dtype=np.uint16)[:, None, None], (40_000, 24, 1))
    label = np.zeros((40_000, 24), np.uint8)
    pixels, _ = warp_crop(np.ascontiguousarray(strip), label, (39_900, 0), (24, 24), Geometry(angle=1e-9))
    assert pixels[:, 3, 0].tolist() == list(range(39_900, 39_924))


@pytest.mark.parametrize("corner", [(0, 0), (5, 9), (-8, 20)])
def test_cropping_before_the_warp_changes_nothing(corner):
    """The source region contains everything the window needs: same result as warping the whole image."""
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (120, 130, 3), dtype=np.uint8), (0, 0), 2)
    geometry = Geometry(mirrored=(False, True), angle=-28.0, zoom=0.8)
    pixels, _ = warp_crop(image, image[..., 0], corner, (40, 48), geometry)
    padded_image = np.pad(image, ((100, 100), (100, 100), (0, 0)), mode="reflect")
    whole, _ = warp_crop(padded_image, padded_image[..., 0], (corner[0] + 100, corner[1] + 100), (40, 48), geometry)
    assert np.abs(pixels.astype(int) - whole).max() <= 1


def test_random_geometries_follow_probabilities_and_ranges():
    settings = Augmentation(mirror=(1,), p_rotation=0.5, rotation=20.0, p_scaling=0.5, scaling=(0.5, 3.0), p_elastic=0.2)
    random = np.random.default_rng(0)
    geometries = [draw_geometry(settings, random) for _ in range(2000)]
    assert not any(geometry.mirrored[0] for geometry in geometries)
    assert np.mean([geometry.mirrored[1] for geometry in geometries]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([geometry.angle != 0 for geometry in geometries]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([geometry.elastic is not None for geometry in geometries]) == pytest.approx(0.2, abs=0.04)
    assert max(abs(geometry.angle) for geometry in geometries) <= 20
    zooms = np.array([geometry.zoom for geometry in geometries if geometry.zoom != 1])
    assert zooms.min() >= 0.5 and zooms.max() <= 3
    assert np.mean(zooms < 1) == pytest.approx(0.5, abs=0.06)


def test_factors_stay_in_a_range_without_1():
    random = np.random.default_rng(0)
    assert all(1.2 <= around_one((1.2, 1.5), random) <= 1.5 for _ in range(50))


def test_shift_moves_by_a_fraction_of_the_window():
    moved, labels = warp_crop(RAMP, LABEL, (10, 10), (20, 20), Geometry(shift=(0.1, -0.25)))
    assert np.array_equal(moved, RAMP[8:28, 15:35]) and np.array_equal(labels, LABEL[8:28, 15:35])


def test_shear_slides_rows_against_each_other_around_the_centre():
    """At 45 degrees by one pixel a row; the row in the middle stays."""
    image = np.zeros((33, 33, 1), np.uint8)
    image[:, 16] = 255
    sheared = warp_crop(image, image[..., 0], (0, 0), (33, 33), Geometry(shear=45.0))[0][..., 0]
    rows = [(row, int(sheared[row].argmax())) for row in (6, 16, 26)]
    assert rows in ([(6, 6), (16, 16), (26, 26)], [(6, 26), (16, 16), (26, 6)])
    assert np.array_equal(np.rot90(sheared, 2), sheared)


def test_shear_and_shift_are_drawn_only_if_asked_for():
    """So that runs without them keep their random numbers."""
    plain, more = Augmentation(), Augmentation(p_shear=1.0, shear=17.5, p_shift=1.0, shift=0.25)
    first = [draw_geometry(settings, np.random.default_rng(3)) for settings in (plain, more)]
    assert (first[0].angle, first[0].zoom, first[0].mirrored) == (first[1].angle, first[1].zoom, first[1].mirrored)
    drawn = [draw_geometry(more, np.random.default_rng(seed)) for seed in range(200)]
    assert -17.5 <= min(one.shear for one in drawn) < -10 and 10 < max(one.shear for one in drawn) <= 17.5
    assert 0.15 < max(abs(part) for one in drawn for part in one.shift) <= 0.25
    generators = [np.random.default_rng(3), np.random.default_rng(3)]
    draw_geometry(plain, generators[0])
    draw_geometry(Augmentation(shear=17.5, shift=0.25), generators[1])
    assert generators[0].random() == generators[1].random()
