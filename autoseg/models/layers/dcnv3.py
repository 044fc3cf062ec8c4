"""Deformable convolution v3 (DCNv3): each pixel samples nine points at learned offsets, weighted by a softmax.

Wang et al.: InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions. CVPR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.sampling import weighted_samples

POINTS = 9


def sample_window(values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of nine samples around each pixel, zero outside the map: (B, G, D, H, W) -> (B, G, D, H, W).

    offsets (B, G, 9, H, W, 2): x and y in pixels, added to the positions of a 3x3 window. weights (B, G, 9, H, W). The
    nine points are in column-major order: x is the slow index.
    """
    height, width = values.shape[-2:]
    step = torch.arange(-1, 2, device=values.device, dtype=torch.float32)
    # Pixel centres are at (i + 0.5) / size; the map's edges are at 0 and 1.
    columns = torch.arange(width, device=values.device, dtype=torch.float32) + step.repeat_interleave(3)[:, None] + 0.5
    rows = torch.arange(height, device=values.device, dtype=torch.float32) + step.repeat(3)[:, None] + 0.5
    x = (offsets[..., 0].float() + columns[:, None, :]) / width
    y = (offsets[..., 1].float() + rows[:, :, None]) / height
    locations = torch.stack((x, y), dim=-1).flatten(3, 4).flatten(0, 1)
    sampled = weighted_samples(values.flatten(0, 1), locations, weights.flatten(3, 4).flatten(0, 1))
    return sampled.reshape(values.shape)


class DeformableConvolution(nn.Module):
    """DCNv3 on maps with channels last, (B, H, W, C) -> (B, H, W, C).

    A depth-wise convolution predicts offsets and weights of the samples, for each pixel and each of `groups` channel
    groups. Initially offsets are zero and weights equal: a 3x3 average.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.look = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.look_norm = nn.LayerNorm(channels, eps=1e-6)
        self.offset = nn.Linear(channels, groups * POINTS * 2)
        self.mix = nn.Linear(channels, groups * POINTS)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        for layer in (self.offset, self.mix):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = F.gelu(self.look_norm(self.look(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        offsets = self.offset(features).unflatten(3, (self.groups, POINTS, 2)).permute(0, 3, 4, 1, 2, 5)
        weights = self.mix(features).unflatten(3, (self.groups, POINTS)).softmax(dim=-1).permute(0, 3, 4, 1, 2)
        values = self.value(x).unflatten(3, (self.groups, -1)).permute(0, 3, 4, 1, 2)
        sampled = sample_window(values, offsets, weights)
        return self.project(sampled.permute(0, 3, 4, 1, 2).flatten(3))  # type: ignore[no-any-return]
