import math

import pytest

from autoseg.comparison.rounding import decimals, rounded, rounded_p


@pytest.mark.parametrize(
    ("value", "uncertainty", "shown"),
    [
        # The examples of the Review of Particle Physics.
        (0.827, 0.119, "0.83 ± 0.12"),
        (0.827, 0.367, "0.8 ± 0.4"),
        (92.134, 0.354, "92.13 ± 0.35"),
        (92.134, 0.355, "92.1 ± 0.4"),
        (92.134, 0.949, "92.1 ± 0.9"),
        (92.134, 0.951, "92.1 ± 1.0"),
        (92.134, 0.0999, "92.13 ± 0.10"),
        (92.134, 1.0, "92.1 ± 1.0"),
        (92.134, 9.6, "92 ± 10"),
        (65.4, 23.4, "65 ± 23"),
        (6543.2, 234.0, "6543 ± 234"),
        (-0.04, 3.6, "0 ± 4"),
    ],
)
def test_digits_follow_the_uncertainty(value, uncertainty, shown):
    places = decimals(value, uncertainty)
    assert f"{rounded(value, places)} ± {rounded(uncertainty, places)}" == shown


@pytest.mark.parametrize(
    ("value", "uncertainty", "shown"),
    [
        (92.134, 0.0, "92.1"),
        (9.2134, math.nan, "9.21"),
        (1234.5, math.nan, "1234"),
        (0.0, math.nan, "0"),
        (0.01234, 0.0, "0.0123"),
        # The deviation of equal numbers as floating-point sums give it.
        (40.000000000000007, 7.1e-15, "40.0"),
        (7.1e-15, math.nan, "0"),
    ],
)
def test_without_an_uncertainty_three_digits_are_kept(value, uncertainty, shown):
    assert rounded(value, decimals(value, uncertainty)) == shown


def test_undefined_numbers_are_empty_and_zero_has_no_sign():
    assert rounded(math.nan, decimals(math.nan)) == rounded(math.inf, 1) == rounded_p(math.nan) == ""
    assert rounded(-0.04, 1, signed=True) == "0.0" and rounded(0.06, 1, signed=True) == "+0.1" and rounded(-0.06, 1) == "-0.1"
    assert [rounded_p(p) for p in (0.0004, 0.0123, 0.0996, 0.4567, 1.0)] == ["<0.001", "0.012", "0.100", "0.46", "1.00"]
