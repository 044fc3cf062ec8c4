"""Fuses feature maps of several sizes; each is projected at its own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class MapFusion(nn.Module):
    """Project each map per pixel, resize all to one size, concatenate, mix with a 1x1 convolution, norm, ReLU.

    Projection, resizing and mixing are linear, and resizing acts on each channel separately and preserves constants. So
    their order can change: a map's projection and its part of the mixing weight are multiplied into one small weight,
    which is applied at the map's own size; the results are resized and added. Values and gradients are the same, without
    computing or storing the wide concatenation.

    in_channels: of the maps, in the order of concatenation. widths: channels to which each is projected (with bias); None
    for no projection. mode: of the resizing. forward: maps (B, C_i, h_i, w_i) and the size (h, w) ->
    (B, out_channels, h, w).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        widths: Sequence[int | None],
        out_channels: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        mode: str = "bilinear",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.mix_channels = [width or channels for channels, width in zip(in_channels, widths, strict=True)]
        self.projections = nn.ModuleList(
            nn.Identity() if width is None else nn.Linear(channels, width)
            for channels, width in zip(in_channels, widths, strict=True)
        )
        self.mix = nn.Conv2d(sum(self.mix_channels), out_channels, 1, bias=False)
        self.norm = norm(out_channels)
        nn.init.kaiming_normal_(self.mix.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        mix_weights = self.mix.weight.flatten(1).split(self.mix_channels, dim=1)
        total: Tensor | None = None
        for x, projection, weight in zip(maps, self.projections, mix_weights, strict=True):
            bias = None
            if isinstance(projection, nn.Linear):
                weight, bias = weight @ projection.weight, weight @ projection.bias
            mixed = self._resize(F.conv2d(x, weight[:, :, None, None], bias), tuple(size))
            total = mixed if total is None else total + mixed
        return F.relu(self.norm(total), inplace=True)

    def _resize(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        if tuple(x.shape[-2:]) == size:
            return x
        return F.interpolate(x, size, mode=self.mode, align_corners=False if self.mode == "bilinear" else None)
