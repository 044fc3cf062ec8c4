"""Networks of a timm encoder and a decoder: `light`, `upernet`, `dpt` for plain transformers, or `linear`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from autoseg.models.base import ModelOutput, SegmentationNetwork, StateDictAdapter
from autoseg.models.layers.dpt import DPTDecoder
from autoseg.models.layers.simple_pyramid import SimplePyramid
from autoseg.models.layers.timm_encoder import (
    EncoderTraits,
    build_encoder,
    channels_first,
    encoder_traits,
    layer_numbers,
    load_encoder,
    to_timm_names,
)
from autoseg.models.layers.upernet import (
    AUXILIARY_WEIGHT,
    AuxiliaryHead,
    ConvNormReLU,
    UPerDecoder,
    UPerHead,
    classifier,
    resize_like,
)

_LIGHT_WIDTH, _DETAIL_WIDTH = 64, 32
# Width of DPT's fusion by the channels of the encoder, as in Depth Anything's small, base and large networks.
_DPT_WIDTHS = ((384, 64), (768, 128))
_LARGEST_DPT = 256


class TimmNetwork(SegmentationNetwork):
    """Encoder and decoder. `encode` gives the encoder's maps, `decode` the logits from them and the image."""

    def __init__(
        self, name: str, in_channels: int, input_size: tuple[int, int] | None = None, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.traits: EncoderTraits = encoder_traits(name)
        self._size = self.traits.built_size(input_size)
        self.divisor = self.traits.divisor
        if self.traits.needs_size:
            self.fixed_size = self._size
        self.encoder = build_encoder(self.traits, in_channels, self._size, drop_path)
        self.stem_weights = tuple(f"encoder.{name}" for name in self.traits.stem)
        self.unused_parameters = tuple(f"encoder.{name}" for name in self.traits.unused)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps (B, C, h, w), the finest or earliest first."""
        return channels_first(self.encoder(x), self.traits)

    def segment(self, x: Tensor) -> ModelOutput:
        return self.decode(self.encode(x), x)

    def encoder_layers(self) -> Mapping[str, int]:
        return {f"encoder.{name}": number for name, number in layer_numbers(self.encoder).items()}

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return to_timm_names(tensors, self.traits, self._size, self.encoder)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """The encoder's file as timm publishes it."""
        load_encoder(adapter, self.traits, self._size, self.encoder)


class _Pyramid(nn.Module):
    """The encoder's maps -> (map of stride 2 or None, pyramid of the strides from 4 on)."""

    def __init__(self, traits: EncoderTraits) -> None:
        super().__init__()
        strides, channels = traits.strides, traits.channels
        self.neck = SimplePyramid(channels) if traits.blocks else None
        self._coarse = [level for level, stride in enumerate(strides) if stride >= 4]
        self._fine = None if 2 not in strides else len(strides) - 1 - strides[::-1].index(2)
        self.widths = self.neck.widths if self.neck else tuple(channels[level] for level in self._coarse)
        self.fine_width = 0 if self._fine is None else channels[self._fine]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        if self.neck is not None:
            return None, self.neck(maps)
        return None if self._fine is None else maps[self._fine], [maps[level] for level in self._coarse]


class LightNetwork(TimmNetwork):
    """A narrow UPerNet decoder on the maps of strides from 4 on. Its output is combined with details at stride 2: the encoder's
    own map, or else one convolution of the image. Logits (B, K, H/2, W/2).

    channels, detail_channels: width of the decoder, and at stride 2.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        num_classes: int,
        input_size: tuple[int, int] | None = None,
        *,
        drop_path: float = 0.0,
        channels: int = _LIGHT_WIDTH,
        detail_channels: int = _DETAIL_WIDTH,
    ) -> None:
        super().__init__(name, in_channels, input_size, drop_path)
        self.pyramid = _Pyramid(self.traits)
        # The pyramid of a plain transformer has one origin: a 1x1 convolution fuses it, which halves the cost of the decoder.
        self.decoder = UPerDecoder(self.pyramid.widths, channels, fuse_kernel=1 if self.traits.blocks else 3)
        self.compress = ConvNormReLU(channels, detail_channels, 1)
        fine = self.pyramid.fine_width
        self.detail = ConvNormReLU(fine, detail_channels, 1) if fine else ConvNormReLU(in_channels, detail_channels, 3, 2)
        self.refine = ConvNormReLU(detail_channels, detail_channels, 3)
        self.dropout = nn.Dropout2d(0.1)
        # Not UPerNet's initial weights near zero: a head this narrow would need half of a few hundred steps to grow.
        self.classify = nn.Conv2d(detail_channels, num_classes, 1)
        self.head_weights = ("classify.weight", "classify.bias")

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        finest, features = self.pyramid(maps)
        detail = self.detail(x if finest is None else finest)
        coarse = self.compress(self.decoder(features))
        return ModelOutput(self.classify(self.dropout(self.refine(resize_like(coarse, detail) + detail))))


class UPerNetwork(TimmNetwork):
    """UPerNet as published: 512 channels, and in training an auxiliary head on the second coarsest map."""

    def __init__(
        self,
        name: str,
        in_channels: int,
        num_classes: int,
        input_size: tuple[int, int] | None = None,
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(name, in_channels, input_size, drop_path)
        self.pyramid = _Pyramid(self.traits)
        widths = self.pyramid.widths
        self.decoder = UPerHead(widths, num_classes)
        self._second = max(0, len(widths) - 2)
        self.auxiliary = AuxiliaryHead(widths[self._second], num_classes)
        heads = ("decoder.classify", "auxiliary.classify")
        self.head_weights = tuple(f"{head}.{kind}" for head in heads for kind in ("weight", "bias"))

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        _, features = self.pyramid(maps)
        logits = self.decoder(features)
        if not self.training:
            return ModelOutput(logits)
        return ModelOutput(logits, ((self.auxiliary(features[self._second]), AUXILIARY_WEIGHT),))


class DPTNetwork(TimmNetwork):
    """DPT's decoder on the four maps of a plain transformer."""

    def __init__(
        self,
        name: str,
        in_channels: int,
        num_classes: int,
        input_size: tuple[int, int] | None = None,
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(name, in_channels, input_size, drop_path)
        if not self.traits.blocks:
            raise ValueError("dpt is for plain transformers; this encoder has several strides: choose light or upernet")
        width = self.traits.channels[0]
        channels = next((narrow for most, narrow in _DPT_WIDTHS if width <= most), _LARGEST_DPT)
        self.decoder = DPTDecoder(self.traits.channels, (width // 8, width // 4, width // 2, width), channels)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(channels, num_classes, 1)
        self.head_weights = ("classify.weight", "classify.bias")

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        return ModelOutput(self.classify(self.dropout(self.decoder(maps))))


class _LinearDecoder(nn.Module):
    """A linear classifier on the channels of all maps, at the finest map's size: each map's own share is resized and added."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        # Without it a channel learns as fast as its values are large.
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for width in channels)
        self.shares = nn.ModuleList(classifier(width, num_classes) for width in channels)
        self.fuse = nn.Identity()  # The layer of heat maps has this name in all decoders.

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        shares = [share(norm(x)) for x, norm, share in zip(maps, self.norms, self.shares, strict=True)]
        return self.fuse(torch.stack([resize_like(x, shares[0]) for x in shares]).sum(0))  # type: ignore[no-any-return]


class LinearNetwork(TimmNetwork):
    """A linear probe: logits at the size of the encoder's finest map of a stride from 4 on. It shows what the features hold,
    and costs almost nothing compared with them.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        num_classes: int,
        input_size: tuple[int, int] | None = None,
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(name, in_channels, input_size, drop_path)
        self._used = [level for level, stride in enumerate(self.traits.strides) if stride >= 4]
        self.decoder = _LinearDecoder([self.traits.channels[level] for level in self._used], num_classes)
        shares = range(len(self._used))
        self.head_weights = tuple(f"decoder.shares.{number}.{kind}" for number in shares for kind in ("weight", "bias"))

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        return ModelOutput(self.decoder([maps[level] for level in self._used]))


DECODERS: Mapping[str, type[LightNetwork] | type[UPerNetwork] | type[DPTNetwork] | type[LinearNetwork]] = {
    "light": LightNetwork,
    "upernet": UPerNetwork,
    "dpt": DPTNetwork,
    "linear": LinearNetwork,
}


def build_network(
    name: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None,
    *,
    decoder: str = "light",
    width: int = _LIGHT_WIDTH,
    drop_path: float = 0.0,
) -> TimmNetwork:
    """A timm encoder with a decoder by name. width: of the light decoder. Raises ValueError for what does not fit."""
    if decoder not in DECODERS:
        raise ValueError(f"there is no decoder {decoder!r}: choose {', '.join(DECODERS)}")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path is a probability, not {drop_path}")
    if decoder == "light":
        return LightNetwork(
            name, in_channels, num_classes, input_size, drop_path=drop_path, channels=width, detail_channels=width // 2
        )
    return DECODERS[decoder](name, in_channels, num_classes, input_size, drop_path=drop_path)


def build_variant(encoders: Mapping[str, str]) -> Callable[..., TimmNetwork]:
    """The function that builds a variant, with the options of `build_network`. encoders: variant -> timm's name."""

    def build(
        variant: str,
        in_channels: int,
        num_classes: int,
        input_size: tuple[int, int] | None = None,
        *,
        decoder: str = "light",
        width: int = _LIGHT_WIDTH,
        drop_path: float = 0.0,
    ) -> TimmNetwork:
        """decoder: a name of `DECODERS`. width: of the light decoder. drop_path: largest rate of stochastic depth."""
        return build_network(
            encoders[variant], in_channels, num_classes, input_size, decoder=decoder, width=width, drop_path=drop_path
        )

    return build
