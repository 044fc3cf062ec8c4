"""Variant, input size and batch of one model, fitted to the memory by measuring the network itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from autoseg import models
from autoseg.models.contract import ModelSpec
from autoseg.planning.geometry import Frame
from autoseg.planning.hardware import show_memory
from autoseg.planning.memory import Measurement, count_flops, measure, training_memory
from autoseg.schema.plan import Decision, Protocol

# Of the budget, the part that may be planned for: allocators round up and leave gaps.
_FILL = 0.9
# Sides an input may have, as a square of the same area.
_SIDES = (128, 192, 256, 320, 384, 448, 512, 640, 768, 1024)
# Batch statistics of fewer images than this are noise: a larger input or variant must leave room for as many.
_COMFORT = 4
# Floating-point operations of one image that two cores forward in a blink; `quick` takes the largest variant below it.
_QUICK_FLOPS = 8e9


@dataclass(frozen=True)
class Need:
    """What is asked of a model. budget: bytes. batch: images of an optimiser step. outputs: logit maps."""

    spec: ModelSpec
    channels: int
    outputs: int
    precision: str
    optimizer: str
    budget: int
    batch: int


@dataclass(frozen=True)
class Fit:
    """part: images that go through the network at once, `batch / accumulate`. memory: bytes that takes."""

    variant: str
    input_size: tuple[int, int]
    accumulate: int
    measured: Measurement
    memory: int
    fits: bool


def fit_model(need: Need, frame: Frame, protocol: Protocol) -> tuple[Fit, list[Decision]]:
    """The best fit the protocol allows, with reasons."""
    if protocol == "benchmark":
        found = fit_part(need, need.spec.default_variant, frame.input_size(frame.side))
        why = "the default, which is the study's where it has this model", "the study's input size"
    elif protocol == "quick":
        size = _input_size(need.spec, frame, frame.side)
        variant, reason = _light_variant(need, size)
        found = fit_part(need, variant, size)
        while not found.fits and (smaller := _neighbour(need.spec, found.variant, -1)):
            found, reason = fit_part(need, smaller, size), "the largest that fits the memory"
        why = reason, _why_size(need.spec, frame)
    else:
        found, why = _climb(need, frame)
    return found, _decisions(need, found, *why)


def fit_part(
    need: Need,
    variant: str,
    input_size: tuple[int, int],
    options: dict[str, Any] | None = None,
    accumulate: int | None = None,
) -> Fit:
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


def _fit(need: Need, variant: str, size: tuple[int, int], measured: Measurement, part: int) -> Fit:
    memory = training_memory(measured.at_batch(part), part * need.outputs * size[0] * size[1], need.optimizer)
    return Fit(variant, size, need.batch // part, measured, memory, memory <= need.budget * _FILL)


def _climb(need: Need, frame: Frame) -> tuple[Fit, tuple[str, str]]:
    """With more memory: first a larger batch at once, then a larger input, then a larger variant."""
    spec, memory = need.spec, show_memory(need.budget)
    sizes = _sizes(spec, frame)
    best, why_variant = fit_part(need, spec.default_variant, sizes[0]), "the default"
    while not best.fits and (smaller := _neighbour(spec, best.variant, -1)):
        best, why_variant = fit_part(need, smaller, sizes[0]), f"the largest that fits {memory}"
    if best.fits and best.variant == spec.default_variant:
        best = _larger_input(need, best, sizes)
        while best.input_size == sizes[-1] and (larger := _neighbour(spec, best.variant, 1)):
            grown = fit_part(need, larger, best.input_size)
            if not grown.fits or grown.accumulate > 1:
                break
            best, why_variant = grown, f"{memory} hold a larger one than the default with the whole batch at once"
    if best.input_size == sizes[-1]:
        return best, (why_variant, _why_size(spec, frame))
    why_size = f"the largest of those up to {_side(sizes[-1])} that {memory} hold with {_COMFORT} images at once or more"
    return best, (why_variant, why_size)


def _larger_input(need: Need, best: Fit, sizes: list[tuple[int, int]]) -> Fit:
    for size in reversed(sizes[1:]):
        # Where activations alone would be too many by their share of pixels, measuring is not worth its time.
        if _guess(need, best, size) <= need.budget * _FILL:
            larger = fit_part(need, best.variant, size)
            if larger.fits and _comfortable(need, larger):
                return larger
    return best


def _comfortable(need: Need, found: Fit) -> bool:
    return need.batch // found.accumulate >= min(_COMFORT, need.batch)


def _guess(need: Need, found: Fit, size: tuple[int, int]) -> float:
    """About the least memory of a comfortable part at another size: activations grow at least with the pixels."""
    grown = size[0] * size[1] / (found.input_size[0] * found.input_size[1])
    return 0.8 * found.measured.at_batch(min(_COMFORT, need.batch)).activations * grown


def _sizes(spec: ModelSpec, frame: Frame) -> list[tuple[int, int]]:
    """Admissible input sizes, small to large, up to the frame's."""
    if spec.fixed_size is not None:
        return [(spec.fixed_size, spec.fixed_size)]
    sides = [side for side in _SIDES if spec.min_size <= side < frame.side] + [frame.side]
    smallest = [side for side in sides if side >= min(256, frame.side)]
    return list(dict.fromkeys(frame.input_size(side) for side in smallest))


def _input_size(spec: ModelSpec, frame: Frame, side: int) -> tuple[int, int]:
    return (spec.fixed_size, spec.fixed_size) if spec.fixed_size is not None else frame.input_size(side)


def _light_variant(need: Need, size: tuple[int, int]) -> tuple[str, str]:
    spec = need.spec
    variant: str | None = spec.default_variant
    while variant is not None:
        flops = _flops(spec.name, variant, need.channels, need.outputs, size)
        if flops <= _QUICK_FLOPS:
            break
        smaller = _neighbour(spec, variant, -1)
        if smaller is None:
            return variant, f"the smallest there is; {flops / 1e9:.1f} GFLOP an image make it slow on two cores"
        variant = smaller
    assert variant is not None
    what = "the default" if variant == spec.default_variant else "the largest within 8 GFLOP an image"
    return variant, f"{what}: {flops / 1e9:.1f} GFLOP an image are quick enough on two cores"


def _neighbour(spec: ModelSpec, variant: str, step: int) -> str | None:
    """The next larger (1) or smaller (-1) variant; special forms are passed over."""
    plain = [v.name for v in spec.variants if not v.note or v.name == variant]
    place = plain.index(variant) + step
    return plain[place] if 0 <= place < len(plain) else None


def _why_size(spec: ModelSpec, frame: Frame) -> str:
    if spec.fixed_size is not None:
        return "the size this architecture works at inside, so that nothing is resized twice"
    if frame.kind == "patch":
        return "patches of the working size, no larger than the images"
    return "the working size of the geometry, with the images' aspect in multiples of 32"


def _decisions(need: Need, found: Fit, variant_because: str, size_because: str) -> list[Decision]:
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


def _side(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@lru_cache(maxsize=1024)
def _measured(
    name: str, variant: str, shape: tuple[int, int, int, int], outputs: int, precision: str, options: str
) -> Measurement:
    # Batch norms after global pooling refuse a single image.
    probe = (max(2, shape[0]), *shape[1:])
    flops = _flops(name, variant, shape[1], outputs, shape[2:], options)
    return measure(_on_meta(name, variant, shape[1], outputs, shape[2:], options), probe, precision, flops)


@lru_cache(maxsize=1024)
def _flops(name: str, variant: str, channels: int, outputs: int, size: tuple[int, int], options: str = "{}") -> int:
    return count_flops(_on_meta(name, variant, channels, outputs, size, options), (1, channels, *size))


def _on_meta(name: str, variant: str, channels: int, outputs: int, size: tuple[int, int], options: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, variant, channels, outputs, input_size=size, **json.loads(options))
