"""Queries that read an image's features, each only where its own mask lies, and become classes and masks.

Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.pixel_decoder import sine_places

_HEADS = 8
_LAYERS = 9
_HIDDEN = 2048
_SCALES = 3


class Prediction(NamedTuple):
    """classes: logits (B, Q, K + 1), the last one for "nothing". masks: logits (B, Q, h, w)."""

    classes: Tensor
    masks: Tensor


class Attention(nn.Module):
    """Attention of queries (B, N, C) to keys and values (B, M, C): (B, N, C). seen (B, N, M): where it may look."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        queries, keys, values = (
            layer(x).unflatten(2, (_HEADS, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if seen is None else seen.unsqueeze(1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.project(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Queries read the map, then each other, then think: each step added and then normed. (B, Q, C) is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.read = Attention(channels)
        self.read_norm = nn.LayerNorm(channels)
        self.confer = Attention(channels)
        self.confer_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, _HIDDEN)
        self.narrow = nn.Linear(_HIDDEN, channels)
        self.feed_norm = nn.LayerNorm(channels)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, queries: Tensor, own: Tensor, tokens: Tensor, places: Tensor, seen: Tensor) -> Tensor:
        """own (Q, C): added to each query wherever it asks or is asked. places (M, C): where each token is."""
        queries = self.read_norm(queries + self.read(queries + own, tokens + places, tokens, seen))
        asking = queries + own
        queries = self.confer_norm(queries + self.confer(asking, asking, queries))
        return self.feed_norm(queries + self.narrow(F.relu(self.widen(queries))))  # type: ignore[no-any-return]


class QueryDecoder(nn.Module):
    """Pixel features (B, C, h, w) and maps of rising size -> predictions before and after each of nine layers."""

    def __init__(self, num_classes: int, channels: int = 256, queries: int = 100) -> None:
        super().__init__()
        self.start = nn.Parameter(nn.init.normal_(torch.empty(queries, channels)))
        self.own = nn.Parameter(nn.init.normal_(torch.empty(queries, channels)))
        self.level_places = nn.Parameter(nn.init.normal_(torch.empty(_SCALES, channels)))
        self.layers = nn.ModuleList(DecoderLayer(channels) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(channels)
        self.classify = nn.Linear(channels, num_classes + 1)
        self.shape = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels),
        )

    def forward(self, pixels: Tensor, maps: Sequence[Tensor]) -> list[Prediction]:
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        tokens = [
            x.flatten(2).transpose(1, 2) + own for x, own in zip(maps, self.level_places, strict=True)
        ]
        places = [sine_places(size, pixels.shape[1], pixels.device) for size in sizes]
        queries = self.start.expand(pixels.shape[0], -1, -1)
        predictions = [self._predict(queries, pixels)]
        for i, layer in enumerate(self.layers):
            scale = i % _SCALES
            seen = _inside(predictions[-1].masks, sizes[scale])
            queries = layer(queries, self.own, tokens[scale], places[scale], seen)
            predictions.append(self._predict(queries, pixels))
        return predictions

    def _predict(self, queries: Tensor, pixels: Tensor) -> Prediction:
        queries = self.norm(queries)
        return Prediction(self.classify(queries), torch.einsum("bqc,bchw->bqhw", self.shape(queries), pixels))


def _inside(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, Q, H * W): the pixels each query's mask covers; a query with an empty mask sees everything."""
    masks = F.interpolate(masks.detach(), size, mode="bilinear", align_corners=False).flatten(2)
    inside = masks.sigmoid() >= 0.5
    return inside | ~inside.any(dim=2, keepdim=True)
