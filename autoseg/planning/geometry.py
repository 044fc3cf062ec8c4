"""Whole images brought to one size, or patches near the images' own resolution: from what resizing would do to thin things."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from autoseg.planning.channels import Channels
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.plan import Decision, PreprocessingConfig, Protocol

Kind = Literal["resize", "patch"]

# Dice that a label map keeps when it is resized and brought back, by its thickness in pixels after resizing. Measured on
# vessels, nuclei, heart chambers, polyps and lesions at eight scales each: they fall on one curve.
_KEPT = ((0.25, 0.57), (0.4, 0.70), (0.6, 0.79), (0.8, 0.83), (1.0, 0.87), (1.5, 0.90), (2.4, 0.925), (3.5, 0.95),
         (5.0, 0.965), (8.0, 0.98), (12.0, 0.987), (20.0, 0.992), (40.0, 0.996))
# Below this thickness after shrinking (a loss of 6 % of Dice by that alone) patches are used.
_THIN = 3.0
# Enlarging by more than this makes thin things thicker instead.
_HELPS = 1.1
# Thin things that are thicker than this in the files are made thinner for patches to see more of their surroundings.
_THICK_ENOUGH = 6.0
_SMALLEST_SCALE = 0.25
# Enlarging beyond this only costs time.
_ENLARGE = 1.5
# Fields of view (mm) of the larger tenth against the smaller tenth: beyond it, resizing would show organs at unlike scales.
_VIEWS_DIFFER = 1.6
_SPACINGS_DIFFER = 1.1
_MULTIPLE = 32
# Side of a square with as many pixels as a network's input may have in `auto`; more where a GPU has this much memory.
_WORKING_SIDE = {"cpu": 384, "mps": 384, "cuda": 512}
_LARGER = ((48 << 30, 1024), (20 << 30, 768))
_SMALLEST, _STUDY, _QUICK = 256, 512, 256


@dataclass(frozen=True, kw_only=True)
class SpatialPlan:
    """The dataset's geometry. side: of a square with as many pixels as the network's input is meant to have.

    native: median image (height, width) as it is stored for patches. scale, spacing: as in PreprocessingConfig.
    """

    kind: Kind
    side: int
    native: tuple[int, int]
    aspect: float = 1.0
    scale: float = 1.0
    spacing: tuple[float, float] | None = None
    square: bool = False

    def input_size(self, side: int) -> tuple[int, int]:
        """(height, width), multiples of 32, for an input with about `side` x `side` pixels."""
        if self.square:
            return (side, side)
        if self.kind == "resize":
            return whole_size(side, self.aspect)
        height, width = (math.ceil(length / _MULTIPLE) * _MULTIPLE for length in self.native)
        return (min(side, height), min(side, width))

    def zoom(self, size: tuple[int, int]) -> float:
        """Pixels of the network's input for one pixel of a file whose image has this (height, width), along a side."""
        if self.kind == "resize":
            return self.side / math.sqrt(size[0] * size[1])
        return math.sqrt(self.native[0] * self.native[1] / (size[0] * size[1]))


def kept_by_resizing(thickness: float) -> float:
    """Dice left when things of this thickness (pixels after resizing) are resized and brought back without any error."""
    points, values = zip(*_KEPT, strict=True)
    return float(np.interp(math.log(max(thickness, 0.1)), np.log(points), values))


def whole_size(side: int, aspect: float) -> tuple[int, int]:
    """(height, width), multiples of 32, with about `side`^2 pixels and nearly the aspect (height / width) of the images."""
    best, least = (side, side), math.inf
    for height in range(_MULTIPLE, 4 * side, _MULTIPLE):
        for width in range(_MULTIPLE, 4 * side, _MULTIPLE):
            area = abs(math.log(height * width / side**2))
            shape = abs(math.log(height / width / aspect))
            if area < 0.25 and area + shape < least - 1e-9:
                best, least = (height, width), area + shape
    return best


def decide_geometry(
    stats: DatasetStats, protocol: Protocol, device: str, budget: int, forced: Kind | None = None, side: int | None = None
) -> tuple[SpatialPlan, list[Decision]]:
    """The frame for a dataset. forced, side: what the user set; the reason then says so, with the figures all the same."""
    if protocol == "benchmark" and forced != "patch":
        return _study(stats, side)
    planned, why_side = _working_side(stats, protocol, device, budget)
    working = side or planned
    kind, because = _kind(stats, working, working / stats.side)
    whole = SpatialPlan(kind="resize", side=working, native=stats.size, aspect=stats.aspect)
    # Patches where the rule sees no need for them show the files' own pixels: shrunk, they would be whole images again.
    frame = _patches(stats, working, shrink=kind == "patch") if (forced or kind) == "patch" else whole
    if forced is not None:
        agreed = "the planner would have done the same" if forced == kind else f"the planner would have taken {kind}"
        kind, because = forced, f"set by the user; {agreed}: {because}"
    source = stats.where_thinnest + ("; " + stats.cite("median_spacing") if stats.spacings else "")
    return frame, [
        Decision("geometry", _describe(frame), because, source),
        _decide_side(stats, working, planned, why_side, side is not None),
    ]


def make_preprocessing(frame: SpatialPlan, channels: Channels, input_size: tuple[int, int]) -> PreprocessingConfig:
    """The store that a model with this input reads."""
    blank = PreprocessingConfig(
        key="", geometry=frame.kind, dtype=channels.dtype, channels=channels.count, merge_gray=channels.merge_gray
    )
    if frame.kind == "resize":
        return replace(blank, key=f"resize_{input_size[0]}x{input_size[1]}", size=input_size)
    if frame.spacing is not None:
        row, column = frame.spacing
        return replace(blank, key=f"patch_{row:g}x{column:g}mm", spacing=frame.spacing)
    key = "patch_native" if frame.scale == 1.0 else f"patch_x{frame.scale:g}"
    return replace(blank, key=key, scale=frame.scale)


def _decide_side(stats: DatasetStats, side: int, planned: int, because: str, was_set: bool) -> Decision:
    if was_set:
        because = f"set by the user; planned was {planned}: {because}"
    return Decision("side", str(side), because, stats.cite("median_size"))


def _study(stats: DatasetStats, wanted: int | None) -> tuple[SpatialPlan, list[Decision]]:
    side = wanted or _STUDY
    because = "the study's protocol: every image at this size, for every model"
    thinnest = stats.thinnest
    if thinnest is not None:
        thickness = thinnest.thickness * min(1.0, side / stats.side)
        if thickness < _THIN:
            because += (
                f"; {thinnest.name} is {thickness:.1f} px thin then, and resizing alone limits its Dice to about "
                f"{kept_by_resizing(thickness):.2f}"
            )
    frame = SpatialPlan(kind="resize", side=side, native=stats.size, aspect=stats.aspect, square=True)
    return frame, [
        Decision("geometry", _describe(frame), because, stats.where_thinnest),
        _decide_side(stats, side, _STUDY, "the study's protocol", wanted is not None),
    ]


def _working_side(stats: DatasetStats, protocol: Protocol, device: str, budget: int) -> tuple[int, str]:
    """Side of a square as large as the network's input, and the reason."""
    enlarged = math.ceil(stats.side * _ENLARGE / _MULTIPLE) * _MULTIPLE
    if protocol == "auto":
        wanted = _WORKING_SIDE[device]
        if device == "cuda":
            wanted = next((side for memory, side in _LARGER if budget >= memory), wanted)
        native = math.ceil(stats.side / _MULTIPLE) * _MULTIPLE
        limit, because = max(native, min(_SMALLEST, enlarged)), f"what a training on {device} has time and memory for"
    elif protocol == "benchmark":
        return _STUDY, "the study's input size"
    else:
        wanted, limit, because = _QUICK, enlarged, "small enough for minutes on a processor"
    if limit >= wanted:
        return wanted, f"{because}; in pixels, of a square as large as the network's input"
    what = "small images are enlarged a little, others not at all"
    return max(2 * _MULTIPLE, limit), f"the images have as many pixels as {stats.side:.0f}x{stats.side:.0f}: {what}"


def _kind(stats: DatasetStats, working: int, scale: float) -> tuple[Kind, str]:
    height, width = stats.size
    images = f"images of {height}x{width} (median)"
    thinnest = stats.thinnest
    if thinnest is None:
        return "resize", f"no foreground was found; {images} resized to about {working}x{working} pixels"
    after = thinnest.thickness * scale
    figures = f"{thinnest.name}, the thinnest class, is {thinnest.thickness:.1f} px thick in {images} and "
    kept = kept_by_resizing(after)
    if after < _THIN and scale <= _HELPS:
        figures += f"would be {after:.1f} px after resizing to about {working}x{working}: Dice could not pass {kept:.2f}"
        return "patch", figures
    ratio = _views_ratio(stats)
    if ratio is not None and ratio > _VIEWS_DIFFER:
        return "patch", (
            f"fields of view differ {ratio:.1f}-fold in mm, so that resizing whole images would show the same organ at unlike "
            f"scales; all are brought to one pixel size instead"
        )
    figures += f"{after:.1f} px at about {working}x{working}: resizing keeps {kept:.1%} of its Dice"
    return "resize", f"{figures}, and the network sees the whole image"


def _patches(stats: DatasetStats, working: int, shrink: bool) -> SpatialPlan:
    spacing = stats.fingerprint.median_spacing
    thinnest = stats.thinnest
    scale = 1.0
    if shrink and thinnest is not None and thinnest.thickness > _THICK_ENOUGH:
        scale = max(_SMALLEST_SCALE, round(_THICK_ENOUGH / thinnest.thickness, 2))
    if stats.spacings and spacing is not None and _unlike_spacings(stats):
        ratio = _views_ratio(stats)
        if ratio is not None and ratio > _VIEWS_DIFFER:
            scale = min(1.0, max(scale, working / stats.side))
        target = (_round(spacing[0] / scale), _round(spacing[1] / scale))
        return SpatialPlan(kind="patch", side=working, native=_scaled(stats.size, scale), aspect=stats.aspect, spacing=target)
    return SpatialPlan(kind="patch", side=working, native=_scaled(stats.size, scale), aspect=stats.aspect, scale=scale)


def _unlike_spacings(stats: DatasetStats) -> bool:
    known = np.array([case.spacing for case in stats.fingerprint.cases if case.spacing is not None])
    return bool((known.max(axis=0) / known.min(axis=0)).max() > _SPACINGS_DIFFER)


def _views_ratio(stats: DatasetStats) -> float | None:
    """Larger against smaller fields of view, as sides in mm; None where they are not known or pixels are all of one size."""
    if not stats.spacings or not stats.cases or not _unlike_spacings(stats):
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


def _describe(frame: SpatialPlan) -> str:
    if frame.kind == "resize":
        height, width = frame.input_size(frame.side)
        return f"whole images resized to {height}x{width}"
    if frame.spacing is not None:
        return f"patches at {frame.spacing[0]:g} x {frame.spacing[1]:g} mm per pixel"
    if frame.scale == 1.0:
        return "patches at the files' own resolution"
    return f"patches at {frame.scale:g} of the files' resolution"
