"""Numbers rounded by their uncertainty, as the Particle Data Group does (Review of Particle Physics, Introduction, 5.3)."""

from __future__ import annotations

import math

_MOST_DECIMALS = 6
PLUS_MINUS, MINUS = "±", "−"


def decimals(value: float, uncertainty: float = math.nan, digits: int = 3) -> int:
    """Decimals that a number has a right to.

    By the first three digits of the uncertainty: 100 to 354 keep two digits, 355 to 949 one, and from 950 it is rounded up to
    1000 and keeps two. Never digits before the decimal point. Without an uncertainty (undefined, or 0 but for the errors of
    floating-point sums) the number has so many significant `digits`.
    """
    known = math.isfinite(uncertainty) and uncertainty >= 10.0**-_MOST_DECIMALS
    size = uncertainty if known else abs(value)
    if not math.isfinite(size) or size < 10.0**-_MOST_DECIMALS:
        return 0
    # Through the decimal text, which has no rounding error at powers of ten.
    leading, power = (float(part) for part in f"{size:.2e}".split("e"))
    kept = digits if not known else 1 if 3.55 <= leading < 9.5 else 2
    if known and leading >= 9.5:
        power += 1
    return min(_MOST_DECIMALS, max(0, kept - 1 - int(power)))


def rounded(value: float, places: int, *, signed: bool = False) -> str:
    """With a hyphen as minus sign, which programs read; "" if undefined. A number that is rounded to zero has no sign."""
    if not math.isfinite(value):
        return ""
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text[1:] if text[0] in "+-" and not float(text) else text


def rounded_p(p: float) -> str:
    """A p value: two digits, not below 0.001; "" if undefined."""
    if not math.isfinite(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
