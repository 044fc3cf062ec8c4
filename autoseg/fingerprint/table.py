"""A fingerprint as rows of text, for whoever prints it."""

from __future__ import annotations

from autoseg.schema.fingerprint import Fingerprint

Rows = list[tuple[str, ...]]


def overview(fingerprint: Fingerprint) -> Rows:
    """Rows (what, value)."""
    heights, widths = zip(*(case.size for case in fingerprint.cases), strict=True)
    patients = {case.group or case.case for case in fingerprint.cases}
    height, width = fingerprint.median_size
    spacing = fingerprint.median_spacing
    return [
        ("cases", f"{len(fingerprint.cases)} ({len(patients)} patients or other groups)"),
        ("modality", f"{fingerprint.modality}: {fingerprint.evidence}"),
        ("stored as", fingerprint.dtype + (", gray in three equal channels" if fingerprint.gray_as_rgb else "")),
        ("size", f"{height} x {width} (from {min(heights)} x {min(widths)} to {max(heights)} x {max(widths)})"),
        ("spacing", f"{spacing[0]:.3g} x {spacing[1]:.3g} mm" if spacing else "not known"),
        ("duplicates", f"{sum(map(len, fingerprint.duplicates))} cases in {len(fingerprint.duplicates)} sets"),
    ]


def channels(fingerprint: Fingerprint) -> Rows:
    """A heading and a row for each channel: values over all pixels and inside the foreground."""
    rows: Rows = [("channel", "mean", "std", "0.5 %", "median", "99.5 %", "inside: mean", "std", "0.5 %", "99.5 %")]
    for item in fingerprint.channels:
        everywhere = (item.mean, item.std, *item.percentiles)
        inside = (item.foreground_mean, item.foreground_std, item.foreground_percentiles[0], item.foreground_percentiles[2])
        rows.append((item.name, *(f"{value:.4g}" for value in (*everywhere, *inside))))
    return rows


def classes(fingerprint: Fingerprint) -> Rows:
    """A heading and a row for each class: how often, how large, how thick."""
    rows: Rows = [("class", "cases", "of all pixels", "of an image", "objects", "thickness", "of the shorter side")]
    for item in fingerprint.classes:
        shares = (f"{item.pixel_share:.2%}", f"{item.area_share:.2%}", f"{item.objects:g}")
        cases = f"{item.cases} ({item.presence:.0%})"
        rows.append((item.name, cases, *shares, f"{item.thickness:.1f} px", f"{item.relative_thickness:.1%}"))
    return rows


def findings(fingerprint: Fingerprint, shown: int = 4) -> Rows:
    """Rows (kind, text, the first cases)."""
    rows: Rows = []
    for item in fingerprint.findings:
        more = f" and {len(item.cases) - shown} more" if len(item.cases) > shown else ""
        rows.append((item.kind, item.text, ", ".join(item.cases[:shown]) + more))
    return rows
