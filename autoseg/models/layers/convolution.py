"""Plain convolution blocks."""

from __future__ import annotations

from torch import nn


def double_convolution(
    in_channels: int, out_channels: int, middle: int | None = None, bias: bool = False
) -> nn.Sequential:
    """Twice [3x3 convolution, batch norm, ReLU]: (B, in, H, W) -> (B, out, H, W).

    middle: channels between the two convolutions; default: those of the output.
    """
    middle = middle or out_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 3, padding=1, bias=bias),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, 3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
