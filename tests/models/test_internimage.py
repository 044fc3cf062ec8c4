"""InternImage's deformable sampling against torchvision's kernel for deformable convolutions."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from autoseg.models.layers.dcnv3 import POINTS, sample_window


@pytest.mark.parametrize("size", [(6, 9), (1, 5), (8, 1)])
def test_sampling_is_a_deformable_convolution_whose_weights_are_one(size: tuple[int, int]) -> None:
    batch, groups, depth, (height, width) = 2, 3, 4, size
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(batch, groups, depth, height, width, generator=generator)
    # Large enough to leave the map on every side.
    offsets = 3 * torch.randn(batch, groups, POINTS, height, width, 2, generator=generator)
    weights = torch.rand(batch, groups, POINTS, height, width, generator=generator)
    # torchvision's points are in row-major order, with y first.
    row_major = [3 * column + row for row in range(3) for column in range(3)]
    reference = deform_conv2d(
        values.flatten(1, 2),
        offsets[:, :, row_major].flip(-1).movedim(-1, 3).flatten(1, 3),
        torch.ones(groups * depth, 1, 3, 3),
        padding=1,
        mask=weights[:, :, row_major].flatten(1, 2),
    )
    ours = sample_window(values, offsets, weights).flatten(1, 2)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
