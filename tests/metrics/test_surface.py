import math
import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from autoseg.metrics.surface import border, border_distances, boundary_iou, hd95, surface_score


def blobs(seed, size=(48, 64), count=3):
    """A few discs, some over the image's edge, with a far speck."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(count):
        row, column, radius = draw.integers(0, size[0]), draw.integers(0, size[1]), draw.integers(1, 12)
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


def slow_border(mask):
    border = np.zeros_like(mask)
    padded = np.pad(mask, 1)
    for row, column in np.argwhere(mask):
        around = padded[row, column + 1], padded[row + 2, column + 1], padded[row + 1, column], padded[row + 1, column + 2]
        border[row, column] = not all(around)
    return border


def slow_hd95(first, second, spacing):
    a, b = (np.argwhere(slow_border(mask)) * spacing for mask in (first, second))
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.7), (0.5, 0.8), (3.0, 1.0)])
@pytest.mark.parametrize("seed", range(6))
def test_hd95_equals_all_pairs(seed, spacing):
    first, second = blobs(seed), blobs(seed + 100)
    assert hd95(first, second, spacing) == pytest.approx(slow_hd95(first, second, spacing), rel=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.8)])
@pytest.mark.parametrize("seed", range(6))
def test_hd95_equals_monai(seed, spacing):
    first, second = blobs(seed, (96, 80), 5), blobs(seed + 50, (96, 80), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = compute_hausdorff_distance(
            torch.from_numpy(first)[None, None],
            torch.from_numpy(second)[None, None],
            include_background=True,
            percentile=95,
            spacing=list(spacing),
        )
    assert hd95(first, second, spacing) == pytest.approx(expected.item(), rel=1e-5)


def test_noise_equals_all_pairs():
    first, second = np.random.default_rng(0).random((2, 90, 70)) > 0.7
    assert hd95(first, second) == pytest.approx(slow_hd95(first, second, (1, 1)), rel=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, -1, 2])
def test_any_layout_of_the_arrays_is_read_alike(order, step):
    first, second = blobs(1, (60, 80)), blobs(2, (60, 80))
    expected = surface_score(first[::step].copy(), second[::step].copy())
    seen = surface_score(*(np.asarray(one, order=order)[::step] for one in (first, second)))
    assert seen == expected


def test_distances_across_a_large_image_are_exact():
    """Squares of distances in pixels stay whole numbers."""
    first, second = np.zeros((2, 1500, 1300), bool)
    first[0, 0] = second[1499, 1298] = True
    assert hd95(first, second) == math.hypot(1499, 1298)


def test_hd95_is_not_the_pooled_percentile():
    first = np.zeros((40, 200), bool)
    first[5:35, 5:35] = True
    second = first.copy()
    second[20:22, 190:195] = True
    distances = border_distances(first, second)
    assert distances is not None
    assert hd95(second, first) == max(np.percentile(one, 95) for one in distances)
    pooled = np.percentile(np.concatenate(distances), 95)
    assert hd95(first, second) == hd95(second, first) != pytest.approx(pooled, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_border_includes_the_image_edge(seed):
    mask = blobs(seed, (20, 31))
    assert np.array_equal(border(mask), slow_border(mask))
    full = np.ones((5, 6), bool)
    assert border(full).sum() == 2 * 5 + 2 * 6 - 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_thin_masks_are_all_border(shape):
    mask = np.ones(shape, bool)
    assert border(mask).all()
    assert hd95(mask, mask) == 0


def test_shift_by_three_rows_gives_hd95_of_three():
    first = np.zeros((30, 30), bool)
    first[10, 5:25] = True
    second = np.roll(first, 3, axis=0)
    assert hd95(first, second) == 3
    assert hd95(first, second, (2.0, 1.0)) == 6


def test_distance_to_an_empty_mask_is_undefined():
    something, nothing = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert all(math.isnan(hd95(*pair)) for pair in ((something, nothing), (nothing, something), (nothing, nothing)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        hd95(np.ones((2, 3), bool), np.ones((3, 2), bool))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.8)])
@pytest.mark.parametrize("seed", range(4))
def test_surface_dice_and_average_distance_equal_monai(seed, spacing):
    first, second = blobs(seed, (96, 80), 5), blobs(seed + 50, (96, 80), 4)
    tensors = [torch.from_numpy(one)[None, None] for one in (first, second)]
    settings = {"include_background": True, "spacing": list(spacing)}
    score = surface_score(first, second, spacing, tolerance=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert score.nsd == pytest.approx(compute_surface_dice(*tensors, [2.0], **settings).item(), rel=1e-5)
        mean = compute_average_surface_distance(*tensors, symmetric=True, **settings).item()
    assert score.asd == pytest.approx(mean, rel=1e-5)
    assert score.hd95_pooled == pytest.approx(np.percentile(np.concatenate(border_distances(first, second, spacing)), 95))


def test_surface_dice_without_a_counterpart_is_zero():
    something, nothing = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert surface_score(something, nothing).nsd == surface_score(nothing, something).nsd == 0
    assert math.isnan(surface_score(something, nothing).asd) and math.isnan(surface_score(nothing, nothing).nsd)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_hd95_of_one_empty_mask_is_the_diagonal_or_left_out(spacing):
    first, nothing = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    first[3:9, 4:20] = True
    diagonal = math.hypot(30 * spacing[0], 40 * spacing[1])
    for pair in ((first, nothing), (nothing, first)):
        score = surface_score(*pair, spacing)
        assert math.isnan(score.hd95) and score.hd95_diagonal == pytest.approx(diagonal)
    assert math.isnan(surface_score(nothing, nothing, spacing).hd95_diagonal)
    both = surface_score(first, np.roll(first, 5, axis=0), spacing)
    assert both.hd95_diagonal == both.hd95 == pytest.approx(5 * spacing[0]) and both.hd95 < diagonal


def _band_by_hand(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask with a pixel outside it, or outside the image, at most `width` rows and columns away."""
    padded = np.pad(mask, width)
    rows, columns = np.nonzero(mask)
    band = np.zeros_like(mask)
    for row, column in zip(rows, columns, strict=True):
        band[row, column] = not padded[row : row + 2 * width + 1, column : column + 2 * width + 1].all()
    return band


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_equals_the_definition(seed):
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:90, :120]
    first, second = (
        ((rows - row) / 30) ** 2 + ((columns - column) / 45) ** 2 <= 1
        for row, column in random.uniform((30, 40), (60, 70), (2, 2))
    )
    # One touches the image's edge, and has a hole.
    first = np.roll(first, -25, 0)
    first[20:24, 50:54] = False
    width = round(0.02 * math.hypot(90, 120))
    one, other = _band_by_hand(first, width), _band_by_hand(second, width)
    assert width == 3
    assert boundary_iou(first, second) == pytest.approx((one & other).sum() / (one | other).sum(), abs=1e-12)
    assert surface_score(first, second).boundary_iou == boundary_iou(first, second)


def test_boundary_iou_tells_of_the_border_what_iou_hides():
    rows, columns = np.mgrid[:200, :200]
    distance = np.hypot(rows - 100, columns - 100)
    big, smaller = distance <= 90, distance <= 86
    assert (big & smaller).sum() / (big | smaller).sum() > 0.9 > 0.4 > boundary_iou(smaller, big) > 0
    empty = np.zeros_like(big)
    assert boundary_iou(big, big) == 1 and boundary_iou(empty, big) == boundary_iou(big, empty) == 0
    assert math.isnan(boundary_iou(empty, empty))
    with pytest.raises(ValueError, match="shape"):
        boundary_iou(big, big[1:])
