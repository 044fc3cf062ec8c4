"""Fresh class heads start out saying how common each class is, so that the first steps need not be spent on learning it.

The trick of RetinaNet (Lin et al.: Focal Loss for Dense Object Detection. ICCV 2017), for every architecture alike: with a
narrow head it saves hundreds of steps, in which a network of few-pixel classes says background everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme

# Every fourth pixel of every fourth row is counted, and no class is taken to be rarer than this.
_SPARSE = 4
_RAREST = 1e-3


def pixel_shares(store: ArrayDataset, cases: Sequence[str], scheme: LabelScheme) -> tuple[float, ...]:
    """Share of the labelled pixels of `cases` that each output covers."""
    found = np.zeros(256, np.int64)
    for case in cases:
        found += np.bincount(store.label(case)[::_SPARSE, ::_SPARSE].ravel(), minlength=256)
    if scheme.ignore is not None:
        found[scheme.ignore] = 0
    return tuple(float(found[list(members)].sum() / max(1, found.sum())) for members in scheme.members)


def init_head_bias(network: SegmentationNetwork, channels: int, shares: Sequence[float], sigmoid: bool) -> bool:
    """Set the biases of the class heads so that, but for their weights, the output is `shares`; whether that was possible.

    channels: of the input. sigmoid: each output has its own; else a softmax over them. Networks whose output does not
    follow such biases stay as they are.
    """
    heads = {name: parameter for name, parameter in network.named_parameters() if name in network.head_weights}
    biases = [parameter for parameter in heads.values() if tuple(parameter.shape) == (len(shares),)]
    if not biases:
        return False
    likely = [min(max(share, _RAREST), 1 - _RAREST) for share in shares]
    wanted = torch.tensor([math.log(share / (1 - share) if sigmoid else share) for share in likely])
    before = [bias.detach().clone() for bias in biases]
    _set(biases, [wanted] * len(biases))
    factor = _factor(network, channels, [parameter for parameter in heads.values() if parameter.ndim > 1], wanted)
    _set(biases, before if factor is None else [wanted / factor] * len(biases))
    return factor is not None


def _factor(network: SegmentationNetwork, channels: int, weights: list[nn.Parameter], wanted: Tensor) -> float | None:
    """How often the output holds the biases (heads may be added up), seen by silencing the weights; None if not at all."""
    kept = [weight.detach().clone() for weight in weights]
    was_training = network.training
    try:
        _set(weights, [torch.zeros_like(weight) for weight in weights])
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, channels, 64, 64))[0]
    finally:
        _set(weights, kept)
        network.train(was_training)
    factor = float(logits.mean() / wanted.mean())
    expected = (factor * wanted)[:, None, None].expand_as(logits)
    return factor if factor > 0 and torch.allclose(logits, expected, rtol=1e-3, atol=1e-3) else None


def _set(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
