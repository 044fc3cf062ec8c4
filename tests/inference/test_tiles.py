from itertools import pairwise

import numpy as np
import pytest
import torch

from autoseg.inference.tiles import TileAccumulator, TileGrid, profile, starts


@pytest.mark.parametrize("length", [1, 31, 32, 33, 48, 64, 65, 100, 577])
def test_tiles_cover_every_pixel_and_overlap_by_half(length):
    patch = 32
    begins = starts(length, patch)
    covered = np.zeros(max(length, patch), int)
    for begin in begins:
        covered[begin : begin + patch] += 1
    assert covered.min() >= 1
    assert begins[0] == 0 and begins[-1] + patch == max(length, patch)
    # One pixel more than the step is what rounding an even spread may give.
    assert all(second - first <= patch // 2 + 1 for first, second in pairwise(begins))


def test_weights_are_highest_in_the_middle_and_never_nothing():
    weights = profile(16)
    assert weights.argmax() in (7, 8)
    assert torch.equal(weights, weights.flip(0))
    assert 0 < weights.min() < 0.01 < weights.max() <= 1


def test_small_images_are_padded_by_their_mirror_image():
    layout = TileGrid.of((3, 40), (8, 16))
    image = np.arange(3 * 40 * 2, dtype=np.uint16).reshape(3, 40, 2)
    padded = layout.pad(image)
    assert padded.shape == (8, 40, 2) and padded.dtype == image.dtype
    top = layout.before[0]
    assert np.array_equal(padded[top : top + 3], image)
    assert np.array_equal(padded[top - 1], image[1])


@pytest.mark.parametrize("size", [(20, 20), (50, 37), (5, 70), (16, 16), (1, 1)])
def test_tiles_of_a_map_blend_into_the_map(size):
    layout = TileGrid.of(size, (16, 24))
    truth = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    padded = layout.pad(truth)
    canvas = TileAccumulator(layout, 3, torch.device("cpu"))
    done = [canvas.add(corner, torch.from_numpy(layout.crop(padded, corner)).permute(2, 0, 1)) for corner in layout.corners]
    assert done == [False] * (len(done) - 1) + [True]
    assert np.allclose(canvas.finish().numpy(), truth.transpose(2, 0, 1), atol=1e-6)


def test_a_pixel_between_two_tiles_belongs_to_the_nearer_middle():
    layout = TileGrid.of((16, 24), (16, 16))
    assert layout.corners == ((0, 0), (0, 8))
    canvas = TileAccumulator(layout, 1, torch.device("cpu"))
    canvas.add((0, 0), torch.zeros(1, 16, 16))
    canvas.add((0, 8), torch.ones(1, 16, 16))
    row = canvas.finish()[0, 5]
    assert row[7] == 0 and row[16] == 1
    assert row[9] < 0.1 and row[14] > 0.9
    assert bool((row.diff() > -1e-6).all())
