"""Resized images, or patches near the original resolution: depends on how thin the thinnest class is after resizing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from autoseg.planning import study_protocol as study
from autoseg.planning.channels import Channels
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.plan import Decision, PreprocessingConfig, Protocol

Kind = Literal["resize", "patch"]
# What a user may ask for: "pad" resizes images that were padded to a square.
Asked = Literal["resize", "patch", "pad"]

# (thickness in pixels after resizing, Dice of a label map after resizing it and back). Measured on vessels, nuclei, heart
# chambers, polyps and lesions at eight scales each: all follow one curve.
_DICE_BY_THICKNESS = (
    (0.25, 0.57),
    (0.4, 0.70),
    (0.6, 0.79),
    (0.8, 0.83),
    (1.0, 0.87),
    (1.5, 0.90),
    (2.4, 0.925),
    (3.5, 0.95),
    (5.0, 0.965),
    (8.0, 0.98),
    (12.0, 0.987),
    (20.0, 0.992),
    (40.0, 0.996),
)
# Below this thickness after resizing (a loss of 6 % of Dice), patches are used.
_MIN_THICKNESS = 3.0
# With a larger zoom, resizing makes thin structures thicker, so patches are not needed.
_MAX_PATCH_ZOOM = 1.1
# pixels: thicker structures are shrunk to this thickness, so that patches contain more context
_TARGET_THICKNESS = 6.0
_SMALLEST_SCALE = 0.25
# pixels: in `auto` structures below _MIN_THICKNESS are enlarged to this thickness (documentation/race.md). Predictions take
# longer by the square of the scale.
_ENLARGED_THICKNESS = 4.0
_LARGEST_SCALE = 2.0
# Further enlargement costs time without benefit.
_MAX_ENLARGEMENT = 1.5
# Percentile 90 over percentile 10 of the fields of view (mm): above, resizing would show organs at different scales.
_MAX_VIEW_RATIO = 1.6
_MAX_SPACING_RATIO = 1.1
_MULTIPLE = 32
# Side of a square with the pixels of the network's input in `auto`; _LARGER: (GPU memory, side).
_WORKING_SIDE = {"cpu": 384, "mps": 384, "cuda": 512}
_LARGER = ((48 << 30, 1024), (20 << 30, 768))
_SMALLEST, _BENCHMARK, _QUICK = 256, study.SIDE, 256


@dataclass(frozen=True, kw_only=True)
class SpatialPlan:
    """The dataset's geometry. side: of a square with the pixels of the network's input.

    native: (height, width) of the median image as stored for patches. scale, spacing: as in PreprocessingConfig.
    """

    kind: Kind
    side: int
    native: tuple[int, int]
    aspect: float = 1.0
    scale: float = 1.0
    spacing: tuple[float, float] | None = None
    square: bool = False
    pad: bool = False

    def input_size(self, side: int) -> tuple[int, int]:
        """(height, width), multiples of 32, for an input with about `side` x `side` pixels."""
        if self.square:
            return (side, side)
        if self.kind == "resize":
            return resize_shape(side, self.aspect)
        height, width = (math.ceil(length / _MULTIPLE) * _MULTIPLE for length in self.native)
        return (min(side, height), min(side, width))

    def zoom(self, size: tuple[int, int]) -> float:
        """Zoom factor along one axis, from an image of this (height, width) to the network's input."""
        if self.pad:
            return self.side / max(size)
        if self.kind == "resize":
            return self.side / math.sqrt(size[0] * size[1])
        return math.sqrt(self.native[0] * self.native[1] / (size[0] * size[1]))


def dice_after_resizing(thickness: float) -> float:
    """Dice of a perfect segmentation after resizing to this thickness (pixels) and back."""
    points, values = zip(*_DICE_BY_THICKNESS, strict=True)
    return float(np.interp(math.log(max(thickness, 0.1)), np.log(points), values))


def resize_shape(side: int, aspect: float) -> tuple[int, int]:
    """(height, width), multiples of 32, with about `side`^2 pixels and nearly this aspect (height / width)."""
    best, lowest_cost = (side, side), math.inf
    for height in range(_MULTIPLE, 4 * side, _MULTIPLE):
        for width in range(_MULTIPLE, 4 * side, _MULTIPLE):
            area = abs(math.log(height * width / side**2))
            shape = abs(math.log(height / width / aspect))
            if area < 0.25 and area + shape < lowest_cost - 1e-9:
                best, lowest_cost = (height, width), area + shape
    return best


def decide_geometry(
    stats: DatasetStats,
    protocol: Protocol,
    device: str,
    budget: int,
    asked: Asked | None = None,
    side: int | None = None,
    *,
    full_resolution: bool = False,
) -> tuple[SpatialPlan, list[Decision]]:
    """The spatial plan of a dataset, and the reasons. asked, side: set by the user. full_resolution: of all its networks, see
    `ModelSpec`."""
    fixed_kind: Kind | None = "resize" if asked == "pad" else asked
    if protocol == "benchmark" and fixed_kind != "patch":
        return _benchmark_geometry(stats, side, pad=asked == "pad")
    planned_side, side_reason = _working_side(stats, protocol, device, budget)
    working_side = side or planned_side
    kind, reason = _choose_kind(stats, working_side, working_side / stats.side)
    resize_plan = SpatialPlan(kind="resize", side=working_side, native=stats.size, aspect=stats.aspect)
    # Patches against the rule keep the original resolution: shrunk patches would be resized images again.
    spatial_plan = resize_plan
    if (fixed_kind or kind) == "patch":
        by_rule = kind == "patch"
        enlarge = by_rule and protocol == "auto" and not full_resolution
        spatial_plan = _patch_plan(stats, working_side, shrink=by_rule, enlarge=enlarge)
        if (zoom := spatial_plan.zoom(stats.size)) > 1.01:
            reason += f"; enlarged {zoom:.1f} times, which was measured to find more of lines this thin"
    if asked == "pad":
        spatial_plan = replace(spatial_plan, square=True, pad=True)
    if fixed_kind is not None:
        comparison = "the planner would have chosen the same" if fixed_kind == kind else f"the planner would have chosen {kind}"
        kind, reason = fixed_kind, f"set by the user; {comparison}: {reason}"
    source = stats.where_thinnest + ("; " + stats.cite("median_spacing") if stats.spacings else "")
    return spatial_plan, [
        Decision("geometry", _describe(spatial_plan), reason, source),
        _decide_side(stats, working_side, planned_side, side_reason, side is not None),
    ]


def make_preprocessing(spatial_plan: SpatialPlan, channels: Channels, input_size: tuple[int, int]) -> PreprocessingConfig:
    """The preprocessing of a model with this input size."""
    config = PreprocessingConfig(
        key="", geometry=spatial_plan.kind, dtype=channels.dtype, channels=channels.count, merge_gray=channels.merge_gray
    )
    if spatial_plan.kind == "resize":
        kind = "pad" if spatial_plan.pad else "resize"
        return replace(config, key=f"{kind}_{input_size[0]}x{input_size[1]}", size=input_size, pad=spatial_plan.pad)
    if spatial_plan.spacing is not None:
        row, column = spatial_plan.spacing
        return replace(config, key=f"patch_{row:g}x{column:g}mm", spacing=spatial_plan.spacing)
    key = "patch_native" if spatial_plan.scale == 1.0 else f"patch_x{spatial_plan.scale:g}"
    return replace(config, key=key, scale=spatial_plan.scale)


def _decide_side(stats: DatasetStats, side: int, planned_side: int, reason: str, is_set: bool) -> Decision:
    if is_set:
        reason = f"set by the user; planned was {planned_side}: {reason}"
    return Decision("side", str(side), reason, stats.cite("median_size"))


def _benchmark_geometry(stats: DatasetStats, target: int | None, pad: bool) -> tuple[SpatialPlan, list[Decision]]:
    side = target or _BENCHMARK
    padded = f"set by the user: padded to a square first, {study.HINT}"
    reason = padded if pad else study.decision("geometry", "").reason
    thinnest = stats.thinnest
    if thinnest is not None:
        thickness = thinnest.thickness * min(1.0, side / stats.side)
        if thickness < _MIN_THICKNESS:
            reason += (
                f"; {thinnest.name} is {thickness:.1f} px thick then, and resizing alone limits its Dice to about "
                f"{dice_after_resizing(thickness):.2f}"
            )
    spatial_plan = SpatialPlan(kind="resize", side=side, native=stats.size, aspect=stats.aspect, square=True, pad=pad)
    return spatial_plan, [
        Decision("geometry", _describe(spatial_plan), reason, stats.where_thinnest),
        _decide_side(stats, side, _BENCHMARK, "the study's protocol", target is not None),
    ]


def _working_side(stats: DatasetStats, protocol: Protocol, device: str, budget: int) -> tuple[int, str]:
    """Side of a square with the pixels of the network's input, and the reason."""
    enlarged = math.ceil(stats.side * _MAX_ENLARGEMENT / _MULTIPLE) * _MULTIPLE
    if protocol == "auto":
        target = _WORKING_SIDE[device]
        if device == "cuda":
            target = next((side for memory, side in _LARGER if budget >= memory), target)
        native = math.ceil(stats.side / _MULTIPLE) * _MULTIPLE
        limit, reason = max(native, min(_SMALLEST, enlarged)), f"a size for which a training on {device} has time and memory"
    elif protocol == "benchmark":
        return _BENCHMARK, "the study's input size"
    else:
        target, limit, reason = _QUICK, enlarged, "small enough for minutes on a CPU"
    if limit >= target:
        return target, f"{reason}; side in pixels of a square as large as the network's input"
    rule = "small images are enlarged slightly, others are not enlarged"
    return max(2 * _MULTIPLE, limit), f"the images have as many pixels as {stats.side:.0f}x{stats.side:.0f}: {rule}"


def _choose_kind(stats: DatasetStats, working_side: int, scale: float) -> tuple[Kind, str]:
    height, width = stats.size
    images = f"images of {height}x{width} (median)"
    thinnest = stats.thinnest
    if thinnest is None:
        return "resize", f"there is no foreground; {images} are resized to about {working_side}x{working_side} pixels"
    after = thinnest.thickness * scale
    figures = f"{thinnest.name}, the thinnest class, is {thinnest.thickness:.1f} px thick in {images} and "
    dice = dice_after_resizing(after)
    if after < _MIN_THICKNESS and scale <= _MAX_PATCH_ZOOM:
        figures += (
            f"would be {after:.1f} px after resizing to about {working_side}x{working_side}: Dice could not exceed {dice:.2f}"
        )
        return "patch", figures
    ratio = _field_of_view_ratio(stats)
    if ratio is not None and ratio > _MAX_VIEW_RATIO:
        return "patch", (
            f"fields of view differ {ratio:.1f}-fold in mm, so that resizing would show the same organ at different "
            f"scales; all images get one pixel size instead"
        )
    figures += f"{after:.1f} px at about {working_side}x{working_side}: resizing keeps {dice:.1%} of its Dice"
    return "resize", f"{figures}, and the network sees the complete image"


def _patch_plan(stats: DatasetStats, working_side: int, *, shrink: bool, enlarge: bool) -> SpatialPlan:
    """shrink, enlarge: whether the thinnest class may be brought to a thickness that suits patches."""
    spacing = stats.fingerprint.median_spacing
    thinnest = stats.thinnest
    scale = 1.0
    if shrink and thinnest is not None and thinnest.thickness > _TARGET_THICKNESS:
        scale = max(_SMALLEST_SCALE, round(_TARGET_THICKNESS / thinnest.thickness, 2))
    if enlarge and thinnest is not None and thinnest.thickness < _MIN_THICKNESS:
        scale = min(_LARGEST_SCALE, round(_ENLARGED_THICKNESS / thinnest.thickness, 2))
    if stats.spacings and spacing is not None and _spacings_differ(stats):
        ratio = _field_of_view_ratio(stats)
        if ratio is not None and ratio > _MAX_VIEW_RATIO:
            scale = min(1.0, max(scale, working_side / stats.side))
        target = (_round(spacing[0] / scale), _round(spacing[1] / scale))
        return SpatialPlan(
            kind="patch", side=working_side, native=_scaled(stats.size, scale), aspect=stats.aspect, spacing=target
        )
    return SpatialPlan(kind="patch", side=working_side, native=_scaled(stats.size, scale), aspect=stats.aspect, scale=scale)


def _spacings_differ(stats: DatasetStats) -> bool:
    spacings = np.array([case.spacing for case in stats.fingerprint.cases if case.spacing is not None])
    return bool((spacings.max(axis=0) / spacings.min(axis=0)).max() > _MAX_SPACING_RATIO)


def _field_of_view_ratio(stats: DatasetStats) -> float | None:
    """Ratio of large to small fields of view (sides in mm); None without spacings or if they are all similar."""
    if not stats.spacings or not stats.cases or not _spacings_differ(stats):
        return None
    sides = [
        math.sqrt(case.size[0] * case.spacing[0] * case.size[1] * case.spacing[1])
        for case in stats.fingerprint.cases
        if case.spacing is not None
    ]
    small, large = np.quantile(sides, (0.1, 0.9))
    return float(large / small)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _describe(spatial_plan: SpatialPlan) -> str:
    if spatial_plan.kind == "resize":
        height, width = spatial_plan.input_size(spatial_plan.side)
        return f"images {'padded to a square, then ' if spatial_plan.pad else ''}resized to {height}x{width}"
    if spatial_plan.spacing is not None:
        return f"patches at {spatial_plan.spacing[0]:g} x {spatial_plan.spacing[1]:g} mm per pixel"
    if spatial_plan.scale == 1.0:
        return "patches at the original resolution"
    return f"patches at {spatial_plan.scale:g} {'times' if spatial_plan.scale > 1 else 'of'} the original resolution"
