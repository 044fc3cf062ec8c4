"""Every encoder of timm as a model, `timm:NAME`: a pyramid decoder on what timm gives as feature maps.

Normalisation, licence, address of the weights, first layer and strides are read from timm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import timm
import torch

from autoseg.models.base import LIKE_ANY_OTHER, Family, ModelSpec, Transfer, Variant
from autoseg.models.layers.timm_encoder import EncoderTraits, encoder_traits, pretrained_config
from autoseg.models.layers.timm_network import TimmNetwork, build_variant
from autoseg.models.published_weights import DINOV3, PublishedWeights, direct, on_hub

PREFIX, VARIANT = "timm:", "standard"
# Names of encoders that were pretrained on far more than ImageNet: self-supervised, with text, or to segment anything.
_FOUNDATION = re.compile(r"dinov[23]|lvd|sam2?_|samvit|_pe_|siglip|clip|(^|_)eva|aimv2|dfn|laion|merged")
_TRAINED_ON = (
    ("lvd1689m", "LVD-1689M, self-supervised (DINOv3)"),
    ("sat493m", "SAT-493M, self-supervised (DINOv3)"),
    ("lvd142m", "LVD-142M, self-supervised (DINOv2)"),
    ("in22k_ft_in1k", "ImageNet-22k, then ImageNet-1k"),
    ("in21k_ft_in1k", "ImageNet-21k, then ImageNet-1k"),
    ("in12k_ft_in1k", "ImageNet-12k, then ImageNet-1k"),
    ("in22k", "ImageNet-22k"),
    ("in21k", "ImageNet-21k"),
    ("in12k", "ImageNet-12k"),
    ("in1k", "ImageNet-1k"),
)
# Warm-up: 1500 of EoMT's steps for DINOv2, about a twentieth, as a share because trainings here differ in length.
LAYER_BY_LAYER = Transfer(
    layer_decay=0.8,
    weight_decay=0.05,
    warmup_share=0.05,
    drop_path=0.2,
    source="as EoMT and LightlyTrain train DINOv2 (stochastic depth: MedDINOv3)",
)
ENCODER_SLOWLY = Transfer(
    encoder_rate=0.1, weight_decay=0.05, warmup_share=0.05, source="as EoMT trains DINOv3: the encoder at a tenth of the rate"
)
_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "dinov3-license": DINOV3,
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}


@dataclass
class TimmModel:
    """What the registry needs of a model, as other models have it in a module of their own."""

    SPEC: ModelSpec
    build: Callable[..., TimmNetwork]


@lru_cache(maxsize=256)
def model(name: str) -> TimmModel:
    """The model of an encoder: timm's name, with or without the tag of its weights.

    Raises AutosegError, with similar names, if timm has no such encoder, and with the reason if it gives no feature maps.
    """
    traits = encoder_traits(name)

    build = build_variant({VARIANT: name})

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build(VARIANT, 3, 2)
    spec = ModelSpec(
        name=f"{PREFIX}{name}",
        title=f"{name} + light UPerHead",
        family=_family(name),
        citation=_citation(name),
        variants=(Variant(VARIANT, sum(parameter.numel() for parameter in network.parameters())),),
        default_variant=VARIANT,
        divisor=traits.divisor,
        weights=published(name),
        transfer=_transfer(name, traits),
        cam_layer="decoder.fuse",
    )
    return TimmModel(spec, build)


def published(name: str, variant: str = "", trained_on: str = "") -> tuple[PublishedWeights, ...]:
    """The weights that timm has for an encoder, with their normalisation and licence; empty if there are none.

    trained_on: in words, if the tag of the weights does not tell it.
    """
    config = pretrained_config(name)
    facts: dict[str, Any] = {
        "trained_on": trained_on or _trained_on(config.tag or ""),
        "variant": variant,
        "licence": _LICENCES.get(config.license or "", config.license or ""),
        "mean": tuple(config.mean),
        "std": tuple(config.std),
    }
    if config.hf_hub_id:
        return (on_hub(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", **facts),)
    return (direct(config.url, **facts),) if isinstance(config.url, str) and config.url else ()


def _transfer(name: str, traits: EncoderTraits) -> Transfer:
    """Plain transformers layer by layer, other foundation encoders (and DINOv3) at a low rate, all others like any network."""
    if traits.blocks and "dinov3" not in name:
        return LAYER_BY_LAYER if traits.has_drop_path else replace(LAYER_BY_LAYER, drop_path=0.0)
    return ENCODER_SLOWLY if _family(name) == "foundation" else LIKE_ANY_OTHER


def _trained_on(tag: str) -> str:
    return next((f"{data} (encoder)" for part, data in _TRAINED_ON if part in tag), f"timm's {tag or 'default'} (encoder)")


def _family(name: str) -> Family:
    config = pretrained_config(name)
    return "foundation" if _FOUNDATION.search(f"{config.architecture or name}.{config.tag or ''}") else "generalist"


def _citation(name: str) -> str:
    config = pretrained_config(name)
    papers = config.paper_ids or ()
    listed = [papers] if isinstance(papers, str) else list(papers)
    more = f" {', '.join(listed)}." if listed else ""
    return f"Wightman: PyTorch Image Models (timm {timm.__version__}), {name}.{more}"
