from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.prediction.second_reader import agreement, combine, confidence_of, doubtful_cases
from autoseg.schema.dataset import label_scheme
from autoseg.schema.prediction import Confidence, PredictedCase

FIRST, SECOND = np.array([[1, 1, 0, 0]], np.uint8), np.array([[2, 1, 1, 0]], np.uint8)


def case(name: str, value: float, expected: float = math.nan) -> PredictedCase:
    return PredictedCase(
        case=name,
        output=f"{name}.png",
        size=(1, 4),
        pixels={},
        seconds={},
        notes=(),
        confidence=Confidence(
            value=value, expected_dice=expected, soft_dice=value, agreement=math.nan, entropy=0.1, classes={}
        ),
    )


@pytest.mark.parametrize(("policy", "expected"), [
    ("flag", [1, 1, 0, 0]), ("replace", [2, 1, 1, 0]), ("union", [1, 1, 1, 0]), ("consensus", [0, 1, 0, 0]),
])  # fmt: skip
def test_policies(policy: str, expected: list[int]) -> None:
    np.testing.assert_array_equal(combine(FIRST, SECOND, policy), [expected])


def test_masks_of_two_sizes_are_not_combined() -> None:
    with pytest.raises(ValueError, match="shapes"):
        combine(FIRST, SECOND[:, :3], "union")


def test_expected_dice_counts_before_plain_confidence() -> None:
    assert confidence_of(case("a", 0.9, 0.6)) == 0.6 and confidence_of(case("a", 0.9)) == 0.9
    assert doubtful_cases([case("a", 0.9, 0.6), case("b", 0.85), case("c", 0.8)], 0.8) == ["a"]


def test_agreement_is_the_mean_dice() -> None:
    scheme = label_scheme({"background": 0, "one": 1, "two": 2, "three": 3}, None)
    assert agreement(FIRST, SECOND, scheme) == pytest.approx((0.5 + 0 + 1) / 3)
