from __future__ import annotations

import pytest
import torch

from autoseg.inference.activation import output_activation, probabilities
from autoseg.schema.dataset import LabelScheme

TWO = LabelScheme(names=("background", "a"), members=((0,), (1,)))
THREE = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)))
REGIONS = LabelScheme(names=("all", "core"), members=((1, 2), (2,)), regions=True, paint=(1, 2))


@pytest.mark.parametrize(
    ("loss", "scheme", "expected"),
    [
        ("", TWO, "softmax"),
        ("sigmoid", TWO, "softmax"),
        ("softmax", THREE, "softmax"),
        ("", THREE, "softmax"),
        ("sigmoid", THREE, "sigmoid"),
        ("", REGIONS, "sigmoid"),
        ("sigmoid", REGIONS, "sigmoid"),
    ],
)
def test_activation_follows_the_loss_and_the_labels(loss, scheme, expected):
    assert output_activation(loss, scheme) == expected


def test_probabilities_of_exclusive_classes_sum_to_one():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    for activation in ("softmax", "sigmoid"):
        maps = probabilities(logits, activation, THREE)
        assert torch.allclose(maps.sum(1), torch.ones(2, 4, 5))
        assert torch.equal(maps.argmax(1), logits.argmax(1))
    assert torch.equal(probabilities(logits[:, :2], "sigmoid", REGIONS), logits[:, :2].sigmoid())
    # All far below zero: no division by zero.
    assert torch.isfinite(probabilities(torch.full((1, 3, 1, 1), -200.0), "sigmoid", THREE)).all()
