"""VWFormer's windows: the pixels of a context, and image sizes with odd windows."""

from __future__ import annotations

import pytest
import torch

from autoseg import models
from autoseg.models.layers.vwformer import VaryingWindowAttention, copy_shift_pad


@pytest.mark.parametrize(("ratio", "window"), [(2, 4), (4, 2), (8, 2)])
def test_a_context_is_the_window_and_its_surroundings(ratio: int, window: int) -> None:
    attention = VaryingWindowAttention(128, ratio, heads=1, shortcut=True, normed=True)
    side, channels = 8 * window, 128 // ratio**2
    x = torch.arange(channels * side * side, dtype=torch.float32).view(1, channels, side, side)
    contexts = attention._contexts(x, window, window)
    assert contexts.shape == (64, window**2, 128)
    margin = (ratio - 1) * window // 2
    padded = copy_shift_pad(copy_shift_pad(x, 3, ratio, window), 2, ratio, window)
    for row, column in ((0, 0), (3, 4), (7, 7)):
        top, left = row * window, column * window
        context = padded[0, :, top : top + ratio * window, left : left + ratio * window]
        assert set(contexts[8 * row + column].flatten().tolist()) == set(context.flatten().tolist())
        assert torch.equal(padded[0, :, margin:-margin, margin:-margin], x[0])


def test_tokens_fold_neighbours_into_channels_row_by_row() -> None:
    attention = VaryingWindowAttention(128, 2, heads=1, shortcut=True, normed=True)
    x = torch.randn(1, 32, 32, 32)
    # Window (3, 3) of side 4 starts at 12; its context of side 8 starts two pixels earlier.
    token = attention._contexts(x, 4, 4)[8 * 3 + 3].view(4, 4, 128)[1, 2]
    row, column = 10 + 2, 10 + 4
    expected = torch.cat([x[0, :, row + i, column + j] for i in (0, 1) for j in (0, 1)])
    assert torch.equal(token, expected)


def test_padding_copies_columns_one_context_further_inside() -> None:
    x = torch.arange(32.0)[None]
    padded = copy_shift_pad(x, 1, ratio=2, window=4)
    assert padded[0].tolist() == [6.0, 7.0, *range(32), 24.0, 25.0]


@pytest.mark.parametrize("size", [(64, 192), (192, 320)])
@pytest.mark.parametrize("city", [False, True])
def test_odd_windows_work(size: tuple[int, int], city: bool) -> None:
    with torch.device("meta"):
        network = models.build("vwformer_mit", "b0", heads=8, city=city)
        assert network(torch.zeros(2, 3, *size)).logits.shape == (2, 2, *size)


def test_both_heads_can_be_chosen() -> None:
    with torch.device("meta"):
        default, city = models.build("vwformer_mit", "b0"), models.build("vwformer_mit", "b0", city=True)
    count = [sum(p.numel() for p in network.parameters()) for network in (default, city)]
    assert count[0] > count[1]
