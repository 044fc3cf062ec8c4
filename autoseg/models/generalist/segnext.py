"""SegNeXt: the convolutional-attention encoder MSCAN and a decoder with global context from a matrix factorisation.

Guo et al.: SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation. NeurIPS 2022.
Geng et al.: Is Attention Better Than Matrix Decomposition? ICLR 2021 (the "Hamburger").
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import mscan
from autoseg.models.layers.fusion import MapFusion
from autoseg.models.layers.precision import full_precision
from autoseg.models.layers.upernet import classifier

SPEC = ModelSpec(
    name="segnext",
    title="SegNeXt",
    family="generalist",
    citation="Guo M.-H., Lu C.-Z., Hou Q., Liu Z., Cheng M.-M., Hu S.-M.: SegNeXt: Rethinking Convolutional Attention "
    "Design for Semantic Segmentation. NeurIPS 2022.",
    variants=(
        Variant("t", 4_225_378),
        Variant("s", 13_894_850),
        Variant("b", 27_560_386),
        Variant("l", 48_774_850),
    ),
    default_variant="l",
    divisor=32,
    mixed_precision=False,
    warmup_epochs=1,
    weights=mscan.WEIGHTS,
    cam_layer="align",
)

# Channels of the decoder and number of bases of its decomposition.
_DECODERS = {"t": (256, 16), "s": (256, 16), "b": (512, 64), "l": (1024, 64)}
_TRAINING_STEPS, _EVALUATION_STEPS = 6, 7
_EPSILON = 1e-6
_BASES_SEED = 1234

_OFFICIAL = (
    *mscan.official_names("encoder"),
    (r"decode_head\.squeeze\.conv\.(.+)", r"squeeze.mix.\1"),
    (r"decode_head\.squeeze\.gn\.(.+)", r"squeeze.norm.\1"),
    (r"decode_head\.hamburger\.ham_in\.conv\.(.+)", r"hamburger.enter.\1"),
    (r"decode_head\.hamburger\.ham_out\.conv\.(.+)", r"hamburger.leave.0.\1"),
    (r"decode_head\.hamburger\.ham_out\.gn\.(.+)", r"hamburger.leave.1.\1"),
    (r"decode_head\.align\.conv\.(.+)", r"align.0.\1"),
    (r"decode_head\.align\.gn\.(.+)", r"align.1.\1"),
    (r"decode_head\.conv_seg\.(.+)", r"classify.\1"),
)


class Decomposition(nn.Module):
    """Low-rank approximation of a non-negative map (B, D, H, W) by non-negative matrix factorisation with `rank` bases.

    A few multiplicative updates; gradients pass through all of them. The initial bases are random for each image in
    training, and with `fresh_bases` (as published) in evaluation too. Otherwise evaluation starts from `bases`
    (1, D, rank), the same for every image and run. Computed in float32: the products exceed the range of half precision.
    """

    def __init__(self, channels: int, rank: int, fresh_bases: bool) -> None:
        super().__init__()
        self.shape = (channels, rank)
        self.fresh_bases = fresh_bases
        # NumPy gives the same numbers for a seed on every machine.
        initial_bases = np.random.default_rng(_BASES_SEED).random((1, channels, rank)).astype(np.float32)
        self.bases: Tensor
        self.register_buffer("bases", F.normalize(torch.tensor(initial_bases), dim=1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return self._reconstruct(x.flatten(2).float()).to(x.dtype).view_as(x)

    def _reconstruct(self, matrix: Tensor) -> Tensor:
        if self.training or self.fresh_bases:
            bases = F.normalize(torch.rand(len(matrix), *self.shape, device=matrix.device), dim=1)
        else:
            bases = self.bases.float().expand(len(matrix), -1, -1)
        columns = matrix.transpose(1, 2)
        weights = (columns @ bases).softmax(dim=-1)
        for _ in range(_TRAINING_STEPS if self.training else _EVALUATION_STEPS):
            weights = _update(weights, columns, bases)
            bases = _update(bases, matrix, weights)
        return bases @ _update(weights, columns, bases).transpose(1, 2)


def _update(factor: Tensor, matrix: Tensor, other: Tensor) -> Tensor:
    """One multiplicative update of `factor` in matrix ~ factor @ other^T."""
    return factor * (matrix @ other) / (factor @ (other.transpose(1, 2) @ other) + _EPSILON)


class Hamburger(nn.Module):
    """The decomposition between two 1x1 convolutions, with residual: (B, C, H, W) -> same shape."""

    def __init__(self, channels: int, rank: int, fresh_bases: bool) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.decompose = Decomposition(channels, rank, fresh_bases)
        self.leave = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), _group_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.leave(self.decompose(F.relu(self.enter(x)))))


class SegNeXt(SegmentationNetwork):
    """Logits (B, K, H/8, W/8). The finest encoder map is not used.

    channels, rank: width of the decoder and number of bases. fresh_bases: see `Decomposition`.
    """

    divisor = 32
    stem_weights = ("encoder.stages.0.embed.0.weight",)
    head_weights = ("classify.weight", "classify.bias")

    def __init__(
        self, size: str, in_channels: int, num_classes: int, channels: int, rank: int, fresh_bases: bool = False
    ) -> None:
        super().__init__()
        self.encoder = mscan.MSCAN(size, in_channels)
        widths = self.encoder.widths[1:]
        self.squeeze = MapFusion(widths, [None] * len(widths), channels, norm=_group_norm)
        self.hamburger = Hamburger(channels, rank, fresh_bases)
        self.align = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), _group_norm(channels), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout2d(0.1)
        for module in (*self.hamburger.modules(), *self.align):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.classify = classifier(channels, num_classes)

    def segment(self, x: Tensor) -> ModelOutput:
        maps = self.encoder(x)[1:]
        joined = self.hamburger(self.squeeze(maps, maps[0].shape[-2:]))
        return ModelOutput(self.classify(self.dropout(self.align(joined))))

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and ImageNet files of the encoder (`mscan_*.pth`)."""
        rename_keys(adapter, _OFFICIAL)
        drop_matching(adapter, [mscan.CLASSIFIER])


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    *,
    fresh_bases: bool = False,
) -> SegNeXt:
    """SegNeXt with the encoder MSCAN-`variant`.

    fresh_bases: as published, draw new random bases for every prediction, so that repeated predictions differ slightly.
    """
    return SegNeXt(variant, in_channels, num_classes, *_DECODERS[variant], fresh_bases=fresh_bases)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)
