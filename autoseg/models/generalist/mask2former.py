"""Mask2Former: queries that each predict one class and one mask, on a deformable pixel decoder.

Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import (
    ModelOutput,
    ModelSpec,
    SegmentationNetwork,
    StateDictAdapter,
    Variant,
)
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import resnet_weights, swin
from autoseg.models.layers.pixel_decoder import PixelDecoder
from autoseg.models.layers.precision import full_precision
from autoseg.models.layers.query_decoder import Prediction, QueryDecoder
from autoseg.models.layers.set_loss import set_loss

_QUERIES = 100
_POINTS = 12544
# Keeps the logarithm finite for a class that no query predicts.
_EPSILON = 1e-6
_ENCODER = "ImageNet-1k classification (encoder)"

SPEC = ModelSpec(
    name="mask2former",
    title="Mask2Former",
    family="generalist",
    citation=(
        "Cheng B., Misra I., Schwing A. G., Kirillov A., Girdhar R.: Masked-attention Mask Transformer for Universal "
        "Image Segmentation. CVPR 2022."
    ),
    variants=(Variant("resnet50", 44_003_331), Variant("swin-t", 47_401_597), Variant("swin-s", 68_719_501)),
    own_loss=True,
    default_variant="swin-t",
    divisor=32,
    batch_statistics=False,
    weights=(
        *resnet_weights.weights_of("resnet50", variant="resnet50", trained_on=_ENCODER),
        *(one for size in swin.SIZES for one in swin.weights_of(size, variant=size, trained_on=_ENCODER)),
    ),
    cam_layer="pixel_decoder.smooth",
)

_PIXEL = r"sem_seg_head\.pixel_decoder\."
_LAYER = _PIXEL + r"transformer\.encoder\.layers\.(\d)\."
_QUERY = r"sem_seg_head\.predictor\."
_HEADS = (
    (_PIXEL + r"input_proj\.(\d)\.0\.(.+)", r"pixel_decoder.project.\1.conv.\2"),
    (_PIXEL + r"input_proj\.(\d)\.1\.(.+)", r"pixel_decoder.project.\1.norm.\2"),
    (_PIXEL + r"transformer\.level_embed", "pixel_decoder.level_places"),
    (_LAYER + r"self_attn\.sampling_offsets\.(.+)", r"pixel_decoder.layers.\1.attention.offset.\2"),
    (_LAYER + r"self_attn\.attention_weights\.(.+)", r"pixel_decoder.layers.\1.attention.mix.\2"),
    (_LAYER + r"self_attn\.value_proj\.(.+)", r"pixel_decoder.layers.\1.attention.value.\2"),
    (_LAYER + r"self_attn\.output_proj\.(.+)", r"pixel_decoder.layers.\1.attention.project.\2"),
    (_LAYER + r"norm1\.(.+)", r"pixel_decoder.layers.\1.attention_norm.\2"),
    (_LAYER + r"linear1\.(.+)", r"pixel_decoder.layers.\1.widen.\2"),
    (_LAYER + r"linear2\.(.+)", r"pixel_decoder.layers.\1.narrow.\2"),
    (_LAYER + r"norm2\.(.+)", r"pixel_decoder.layers.\1.feed_norm.\2"),
    (_PIXEL + r"adapter_1\.norm\.(.+)", r"pixel_decoder.lateral.norm.\1"),
    (_PIXEL + r"adapter_1\.(.+)", r"pixel_decoder.lateral.conv.\1"),
    (_PIXEL + r"layer_1\.norm\.(.+)", r"pixel_decoder.smooth.norm.\1"),
    (_PIXEL + r"layer_1\.(.+)", r"pixel_decoder.smooth.conv.\1"),
    (_PIXEL + r"mask_features\.(.+)", r"pixel_decoder.pixels.\1"),
    (_QUERY + r"(?:query_feat|static_query)\.weight", "query_decoder.start"),
    (_QUERY + r"query_embed\.weight", "query_decoder.own"),
    (_QUERY + r"level_embed\.weight", "query_decoder.level_places"),
    (
        _QUERY + r"transformer_cross_attention_layers\.(\d)\.multihead_attn\.out_proj\.(.+)",
        r"query_decoder.layers.\1.read.project.\2",
    ),
    (_QUERY + r"transformer_cross_attention_layers\.(\d)\.norm\.(.+)", r"query_decoder.layers.\1.read_norm.\2"),
    (
        _QUERY + r"transformer_self_attention_layers\.(\d)\.self_attn\.out_proj\.(.+)",
        r"query_decoder.layers.\1.confer.project.\2",
    ),
    (_QUERY + r"transformer_self_attention_layers\.(\d)\.norm\.(.+)", r"query_decoder.layers.\1.confer_norm.\2"),
    (_QUERY + r"transformer_ffn_layers\.(\d)\.linear1\.(.+)", r"query_decoder.layers.\1.widen.\2"),
    (_QUERY + r"transformer_ffn_layers\.(\d)\.linear2\.(.+)", r"query_decoder.layers.\1.narrow.\2"),
    (_QUERY + r"transformer_ffn_layers\.(\d)\.norm\.(.+)", r"query_decoder.layers.\1.feed_norm.\2"),
    (_QUERY + r"decoder_norm\.(.+)", r"query_decoder.norm.\1"),
    (_QUERY + r"class_embed\.(.+)", r"query_decoder.classify.\1"),
    # ReLUs have the odd indices.
    *((_QUERY + rf"mask_embed\.layers\.{i}\.(.+)", rf"query_decoder.shape.{2 * i}.\1") for i in range(3)),
)
# Official attention layers store query, key and value in one matrix.
_STACKED = re.compile(_QUERY + r"transformer_(cross|self)_attention_layers\.(\d)\.\w+\.in_proj_(weight|bias)")

# Whole models use detectron2's names for the ResNet; ImageNet files use torchvision's, like our encoder.
_RESNET = (
    (r"backbone\.stem\.conv1\.norm\.(.+)", r"encoder.bn1.\1"),
    (r"backbone\.stem\.conv1\.(.+)", r"encoder.conv1.\1"),
    *(
        row
        for i in range(1, 5)
        for row in (
            (rf"backbone\.res{i + 1}\.(\d)\.conv(\d)\.norm\.(.+)", rf"encoder.layer{i}.\1.bn\2.\3"),
            (rf"backbone\.res{i + 1}\.(\d)\.conv(\d)\.(.+)", rf"encoder.layer{i}.\1.conv\2.\3"),
            (rf"backbone\.res{i + 1}\.(\d)\.shortcut\.norm\.(.+)", rf"encoder.layer{i}.\1.downsample.1.\2"),
            (rf"backbone\.res{i + 1}\.(\d)\.shortcut\.(.+)", rf"encoder.layer{i}.\1.downsample.0.\2"),
        )
    ),
    (r"((?:conv1|bn1|layer[1-4])\..+)", r"encoder.\1"),
)
_EXTRAS = (
    *swin.OFFICIAL_EXTRAS,
    (r"fc\.(weight|bias)", "belongs to the ImageNet classifier"),
    (r"criterion\.empty_weight", "a constant of the loss"),
)


class Mask2Former(SegmentationNetwork):
    """Logits (B, K, H, W): log of the sum over queries of class probability times mask probability.

    In training the logits have stride 4 and no gradient; the network's own loss uses all ten predictions.
    """

    divisor = 32
    head_weights = ("query_decoder.classify.weight", "query_decoder.classify.bias")

    def __init__(self, variant: str, in_channels: int, num_classes: int, queries: int, points: int) -> None:
        super().__init__()
        self.points = points
        self.encoder: nn.Module
        if variant == "resnet50":
            self.encoder = timm.create_model(
                "resnet50", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4), in_chans=in_channels
            )
            widths: list[int] = self.encoder.feature_info.channels()  # type: ignore[union-attr, operator]
            self.stem_weights = ("encoder.conv1.weight",)
        else:
            self.encoder = swin.Swin(variant, in_channels)
            widths = self.encoder.widths
            self.stem_weights = ("encoder.embed.weight",)
        self.pixel_decoder = PixelDecoder(widths)
        self.query_decoder = QueryDecoder(num_classes, queries=queries)

    def predict(self, x: Tensor) -> list[Prediction]:
        """Classes and masks (at stride 4) before the first and after each layer; the last one is final."""
        return self.query_decoder(*self.pixel_decoder(self.encoder(x)))  # type: ignore[no-any-return]

    def segment(self, x: Tensor) -> ModelOutput:
        predictions = self.predict(x)
        last = predictions[-1]
        if not self.training:
            masks = F.interpolate(last.masks.float(), x.shape[-2:], mode="bilinear", align_corners=False)
            return ModelOutput(_class_logits(last.classes, masks))
        with torch.no_grad():
            logits = _class_logits(last.classes, last.masks)
        return ModelOutput(logits, own_loss=partial(self._loss, predictions, (x.shape[2], x.shape[3])))

    def _loss(self, predictions: list[Prediction], padded: tuple[int, int], target: Tensor, valid: Tensor) -> Tensor:
        extent = (target.shape[3] / padded[1], target.shape[2] / padded[0])
        return set_loss(predictions, target, valid, extent, self.points)

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Swin of timm and torchvision. The ResNets of both have the official names."""
        return swin.to_official(tensors) if isinstance(self.encoder, swin.Swin) else tensors

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and ImageNet files of the encoders."""
        for name in adapter.remaining:
            stacked = _STACKED.fullmatch(name)
            if stacked is not None:
                kind, layer, part = stacked.groups()
                ours = f"query_decoder.layers.{layer}.{'read' if kind == 'cross' else 'confer'}"
                for i, role in enumerate(("query", "key", "value")):
                    adapter.assign(f"{ours}.{role}.{part}", name, transform=partial(_chunk_of_three, i))
        resnet = not isinstance(self.encoder, swin.Swin)
        rename_keys(adapter, (*_HEADS, *(_RESNET if resnet else swin.official_names("encoder"))))
        drop_matching(adapter, _EXTRAS)


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    queries: int = _QUERIES,
    points: int = _POINTS,
) -> Mask2Former:
    """queries: number of predicted masks. points: number of points of each mask in the loss.

    The batch norms of resnet50 are trained and use batch statistics. The official ones are frozen, which makes sense
    only with ImageNet weights.
    """
    return Mask2Former(variant, in_channels, num_classes, queries, points)


def _chunk_of_three(i: int, stacked: Tensor) -> Tensor:
    return stacked.chunk(3)[i]


def _class_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """(B, Q, K + 1) and (B, Q, H, W) -> (B, K, H, W)."""
    with full_precision(masks):
        class_probabilities = classes.float().softmax(dim=2)[..., :-1]
        return torch.einsum("bqk,bqhw->bkhw", class_probabilities, masks.float().sigmoid()).add(_EPSILON).log()
