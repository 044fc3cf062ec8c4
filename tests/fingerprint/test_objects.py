"""Area, number of objects and thickness of known shapes."""

import cv2
import numpy as np
import pytest

from autoseg.fingerprint import objects
from autoseg.fingerprint.objects import measure_class


def blank():
    return np.zeros((200, 220), np.uint8)


def test_empty_mask():
    measured, areas = measure_class(blank())
    assert (measured.pixels, measured.objects, measured.largest, measured.thickness) == (0, 0, 0, 0.0)
    assert areas.size == 0


def test_touching_corners_are_one_object():
    mask = blank()
    mask[10, 10] = mask[11, 11] = mask[50, 50] = 1
    measured, areas = measure_class(mask)
    assert (measured.pixels, measured.objects, measured.largest) == (3, 2, 2)
    assert sorted(areas) == [1, 2]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 9, 15])
@pytest.mark.parametrize("slope", [0, 20, 45, 90])
def test_thickness_of_a_bar_is_its_width(width, slope):
    rows, columns = np.mgrid[:200, :220]
    angle = np.deg2rad(slope)
    across = (rows - 100) * np.cos(angle) - (columns - 110) * np.sin(angle)
    along = (rows - 100) * np.sin(angle) + (columns - 110) * np.cos(angle)
    mask = ((across > -width / 2) & (across <= width / 2) & (abs(along) < 80)).astype(np.uint8)
    # Twice the centre distance overestimates an odd width by one pixel.
    assert -0.6 <= measure_class(mask)[0].thickness - width <= 1.5


@pytest.mark.parametrize("radius", [5, 20, 60])
def test_thickness_of_a_disc_is_its_diameter_despite_specks(radius):
    mask = blank()
    cv2.circle(mask, (110, 100), radius, 1, -1)
    alone = measure_class(mask)[0].thickness
    assert alone == pytest.approx(2 * radius + 1, abs=2)
    mask[2:6:2, 2:80:4] = 1
    assert measure_class(mask)[0].thickness == alone


def test_full_mask_is_as_thick_as_the_image():
    assert measure_class(np.ones((60, 90), np.uint8))[0].thickness == pytest.approx(60, abs=2)


def test_bool_masks_at_the_edge():
    mask = np.zeros((40, 40), bool)
    mask[:, :6] = True
    assert measure_class(mask)[0].thickness == pytest.approx(6, abs=1)


def test_thickness_does_not_depend_on_memory_alignment(monkeypatch):
    """OpenCV rounds the same distance in two ways, by the alignment of its output."""
    masks = [cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (60, 75)), (0, 0), 6) > 0 for seed in range(20)]
    transform = cv2.distanceTransform

    def thickness(offset):
        def elsewhere(mask, *how):
            memory = np.zeros(mask.size * 4 + 128, np.uint8)
            start = -memory.ctypes.data % 64 + offset
            return transform(mask, *how, memory[start : start + mask.size * 4].view(np.float32).reshape(mask.shape))

        monkeypatch.setattr(cv2, "distanceTransform", elsewhere)
        return [measure_class(mask)[0].thickness for mask in masks]

    assert all(thickness(offset) == thickness(0) for offset in range(4, 64, 4))


@pytest.mark.parametrize("seed", range(20))
def test_separate_and_joint_thickness_are_equal(seed, monkeypatch):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (90, 110)), (0, 0), 2 + seed % 5)
    mask = noise > (0.1 + 0.1 * (seed % 3)) * noise.max()
    monkeypatch.setattr(objects, "_MAX_SEPARATE_OBJECTS", 0)
    together = measure_class(mask)
    monkeypatch.setattr(objects, "_MAX_SEPARATE_OBJECTS", 10**6)
    alone = measure_class(mask)
    assert alone[0] == together[0]


def test_more_objects_than_two_bytes_can_count():
    mask = np.zeros((600, 600), np.uint8)
    mask[1::2, 1::2] = 1
    assert measure_class(mask)[0].objects == 300 * 300
    small = np.zeros((3, 40000), np.uint8)
    small[1, ::2] = 1
    assert measure_class(small)[0].objects == 20000
