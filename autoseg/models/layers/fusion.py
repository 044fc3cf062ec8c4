"""Feature maps of several sizes joined into one, each worked on at its own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class MapFusion(nn.Module):
    """Project each map per pixel, resize all to one size, concatenate, mix with a 1x1 convolution, norm, ReLU.

    From the projection to the mixing every step is linear, and resizing treats each channel alone and keeps constants,
    so the steps may change places. A map's projection and its share of the mixing are multiplied into one small weight
    that is applied at the map's own size; the results are resized and added. Values and gradients are those of the long
    way, without computing or keeping the wide concatenation.

    in_channels: of the maps, in the order of concatenation. widths: channels each is projected to (with bias), None for
    a map that is mixed as it is. mode: how maps are resized. forward: maps (B, C_i, h_i, w_i) and the size (h, w) ->
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
        self.shares = [width or channels for channels, width in zip(in_channels, widths, strict=True)]
        self.projections = nn.ModuleList(
            nn.Identity() if width is None else nn.Linear(channels, width)
            for channels, width in zip(in_channels, widths, strict=True)
        )
        self.mix = nn.Conv2d(sum(self.shares), out_channels, 1, bias=False)
        self.norm = norm(out_channels)
        nn.init.kaiming_normal_(self.mix.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        shares = self.mix.weight.flatten(1).split(self.shares, dim=1)
        total: Tensor | None = None
        for x, projection, weight in zip(maps, self.projections, shares, strict=True):
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
