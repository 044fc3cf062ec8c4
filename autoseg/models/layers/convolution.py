"""Plain convolution blocks."""

from __future__ import annotations

from torch import nn


def double_convolution(
    in_channels: int, out_channels: int, middle: int | None = None, bias: bool = False, norm: bool = True
) -> nn.Sequential:
    """Twice [3x3 convolution, batch norm, ReLU]: (B, in, H, W) -> (B, out, H, W).

    middle: channels between the two convolutions; default: those of the output. norm: False leaves batch norm out; give the
    convolutions a bias then.
    """
    first, second = (nn.BatchNorm2d(width) if norm else nn.Identity() for width in (middle or out_channels, out_channels))
    middle = middle or out_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 3, padding=1, bias=bias),
        first,
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, 3, padding=1, bias=bias),
        second,
        nn.ReLU(inplace=True),
    )
