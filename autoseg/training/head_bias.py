"""Initialise the biases of class heads so that the first output equals the class frequencies.

From RetinaNet (Lin et al.: Focal Loss for Dense Object Detection. ICCV 2017). It saves up to hundreds of steps, in which
a network with small classes predicts only background.
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

# Only every fourth pixel of every fourth row is counted.
_STRIDE = 4
# Lower limit of a class frequency.
_MIN_FREQUENCY = 1e-3


def class_frequencies(store: ArrayDataset, cases: Sequence[str], scheme: LabelScheme) -> tuple[float, ...]:
    """Fraction of the labelled pixels of `cases` that each output covers, in the order of the outputs."""
    pixels = np.zeros(256, np.int64)
    for case in cases:
        pixels += np.bincount(store.label(case)[::_STRIDE, ::_STRIDE].ravel(), minlength=256)
    if scheme.ignore is not None:
        pixels[scheme.ignore] = 0
    return tuple(float(pixels[list(members)].sum() / max(1, pixels.sum())) for members in scheme.members)


def init_head_bias(network: SegmentationNetwork, channels: int, frequencies: Sequence[float], sigmoid: bool) -> bool:
    """Set the biases of the class heads so that with zero weights the output is `frequencies`. Returns whether it was possible.

    channels: of the input. sigmoid: one sigmoid per output, else a softmax. Networks whose output does not follow the
    biases are not changed.
    """
    heads = {name: parameter for name, parameter in network.named_parameters() if name in network.head_weights}
    biases = [parameter for parameter in heads.values() if tuple(parameter.shape) == (len(frequencies),)]
    if not biases:
        return False
    clipped = [min(max(frequency, _MIN_FREQUENCY), 1 - _MIN_FREQUENCY) for frequency in frequencies]
    target_logits = torch.tensor([math.log(p / (1 - p) if sigmoid else p) for p in clipped])
    old_biases = [bias.detach().clone() for bias in biases]
    _assign(biases, [target_logits] * len(biases))
    factor = _bias_multiplicity(
        network, channels, [parameter for parameter in heads.values() if parameter.ndim > 1], target_logits
    )
    _assign(biases, old_biases if factor is None else [target_logits / factor] * len(biases))
    return factor is not None


def _bias_multiplicity(
    network: SegmentationNetwork, channels: int, weights: list[nn.Parameter], target_logits: Tensor
) -> float | None:
    """How many times the biases are summed in the output (heads may be added up), measured with zero weights. None if the
    output is not a multiple of them."""
    old_weights = [weight.detach().clone() for weight in weights]
    was_training = network.training
    try:
        _assign(weights, [torch.zeros_like(weight) for weight in weights])
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, channels, 64, 64))[0]
    finally:
        _assign(weights, old_weights)
        network.train(was_training)
    factor = float(logits.mean() / target_logits.mean())
    expected = (factor * target_logits)[:, None, None].expand_as(logits)
    return factor if factor > 0 and torch.allclose(logits, expected, rtol=1e-3, atol=1e-3) else None


def _assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
