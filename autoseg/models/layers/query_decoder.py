"""Transformer decoder with masked attention: each query attends within its own mask and predicts a class and a mask.

Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.pixel_decoder import sine_position_encoding

_HEADS = 8
_LAYERS = 9
_HIDDEN = 2048
_SCALES = 3


class Prediction(NamedTuple):
    """classes: logits (B, Q, K + 1), the last one for "no object". masks: logits (B, Q, h, w)."""

    classes: Tensor
    masks: Tensor


class Attention(nn.Module):
    """Attention of queries (B, N, C) to keys and values (B, M, C): (B, N, C). mask (B, N, M): True for allowed pairs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        queries, keys, values = (
            layer(x).unflatten(2, (_HEADS, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        attn_mask = None if mask is None else mask.unsqueeze(1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.project(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Cross-attention to the map, self-attention, feed-forward, each with residual and post-norm: (B, Q, C) -> same shape."""

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

    def forward(self, queries: Tensor, query_embedding: Tensor, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """query_embedding (Q, C): added to queries and self-attention keys. positions (M, C): added to the map's keys."""
        queries = self.read_norm(queries + self.read(queries + query_embedding, tokens + positions, tokens, mask))
        positioned = queries + query_embedding
        queries = self.confer_norm(queries + self.confer(positioned, positioned, queries))
        return self.feed_norm(queries + self.narrow(F.relu(self.widen(queries))))  # type: ignore[no-any-return]


class QueryDecoder(nn.Module):
    """Pixel features (B, C, h, w) and maps of increasing size -> predictions before the first and after each of nine layers."""

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
            x.flatten(2).transpose(1, 2) + level for x, level in zip(maps, self.level_places, strict=True)
        ]
        positions = [sine_position_encoding(size, pixels.shape[1], pixels.device) for size in sizes]
        queries = self.start.expand(pixels.shape[0], -1, -1)
        predictions = [self._predict(queries, pixels)]
        for i, layer in enumerate(self.layers):
            scale = i % _SCALES
            mask = _attention_mask(predictions[-1].masks, sizes[scale])
            queries = layer(queries, self.own, tokens[scale], positions[scale], mask)
            predictions.append(self._predict(queries, pixels))
        return predictions

    def _predict(self, queries: Tensor, pixels: Tensor) -> Prediction:
        queries = self.norm(queries)
        return Prediction(self.classify(queries), torch.einsum("bqc,bchw->bqhw", self.shape(queries), pixels))


def _attention_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, Q, H * W): True inside each query's mask. A query with an empty mask attends to all pixels."""
    masks = F.interpolate(masks.detach(), size, mode="bilinear", align_corners=False).flatten(2)
    in_mask = masks.sigmoid() >= 0.5
    return in_mask | ~in_mask.any(dim=2, keepdim=True)
