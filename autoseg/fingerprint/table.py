"""A fingerprint as rows of text, for printing."""

from __future__ import annotations

import numpy as np

from autoseg.fingerprint.metric_advice import advise_metrics
from autoseg.schema.fingerprint import Fingerprint

Rows = list[tuple[str, ...]]


def overview(fingerprint: Fingerprint) -> Rows:
    """Rows (name, value)."""
    aspects = [case.size[0] / case.size[1] for case in fingerprint.cases]
    heights, widths = zip(*(case.size for case in fingerprint.cases), strict=True)
    patients = {case.group for case in fingerprint.cases} - {""}
    of_patients = f"{len(patients)} patients or other groups" if patients else "no patients or other groups are known"
    height, width = fingerprint.median_size
    spacing = fingerprint.median_spacing
    return [
        ("cases", f"{len(fingerprint.cases)} ({of_patients})"),
        ("modality", f"{fingerprint.modality}: {fingerprint.evidence}"),
        ("stored as", _storage(fingerprint)),
        ("size", f"{height} x {width} (from {min(heights)} x {min(widths)} to {max(heights)} x {max(widths)})"),
        ("height : width", f"{np.median(aspects):.2f} (from {min(aspects):.2f} to {max(aspects):.2f})"),
        ("spacing", f"{spacing[0]:.3g} x {spacing[1]:.3g} mm" if spacing else "unknown"),
        ("dark background", _median_and_max([case.background for case in fingerprint.cases])),
        ("constant borders", _median_and_max([case.border for case in fingerprint.cases])),
        ("text or markers", _median_and_max([case.overlay for case in fingerprint.cases])),
        ("duplicates", f"{sum(map(len, fingerprint.duplicates))} cases in {len(fingerprint.duplicates)} sets"),
    ]


def _storage(fingerprint: Fingerprint) -> str:
    bits = max(case.bits for case in fingerprint.cases)
    used = f", {bits} bits used" if fingerprint.dtype == "uint16" else ""
    has_alpha = any("alpha" in note for case in fingerprint.cases for note in case.notes)
    gray = ", gray in three equal channels" if fingerprint.gray_as_rgb else ""
    return fingerprint.dtype + used + gray + (", with a constant alpha channel" if has_alpha else "")


def _median_and_max(values: list[float]) -> str:
    return f"{np.median(values):.1%} of the median image, at most {max(values):.1%}"


def channels(fingerprint: Fingerprint) -> Rows:
    """A header and a row for each channel: values of all pixels and of the foreground."""
    rows: Rows = [("channel", "mean", "std", "0.5 %", "median", "99.5 %", "inside: mean", "std", "0.5 %", "99.5 %")]
    for item in fingerprint.channels:
        everywhere = (item.mean, item.std, *item.percentiles)
        inside = (item.foreground_mean, item.foreground_std, item.foreground_percentiles[0], item.foreground_percentiles[2])
        rows.append((item.name, *(f"{value:.4g}" for value in (*everywhere, *inside))))
    return rows


def classes(fingerprint: Fingerprint) -> Rows:
    """A header and a row for each class: frequency, size, thickness."""
    headings = ("class", "cases", "of all pixels", "of an image", "objects", "of one", "thickness", "of the side", "compact")
    rows: Rows = [headings]
    for item in fingerprint.classes:
        sizes = (f"{item.pixel_share:.2%}", f"{item.area_share:.2%}", f"{item.objects:g}", f"{item.object_share:.2%}")
        cases = f"{item.cases} ({item.presence:.0%})"
        thickness = (f"{item.thickness:.1f} px", f"{item.relative_thickness:.1%}")
        rows.append((item.name, cases, *sizes, *thickness, f"{item.compactness:.2f}"))
    return rows


def metrics(fingerprint: Fingerprint) -> Rows:
    """Rows (class, metrics, reason); none if Dice is enough."""
    return [(one.of or "all", one.metrics, one.reason) for one in advise_metrics(fingerprint)]


def findings(fingerprint: Fingerprint, max_cases: int = 4) -> Rows:
    """Rows (kind, text, the first cases)."""
    rows: Rows = []
    for item in fingerprint.findings:
        more = f" and {len(item.cases) - max_cases} more" if len(item.cases) > max_cases else ""
        rows.append((item.kind, item.text, ", ".join(item.cases[:max_cases]) + more))
    return rows
