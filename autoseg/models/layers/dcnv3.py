"""Deformable convolution of the third kind: each pixel gathers nine freely placed points, mixed by a softmax.

Wang et al.: InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions. CVPR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.sampling import mix_samples

POINTS = 9


def sample_window(values: Tensor, offsets: Tensor, mixing: Tensor) -> Tensor:
    """Samples around each pixel, zero outside the map, mixed: (B, G, D, H, W) -> (B, G, D, H, W).

    offsets (B, G, 9, H, W, 2): x and y in pixels, added to the places of a 3x3 window. mixing (B, G, 9, H, W). The nine
    points go down the window's columns: x is the slow index.
    """
    height, width = values.shape[-2:]
    step = torch.arange(-1, 2, device=values.device, dtype=torch.float32)
    # Pixel centres sit at (i + 0.5) / size between the map's edges.
    columns = torch.arange(width, device=values.device, dtype=torch.float32) + step.repeat_interleave(3)[:, None] + 0.5
    rows = torch.arange(height, device=values.device, dtype=torch.float32) + step.repeat(3)[:, None] + 0.5
    x = (offsets[..., 0].float() + columns[:, None, :]) / width
    y = (offsets[..., 1].float() + rows[:, :, None]) / height
    places = torch.stack((x, y), dim=-1).flatten(3, 4).flatten(0, 1)
    mixed = mix_samples(values.flatten(0, 1), places, mixing.flatten(3, 4).flatten(0, 1))
    return mixed.reshape(values.shape)


class DeformableConvolution(nn.Module):
    """DCNv3 on maps with channels last, (B, H, W, C) -> (B, H, W, C).

    A depth-wise look at the neighbourhood says for each pixel and each of `groups` channel groups where to look and how
    to mix what is seen there. At the start it looks straight and mixes evenly: a 3x3 average.
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
        seen = F.gelu(self.look_norm(self.look(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        offsets = self.offset(seen).unflatten(3, (self.groups, POINTS, 2)).permute(0, 3, 4, 1, 2, 5)
        mixing = self.mix(seen).unflatten(3, (self.groups, POINTS)).softmax(dim=-1).permute(0, 3, 4, 1, 2)
        values = self.value(x).unflatten(3, (self.groups, -1)).permute(0, 3, 4, 1, 2)
        gathered = sample_window(values, offsets, mixing)
        return self.project(gathered.permute(0, 3, 4, 1, 2).flatten(3))  # type: ignore[no-any-return]
