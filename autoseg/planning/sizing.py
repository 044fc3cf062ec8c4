"""Variant, input size and batch of one model, fitted to the memory by measuring the network itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from autoseg import models
from autoseg.models.base import ModelSpec
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.hardware import show_memory
from autoseg.planning.memory import Measurement, count_flops, measure, training_memory
from autoseg.planning.shapes import Shapes
from autoseg.schema.plan import Decision, Protocol

# Of the budget, the part that may be planned for: allocators round up and leave gaps.
_FILL = 0.9
# Sides an input may have, as a square of the same area. The small ones are for networks that fit no other way.
_SMALL_SIDES = (128, 192)
_SIDES = (256, 320, 384, 448, 512, 640, 768, 1024)
# Batch statistics of fewer images than this are noise: a larger input must leave room for as many at once.
_COMFORT = 4
# Floating-point operations of one image that two cores forward in a blink; `quick` takes the largest variant below it.
_QUICK_FLOPS = 8e9
# Activations grow with the pixels, those of global attention faster: a guess from another size is trusted so far.
_GUESS = 0.8
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """What is asked of a model. budget: bytes. batch: images of an optimiser step. outputs: logit maps."""

    spec: ModelSpec
    channels: int
    outputs: int
    precision: str
    optimizer: str
    budget: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class MemoryFit:
    """part: images that go through the network at once, `batch / accumulate`. memory: bytes that takes."""

    variant: str
    input_size: Size
    accumulate: int
    measured: Measurement
    memory: int
    fits: bool


def fit_model(need: ModelRequest, frame: SpatialPlan, protocol: Protocol) -> tuple[MemoryFit, list[Decision]]:
    """The best fit the protocol allows, with reasons."""
    spec = need.spec
    if protocol == "benchmark":
        found = fit_part(need, spec.default_variant, frame.input_size(frame.side))
        why = "the default, which is the study's where it has this model", "the study's input size"
    elif protocol == "quick":
        variant, reason = _light_variant(need, frame)
        found = fit_part(need, variant, admissible_size(spec, variant, frame))
        while not found.fits and (smaller := _neighbour(spec, found.variant, -1)):
            size = admissible_size(spec, smaller, frame)
            found, reason = fit_part(need, smaller, size), "the largest that fits the memory"
        why = reason, _why_size(spec, found.variant, frame)
    else:
        found, why = _largest_config(need, frame)
    return found, _decisions(need, found, *why)


def fit_part(
    need: ModelRequest, variant: str, input_size: Size, options: dict[str, Any] | None = None, accumulate: int | None = None
) -> MemoryFit:
    """The whole batch at once if the memory allows, else the largest equal part of it; `fits` is False if none does.

    options: of the model's builder. accumulate: a number of parts that is given.
    """
    shape = (need.batch, need.channels, *input_size)
    measured = _measured(need.spec.name, variant, shape, need.outputs, need.precision, json.dumps(options or {}))
    if accumulate is not None:
        return _fit(need, variant, input_size, measured, need.batch // accumulate)
    least = min(2 if need.spec.batch_statistics else 1, need.batch)
    parts = [part for part in range(need.batch, 0, -1) if need.batch % part == 0 and part >= least]
    fits = (_fit(need, variant, input_size, measured, part) for part in parts)
    return next((found for found in fits if found.fits), _fit(need, variant, input_size, measured, parts[-1]))


def admissible_size(spec: ModelSpec, variant: str, frame: SpatialPlan) -> Size:
    """(height, width) of the input at the frame's working size: the variant's own where it has one."""
    inside = spec.size_inside(variant)
    return frame.input_size(frame.side) if inside is None else (inside, inside)


def flops_of(need: ModelRequest, variant: str, size: Size, options: dict[str, Any] | None = None) -> int:
    """Multiplications and additions of one image's forward pass."""
    return _flops(need.spec.name, variant, need.channels, need.outputs, size, json.dumps(options or {}))


def holds(budget: int, memory: int) -> bool:
    """Whether a training of so many bytes has room in the budget."""
    return memory <= budget * _FILL


def _fit(need: ModelRequest, variant: str, size: Size, measured: Measurement, part: int) -> MemoryFit:
    memory = training_memory(measured.at_batch(part), part * need.outputs * size[0] * size[1], need.optimizer)
    return MemoryFit(
        variant=variant,
        input_size=size,
        accumulate=need.batch // part,
        measured=measured,
        memory=memory,
        fits=holds(need.budget, memory),
    )


def _largest_config(need: ModelRequest, frame: SpatialPlan) -> tuple[MemoryFit, tuple[str, str]]:
    """With more memory: first more images at once, then a larger input, then a larger variant."""
    spec, memory = need.spec, show_memory(need.budget)
    sizes = _sizes(spec, frame)
    full = sizes[-1]
    best, why_variant = _largest_input(need, spec.default_variant, sizes), "the default"
    while not best.fits and (smaller := _neighbour(spec, best.variant, -1)):
        best, why_variant = _largest_input(need, smaller, sizes), f"the largest that fits {memory}"
    while best.fits and best.input_size == full and best.accumulate == 1 and (larger := _neighbour(spec, best.variant, 1)):
        grown = fit_part(need, larger, full)
        if not grown.fits or grown.accumulate > 1:
            break
        best, why_variant = grown, f"{memory} hold a larger one than the default with the whole batch at once"
    if best.input_size == full:
        return best, (why_variant, _why_size(spec, best.variant, frame))
    if best.fits and _comfortable(need, best):
        why = f"the largest of those up to {_side(full)} that {memory} hold with {_COMFORT} images at once or more"
        return best, (why_variant, why)
    for side in reversed(_SMALL_SIDES):
        if not best.fits and side >= spec.min_size:
            best = fit_part(need, best.variant, frame.input_size(side))
    return best, (why_variant, f"no larger one fits {memory} with as many images at once as batch statistics need")


def _largest_input(need: ModelRequest, variant: str, sizes: list[Size]) -> MemoryFit:
    """The largest size with enough images at once, else the smallest."""
    found: MemoryFit | None = None
    for size in reversed(sizes[1:]):
        # Where activations alone would be too many by their share of pixels, measuring is not worth its time.
        if found is None or _guess(need, found, size) <= need.budget * _FILL:
            found = fit_part(need, variant, size)
            if found.fits and _comfortable(need, found):
                return found
    return fit_part(need, variant, sizes[0])


def _comfortable(need: ModelRequest, found: MemoryFit) -> bool:
    return need.batch // found.accumulate >= min(_COMFORT, need.batch)


def _guess(need: ModelRequest, found: MemoryFit, size: Size) -> float:
    """About the least memory of a comfortable part at a smaller size than the one that was measured."""
    ratio = size[0] * size[1] / (found.input_size[0] * found.input_size[1])
    # Global attention shrinks with the square of the pixels.
    return float(_GUESS * found.measured.at_batch(min(_COMFORT, need.batch)).activations * ratio**1.2)


def _sizes(spec: ModelSpec, frame: SpatialPlan) -> list[Size]:
    """Admissible input sizes of the default variant, small to large, up to the frame's."""
    full = admissible_size(spec, spec.default_variant, frame)
    if spec.size_inside(spec.default_variant) is not None:
        return [full]
    sides = [side for side in _SIDES if spec.min_size <= side < frame.side]
    return list(dict.fromkeys([*(frame.input_size(side) for side in sides), full]))


def _light_variant(need: ModelRequest, frame: SpatialPlan) -> tuple[str, str]:
    spec = need.spec
    variant = spec.default_variant
    while (flops := flops_of(need, variant, admissible_size(spec, variant, frame))) > _QUICK_FLOPS:
        smaller = _neighbour(spec, variant, -1)
        if smaller is None:
            return variant, f"the smallest there is; {flops / 1e9:.1f} GFLOP an image make it slow on two cores"
        variant = smaller
    what = "the default" if variant == spec.default_variant else "the largest within 8 GFLOP an image"
    return variant, f"{what}: {flops / 1e9:.1f} GFLOP an image are quick enough on two cores"


def _neighbour(spec: ModelSpec, variant: str, step: int) -> str | None:
    """The next larger (1) or smaller (-1) variant; special forms are passed over."""
    plain = [v.name for v in spec.variants if not v.note or v.name == variant]
    place = plain.index(variant) + step
    return plain[place] if 0 <= place < len(plain) else None


def _why_size(spec: ModelSpec, variant: str, frame: SpatialPlan) -> str:
    if spec.size_inside(variant) is not None:
        return "the size this architecture works at inside, so that nothing is resized twice"
    if frame.kind == "patch":
        return "patches of the working size, no larger than the images"
    return "the working size of the geometry, with the images' aspect in multiples of 32"


def _decisions(need: ModelRequest, found: MemoryFit, variant_because: str, size_because: str) -> list[Decision]:
    prefix = f"models.{need.spec.name}"
    part = need.batch // found.accumulate
    held = f"{show_memory(found.memory)} measured of {show_memory(need.budget)}"
    if not found.fits:
        batch = f"not even {part} at once fit the memory ({held}): this plan needs a larger machine"
    elif found.accumulate == 1:
        batch = f"all at once: {held}"
    else:
        batch = f"in {found.accumulate} parts of {part}, since the memory holds no more at once: {held}"
    parameters = f"{found.measured.trainable / 4e6:.1f} M parameters"
    return [
        Decision(f"{prefix}.variant", found.variant, f"{variant_because}; {parameters}"),
        Decision(f"{prefix}.input_size", _side(found.input_size), size_because),
        Decision(f"{prefix}.batch_size", str(need.batch), batch),
    ]


def _side(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@lru_cache(maxsize=1024)
def _measured(
    name: str, variant: str, shape: tuple[int, int, int, int], outputs: int, precision: str, options: str
) -> Measurement:
    # Batch norms after global pooling refuse a single image.
    probe = (max(2, shape[0]), *shape[1:])
    return measure(_on_meta(name, variant, shape[1], outputs, shape[2:], options), probe, precision)


@lru_cache(maxsize=1024)
def _flops(name: str, variant: str, channels: int, outputs: int, size: Size, options: str) -> int:
    return count_flops(_on_meta(name, variant, channels, outputs, size, options), (1, channels, *size))


@lru_cache(maxsize=2)
def _on_meta(name: str, variant: str, channels: int, outputs: int, size: Size, options: str) -> nn.Module:
    """A network without values; the last ones are kept, since memory and operations of one are asked for in turn."""
    with torch.device("meta"), Shapes():
        return models.build(name, variant, channels, outputs, input_size=size, **json.loads(options))
