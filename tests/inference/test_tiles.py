from itertools import pairwise

import numpy as np
import pytest
import torch

from autoseg.inference.tiles import TileAccumulator, TileGrid, profile, starts


@pytest.mark.parametrize("length", [1, 31, 32, 33, 48, 64, 65, 100, 577])
def test_tiles_cover_every_pixel_and_overlap_by_half(length):
    patch = 32
    first_pixels = starts(length, patch)
    covered = np.zeros(max(length, patch), int)
    for first_pixel in first_pixels:
        covered[first_pixel : first_pixel + patch] += 1
    assert covered.min() >= 1
    assert first_pixels[0] == 0 and first_pixels[-1] + patch == max(length, patch)
    # Rounding may add one pixel to the step.
    assert all(second - first <= patch // 2 + 1 for first, second in pairwise(first_pixels))


def test_weights_are_highest_in_the_middle_and_positive():
    weights = profile(16)
    assert weights.argmax() in (7, 8)
    assert torch.equal(weights, weights.flip(0))
    assert 0 < weights.min() < 0.01 < weights.max() <= 1


def test_small_images_are_padded_by_reflection():
    grid = TileGrid.of((3, 40), (8, 16))
    image = np.arange(3 * 40 * 2, dtype=np.uint16).reshape(3, 40, 2)
    padded = grid.pad(image)
    assert padded.shape == (8, 40, 2) and padded.dtype == image.dtype
    top = grid.before[0]
    assert np.array_equal(padded[top : top + 3], image)
    assert np.array_equal(padded[top - 1], image[1])


@pytest.mark.parametrize("size", [(20, 20), (50, 37), (5, 70), (16, 16), (1, 1)])
def test_blended_tiles_of_a_map_give_the_map(size):
    grid = TileGrid.of(size, (16, 24))
    truth = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    padded = grid.pad(truth)
    accumulator = TileAccumulator(grid, 3, torch.device("cpu"))
    done = [accumulator.add(corner, torch.from_numpy(grid.crop(padded, corner)).permute(2, 0, 1)) for corner in grid.corners]
    assert done == [False] * (len(done) - 1) + [True]
    assert np.allclose(accumulator.finish().numpy(), truth.transpose(2, 0, 1), atol=1e-6)


def test_the_nearer_tile_has_more_weight():
    grid = TileGrid.of((16, 24), (16, 16))
    assert grid.corners == ((0, 0), (0, 8))
    accumulator = TileAccumulator(grid, 1, torch.device("cpu"))
    accumulator.add((0, 0), torch.zeros(1, 16, 16))
    accumulator.add((0, 8), torch.ones(1, 16, 16))
    row = accumulator.finish()[0, 5]
    assert row[7] == 0 and row[16] == 1
    assert row[9] < 0.1 and row[14] > 0.9
    assert bool((row.diff() > -1e-6).all())
