import numpy as np
import pytest

from autoseg.io import read_image
from autoseg.prediction.overlay import COLOURS, draw_overlay, write_overlay
from autoseg.schema.dataset import label_scheme
from tests.prediction.stand_in import picture

TWO = label_scheme({"background": 0, "polyp": 1, "stone": 2}, None)


def pixels_of(shown, colour):
    return np.argwhere(np.abs(shown.astype(int) - colour).sum(-1) < 30)


def test_contours_stand_where_the_mask_ends():
    image, mask = picture((500, 600), (100, 150, 300, 450), channels=1)
    shown = draw_overlay(image, mask, TWO)
    assert shown.dtype == np.uint8 and shown.shape[1:] == (600, 3) and shown.shape[0] > 500
    places = pixels_of(shown[:500], COLOURS[0])
    assert len(places) > 500
    rows, columns = places.T
    near = np.minimum(np.minimum(abs(rows - 100), abs(rows - 299)), np.minimum(abs(columns - 150), abs(columns - 449)))
    assert near.max() <= 3
    assert shown[200, 300].tolist() == [220] * 3


def test_each_class_has_its_colour_and_empty_ones_have_none():
    image, mask = picture((500, 500), channels=1)
    shown = draw_overlay(image, mask * 2, TWO)
    assert len(pixels_of(shown[:500], COLOURS[1])) and not len(pixels_of(shown[:500], COLOURS[0]))


def test_references_are_dashed():
    image, mask = picture((500, 500), (100, 100, 400, 400), channels=1)
    nothing = np.zeros_like(mask)
    solid = len(pixels_of(draw_overlay(image, mask, TWO)[:500], COLOURS[0]))
    dashed = len(pixels_of(draw_overlay(image, nothing, TWO, mask)[:500], COLOURS[0]))
    assert 0.3 * solid < dashed < 0.75 * solid


@pytest.mark.parametrize(("size", "shown"), [((30, 40), (480, 640)), ((700, 500), (700, 500)), ((100, 6000), (27, 1600))])
def test_pictures_are_neither_tiny_nor_huge(size, shown):
    image, mask = picture(size, (2, 2, 20, 30))
    assert draw_overlay(image, mask, TWO).shape[1] == shown[1]
    assert 0 < draw_overlay(image, mask, TWO).shape[0] - shown[0] < 80


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 100), (np.float32, 0.01)])
def test_other_types_are_stretched_to_what_can_be_seen(dtype, scale):
    image, mask = picture((500, 500), (100, 100, 400, 400), low=10, high=20, channels=2, dtype=np.float64)
    shown = draw_overlay((image * scale).astype(dtype), mask, TWO)
    assert shown[250, 250, 0] > 240 and shown[20, 20, 0] < 10


def test_a_constant_image_is_no_fault():
    assert draw_overlay(np.full((1, 20, 20), 7, np.uint16), np.zeros((20, 20), np.uint8), TWO).max() > 0


def test_files_and_references_of_another_size(tmp_path):
    image, mask = picture()
    write_overlay(tmp_path / "x" / "a.png", image, mask, TWO, np.ones((3, 3), np.uint8))
    assert np.array_equal(read_image(tmp_path / "x" / "a.png").array, draw_overlay(image, mask, TWO).transpose(2, 0, 1))


def test_thin_structures_are_enlarged_until_both_their_edges_show():
    image, mask = picture((500, 500), (100, 50, 103, 450), channels=1)
    shown = draw_overlay(image, mask, TWO)
    assert shown.shape[1] == 1600
    column = shown[:1600, 800].astype(int)
    coloured = np.flatnonzero(np.abs(column - COLOURS[0]).sum(-1) < 60)
    assert len(coloured) == 2 and coloured[1] - coloured[0] > 6
