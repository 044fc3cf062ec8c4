"""Chooses a model's variant, input size and accumulation steps for the memory, by measuring the network itself."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from autoseg import models
from autoseg.models.base import ModelSpec, SegmentationNetwork
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.hardware import show_memory
from autoseg.planning.memory import Measurement, count_flops, measure, training_memory
from autoseg.planning.study_protocol import MODEL_NOTES
from autoseg.schema.plan import Decision, Protocol

# Fraction of the budget that a plan may use: allocators round up and fragment.
_MAX_FILL = 0.9
# Candidate sides of the input, as of a square of the same area. The small ones are used only if nothing else fits.
_SMALL_SIDES = (128, 192)
_SIDES = (256, 320, 384, 448, 512, 640, 768, 1024)
# Batch statistics of fewer images are noise, so a larger input must leave memory for this many at once.
_MIN_AT_ONCE = 4
# FLOPs per image that two cores compute quickly; `quick` takes the largest variant within them.
_QUICK_FLOPS = 8e9
# Safety factor of an estimate from another input size: activations of global attention grow faster than the pixels.
_ESTIMATE_FACTOR = 0.8
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Requirements for one model. budget: bytes. batch: images of an optimiser step. outputs: logit maps. device: "cpu",
    "cuda" or "mps", that of the training; this machine need not have it. frozen: its encoder does not learn."""

    spec: ModelSpec
    channels: int
    outputs: int
    precision: str
    device: str
    optimizer: str
    budget: int
    batch: int
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class MemoryFit:
    """A configuration and its memory in bytes. `batch / accumulate` images go through the network at once."""

    variant: str
    input_size: Size
    accumulate: int
    measured: Measurement
    memory: int
    fits: bool


@dataclass(frozen=True)
class ModelConfig:
    """A variant and an input size that were chosen for a reason other than memory."""

    variant: str
    input_size: Size
    reason: str


def fit_model(
    request: ModelRequest, spatial_plan: SpatialPlan, protocol: Protocol, config: ModelConfig | None = None
) -> tuple[MemoryFit, list[Decision]]:
    """The best configuration that the protocol allows, or the chosen one, with the reasons."""
    spec = request.spec
    if config is not None:
        fit, why = fit_part(request, config.variant, config.input_size), (config.reason, config.reason)
    elif protocol == "benchmark":
        fit = fit_part(request, spec.default_variant, spatial_plan.input_size(spatial_plan.side))
        note = MODEL_NOTES.get(spec.name, "the default, which is the study's where it has this model")
        why = note, "the study's input size"
    elif protocol == "quick":
        variant, reason = _light_variant(request, spatial_plan)
        fit = fit_part(request, variant, admissible_size(spec, variant, spatial_plan))
        while not fit.fits and (smaller := _neighbour(spec, fit.variant, -1)):
            size = admissible_size(spec, smaller, spatial_plan)
            fit, reason = fit_part(request, smaller, size), "the largest that fits the memory"
        why = reason, _why_size(spec, fit.variant, spatial_plan)
    else:
        fit, why = _largest_config(request, spatial_plan)
    return fit, _decisions(request, fit, *why)


def fit_part(
    request: ModelRequest, variant: str, input_size: Size, options: dict[str, Any] | None = None, accumulate: int | None = None
) -> MemoryFit:
    """Fits the whole batch, or else the largest equal part of it, into the memory; `fits` is False if no part fits.

    options: of the model's builder. accumulate: a fixed number of parts.
    """
    shape = (request.batch, request.channels, *input_size)
    measured = _measured(
        request.spec.name, variant, shape, request.outputs, json.dumps(options or {}), precision=request.precision,
        device=request.device, frozen=request.frozen,
    )  # fmt: skip
    if accumulate is not None:
        return _fit(request, variant, input_size, measured, request.batch // accumulate)
    smallest_part = min(2 if request.spec.batch_statistics else 1, request.batch)
    parts = [part for part in range(request.batch, 0, -1) if request.batch % part == 0 and part >= smallest_part]
    fits = (_fit(request, variant, input_size, measured, part) for part in parts)
    return next((fit for fit in fits if fit.fits), _fit(request, variant, input_size, measured, parts[-1]))


def admissible_size(spec: ModelSpec, variant: str, spatial_plan: SpatialPlan) -> Size:
    """(height, width) of the input: the variant's internal size if it has one, else the spatial plan's."""
    internal_size = spec.size_inside(variant)
    return spatial_plan.input_size(spatial_plan.side) if internal_size is None else (internal_size, internal_size)


def flops_of(request: ModelRequest, variant: str, size: Size, options: dict[str, Any] | None = None) -> int:
    """FLOPs (multiplications and additions) of one image's forward pass."""
    return _flops(request.spec.name, variant, request.channels, request.outputs, size, json.dumps(options or {}))


def holds(budget: int, memory: int) -> bool:
    """Whether a training that needs `memory` bytes fits the budget."""
    return memory <= budget * _MAX_FILL


def _fit(request: ModelRequest, variant: str, size: Size, measured: Measurement, part: int) -> MemoryFit:
    memory = training_memory(measured.at_batch(part), part * request.outputs * size[0] * size[1], request.optimizer)
    return MemoryFit(
        variant=variant,
        input_size=size,
        accumulate=request.batch // part,
        measured=measured,
        memory=memory,
        fits=holds(request.budget, memory),
    )


def _largest_config(request: ModelRequest, spatial_plan: SpatialPlan) -> tuple[MemoryFit, tuple[str, str]]:
    """Uses more memory first for more images at once, then for a larger input, then for a larger variant."""
    spec, memory = request.spec, show_memory(request.budget)
    sizes = _sizes(spec, spatial_plan)
    full_size = sizes[-1]
    best, why_variant = _largest_input(request, spec.default_variant, sizes), "the default"
    while not best.fits and (smaller := _neighbour(spec, best.variant, -1)):
        best, why_variant = _largest_input(request, smaller, sizes), f"the largest that fits {memory}"
    while best.fits and best.input_size == full_size and best.accumulate == 1 and (larger := _neighbour(spec, best.variant, 1)):
        larger_fit = fit_part(request, larger, full_size)
        if not larger_fit.fits or larger_fit.accumulate > 1:
            break
        best, why_variant = larger_fit, f"{memory} hold a larger one than the default with the whole batch at once"
    if best.input_size == full_size:
        return best, (why_variant, _why_size(spec, best.variant, spatial_plan))
    if best.fits and _has_enough_at_once(request, best):
        why = f"the largest of those up to {_side(full_size)} that {memory} hold with {_MIN_AT_ONCE} images at once or more"
        return best, (why_variant, why)
    for side in reversed(_SMALL_SIDES):
        if not best.fits and side >= spec.min_size:
            best = fit_part(request, best.variant, spatial_plan.input_size(side))
    return best, (why_variant, f"no larger one fits {memory} with as many images at once as batch statistics need")


def _largest_input(request: ModelRequest, variant: str, sizes: list[Size]) -> MemoryFit:
    """The largest input size with enough images at once, else the smallest size."""
    fit: MemoryFit | None = None
    for size in reversed(sizes[1:]):
        # Measuring takes time, so it is skipped if the estimated activations alone are too large.
        if fit is None or _estimate_memory(request, fit, size) <= request.budget * _MAX_FILL:
            fit = fit_part(request, variant, size)
            if fit.fits and _has_enough_at_once(request, fit):
                return fit
    return fit_part(request, variant, sizes[0])


def _has_enough_at_once(request: ModelRequest, fit: MemoryFit) -> bool:
    return request.batch // fit.accumulate >= min(_MIN_AT_ONCE, request.batch)


def _estimate_memory(request: ModelRequest, fit: MemoryFit, size: Size) -> float:
    """Estimated minimum memory with enough images at once, at a size smaller than the measured one."""
    ratio = size[0] * size[1] / (fit.input_size[0] * fit.input_size[1])
    # Memory of global attention shrinks with the square of the pixels.
    return float(_ESTIMATE_FACTOR * fit.measured.at_batch(min(_MIN_AT_ONCE, request.batch)).activations * ratio**1.2)


def _sizes(spec: ModelSpec, spatial_plan: SpatialPlan) -> list[Size]:
    """Valid input sizes of the default variant, from small to large, up to the spatial plan's."""
    full_size = admissible_size(spec, spec.default_variant, spatial_plan)
    if spec.size_inside(spec.default_variant) is not None:
        return [full_size]
    sides = [side for side in _SIDES if spec.min_size <= side < spatial_plan.side]
    return list(dict.fromkeys([*(spatial_plan.input_size(side) for side in sides), full_size]))


def _light_variant(request: ModelRequest, spatial_plan: SpatialPlan) -> tuple[str, str]:
    spec = request.spec
    variant = spec.default_variant
    while (flops := flops_of(request, variant, admissible_size(spec, variant, spatial_plan))) > _QUICK_FLOPS:
        smaller = _neighbour(spec, variant, -1)
        if smaller is None:
            return variant, f"the smallest there is; {flops / 1e9:.1f} GFLOP an image make it slow on two cores"
        variant = smaller
    which = "the default" if variant == spec.default_variant else "the largest within 8 GFLOP an image"
    return variant, f"{which}: {flops / 1e9:.1f} GFLOP an image are quick enough on two cores"


def smaller_variants(spec: ModelSpec, variant: str) -> list[str]:
    """The variant, then the smaller ones, from large to small."""
    variants = [variant]
    while (smaller := _neighbour(spec, variants[-1], -1)) is not None:
        variants.append(smaller)
    return variants


def _neighbour(spec: ModelSpec, variant: str, step: int) -> str | None:
    """The next larger (1) or smaller (-1) variant; variants with a note are skipped."""
    plain = [v.name for v in spec.variants if not v.note or v.name == variant]
    index = plain.index(variant) + step
    return plain[index] if 0 <= index < len(plain) else None


def _why_size(spec: ModelSpec, variant: str, spatial_plan: SpatialPlan) -> str:
    if spec.size_inside(variant) is not None:
        return "the size this architecture works at inside, so that nothing is resized twice"
    if spatial_plan.kind == "patch":
        return "patches of the working size, no larger than the images"
    return "the working size of the geometry, with the images' aspect in multiples of 32"


def _decisions(request: ModelRequest, fit: MemoryFit, variant_reason: str, size_reason: str) -> list[Decision]:
    prefix = f"models.{request.spec.name}"
    part = request.batch // fit.accumulate
    usage = f"{show_memory(fit.memory)} measured of {show_memory(request.budget)}"
    if not fit.fits:
        batch = f"not even {part} at once fit the memory ({usage}): this plan needs a larger machine"
    elif fit.accumulate == 1:
        batch = f"all at once: {usage}"
    else:
        batch = f"in {fit.accumulate} parts of {part}, since the memory holds no more at once: {usage}"
    parameters = f"{fit.measured.trainable / 4e6:.1f} M parameters"
    return [
        Decision(f"{prefix}.variant", fit.variant, f"{variant_reason}; {parameters}"),
        Decision(f"{prefix}.input_size", _side(fit.input_size), size_reason),
        Decision(f"{prefix}.batch_size", str(request.batch), batch),
    ]


def _side(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@lru_cache(maxsize=1024)
def _measured(
    name: str,
    variant: str,
    shape: tuple[int, int, int, int],
    outputs: int,
    options: str,
    precision: str,
    device: str,
    frozen: bool,
) -> Measurement:
    # Batch norm after global pooling fails for a single image.
    input_shape = (max(2, shape[0]), *shape[1:])
    network = _on_meta(name, variant, shape[1], outputs, shape[2:], options)
    if frozen:
        network = copy.deepcopy(network)
        network.freeze_encoder()
    return measure(network, input_shape, precision, device)


@lru_cache(maxsize=1024)
def _flops(name: str, variant: str, channels: int, outputs: int, size: Size, options: str) -> int:
    return count_flops(_on_meta(name, variant, channels, outputs, size, options), (1, channels, *size))


@lru_cache(maxsize=2)
def _on_meta(name: str, variant: str, channels: int, outputs: int, size: Size, options: str) -> SegmentationNetwork:
    """A network without values. Cached, because memory and FLOPs of the same network are measured in turn."""
    with torch.device("meta"):
        return models.build(name, variant, channels, outputs, input_size=size, **json.loads(options))
