"""MapFusion equals projecting, resizing, concatenating and mixing, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoseg.models.layers.fusion import MapFusion


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_values_and_gradients_equal_the_step_by_step_computation(mode: str) -> None:
    torch.manual_seed(0)
    fusion = MapFusion([6, 5, 4], [8, None, 3], 7, mode=mode).double()
    maps = [torch.randn(2, c, s, s + 1, dtype=torch.float64) for c, s in ((6, 3), (5, 6), (4, 12))]

    def reference() -> torch.Tensor:
        wide = []
        for x, projection in zip(maps, fusion.projections, strict=True):
            if isinstance(projection, nn.Linear):
                x = projection(x.movedim(1, -1)).movedim(-1, 1)
            wide.append(F.interpolate(x, (12, 13), mode=mode, align_corners=False if mode == "bilinear" else None))
        return F.relu(fusion.norm(fusion.mix(torch.cat(wide, dim=1))))

    results = []
    for output in (fusion(maps, (12, 13)), reference()):
        gradients = torch.autograd.grad(output.pow(2).sum(), list(fusion.parameters()))
        results.append([output, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
