"""Checks of the contract in `autoseg.models.base`. `autoseg_check_model` and the tests of autoseg's networks run all of
them; planning runs two of them for networks of other packages.

A check is a function that takes a `Candidate` and returns the fault, "" if there is none. An exception is also a fault.
Inputs are small: all checks together take seconds for a variant.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.models import registry
from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork
from autoseg.planning.memory import count_flops, measure
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS

_CHANNELS, _CLASSES, _SIDE = 3, 3, 64
# Input channels, outputs, and sizes that no divisor divides.
_SIZES = ((1, 2, (65, 97)), (3, 4, (70, 101)), (5, 6, (97, 64)))
# Relative tolerance of the number of parameters.
_PARAMETER_TOLERANCE = 0.01


@dataclass(frozen=True)
class Candidate:
    """One variant of a registered model."""

    model: str
    variant: str

    @property
    def spec(self) -> ModelSpec:
        return registry.spec(self.model)

    def build(self, channels: int = _CHANNELS, classes: int = _CLASSES) -> SegmentationNetwork:
        torch.manual_seed(0)
        return registry.build(self.model, self.variant, channels, classes)

    @cached_property
    def network(self) -> SegmentationNetwork:
        """Built once, for checks that do not modify it."""
        return self.build()

    @cached_property
    def empty(self) -> SegmentationNetwork:
        """On the meta device, without values, as the planner builds it."""
        with torch.device("meta"):
            return registry.build(self.model, self.variant)


@dataclass(frozen=True)
class Check:
    """title: what is checked. remedy: what to do after a fault. fault: the function, see the module docstring."""

    title: str
    remedy: str
    fault: Callable[[Candidate], str]


@dataclass(frozen=True)
class CheckResult:
    """Result of one check of one variant. fault: "" if there is none."""

    variant: str
    check: Check
    fault: str


def check_model(model: str) -> Iterator[CheckResult]:
    """Runs every check for every variant. Raises AutosegError for an unknown model."""
    for variant in registry.spec(model).variants:
        candidate = Candidate(model, variant.name)
        for check in CHECKS:
            yield CheckResult(variant.name, check, find_fault(check, candidate))


def find_fault(check: Check, candidate: Candidate) -> str:
    """The fault, "" if there is none. Exceptions of the network are faults too."""
    try:
        with torch.random.fork_rng(devices=[]):
            return check.fault(candidate)
    except Exception as error:  # A network may raise anything.
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"


def require_usable(model: str, variant: str) -> None:
    """Raises AutosegError if a network of another package fails on real tensors or cannot be measured. autoseg's own networks
    are not checked here, because their tests do it."""
    if model not in MODELS.added():
        return
    for check in (REAL_FORWARD, MEASURABLE):
        fault = find_fault(check, Candidate(model, variant))
        if fault:
            raise AutosegError(
                f"the model {model!r} of {MODELS.source(model)} does not keep the model contract in its variant {variant}. "
                f"Expected: {check.title}. Found: {fault}",
                f"{check.remedy}; autoseg_check_model {model} lists everything to fix",
            )


def _check_spec(candidate: Candidate) -> str:
    spec = candidate.spec
    if not isinstance(spec, ModelSpec):
        return f"SPEC is a {type(spec).__name__}"
    if spec.name != candidate.model:
        return f"SPEC.name is {spec.name!r}, the entry point is called {candidate.model!r}"
    if not (spec.title and spec.citation):
        return "SPEC has no title or no citation"
    sizes = [variant.parameters for variant in spec.variants if not variant.note]
    return "" if sizes == sorted(sizes) else f"the variants have {sizes} parameters, not from small to large"


def _check_parameters(candidate: Candidate) -> str:
    counted = sum(parameter.numel() for parameter in candidate.empty.parameters())
    declared = candidate.spec.variant(candidate.variant).parameters
    is_equal = abs(counted - declared) <= _PARAMETER_TOLERANCE * counted
    return "" if is_equal else f"the spec says {declared:,} for 3 channels and 2 classes, there are {counted:,}"


def _check_forward(candidate: Candidate) -> str:
    network = candidate.network.eval()
    with torch.no_grad():
        return _fault_of_logits(network(_images(2)), (2, _CLASSES, _SIDE, _SIDE))


def _check_sizes(candidate: Candidate) -> str:
    for channels, classes, (height, width) in _SIZES:
        network = candidate.build(channels, classes).eval()
        with torch.no_grad():
            logits = network(_images(2, channels, height, width))
        fault = _fault_of_logits(logits, (2, classes, height, width))
        if fault:
            return f"{channels} channels, {height} x {width} pixels: {fault}"
    return ""


def _check_determinism(candidate: Candidate) -> str:
    network, images = candidate.network.eval(), _images(2)
    with torch.no_grad():
        first, second, single = network(images), network(images), network(images[:1])
    if not torch.equal(first, second):
        return f"two passes over one input differ by {float((first - second).abs().max()):.2g}"
    difference = float((first[:1] - single).abs().max())
    is_close = difference <= 1e-3 * (1 + float(single.abs().max()))
    return "" if is_close else f"an image alone and in a batch differ by {difference:.2g}"


def _check_training_output(candidate: Candidate) -> str:
    with torch.no_grad():
        output = copy.deepcopy(candidate.network).train()(_images(2))
    if not isinstance(output, ModelOutput):
        return f"a {type(output).__name__} instead of a ModelOutput"
    fault = _fault_of_logits(output.logits, (2, _CLASSES, _SIDE, _SIDE))
    for logits, weight in output.auxiliary:
        if logits.ndim != 4 or tuple(logits.shape[:2]) != (2, _CLASSES):
            fault = fault or f"auxiliary logits of shape {tuple(logits.shape)} instead of (2, {_CLASSES}, h, w)"
        if not (math.isfinite(float(weight)) and float(weight) >= 0):
            fault = fault or f"the weight {weight} of auxiliary logits"
    return fault


def _check_gradients(candidate: Candidate) -> str:
    network = candidate.build().train()
    labels = torch.randint(0, _CLASSES, (2, _SIDE, _SIDE), generator=torch.Generator().manual_seed(2))
    _loss(network(_images(2)), labels).backward()
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    not_finite = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    if not_finite:
        return f"gradients are NaN or infinite: {_first_names(not_finite)}"
    without_gradient = {name for name, parameter in parameters.items() if parameter.grad is None}
    declared_unused = set(network.unused_parameters)
    if without_gradient - declared_unused:
        return f"no gradient reaches {_first_names(sorted(without_gradient - declared_unused))}"
    return (
        f"a gradient reaches {_first_names(sorted(declared_unused - without_gradient))}, named in unused_parameters"
        if declared_unused - without_gradient
        else ""
    )


def _check_state_dict(candidate: Candidate) -> str:
    network = candidate.network.eval()
    torch.manual_seed(1)
    other = registry.build(candidate.model, candidate.variant, _CHANNELS, _CLASSES).eval()
    other.load_state_dict(network.state_dict())
    images = _images(1)
    with torch.no_grad():
        is_equal = torch.equal(network(images), other(images))
    return (
        "" if is_equal else "a network with the same weights gives other logits: some learned values are not in the state_dict"
    )


def _check_cam_layer(candidate: Candidate) -> str:
    network, name = candidate.network.eval(), candidate.spec.cam_layer
    modules = dict(network.named_modules())
    if not name or name not in modules:
        return f"cam_layer is {name!r}; layers are, for example, {_first_names([path for path in modules if path][-6:])}"
    outputs: list[Any] = []
    handle = modules[name].register_forward_hook(lambda module, inputs, result: outputs.append(result))
    try:
        with torch.no_grad():
            network(_images(1))
    finally:
        handle.remove()
    if not outputs:
        return f"{name} is not called in a forward pass"
    output = outputs[-1][0] if isinstance(outputs[-1], tuple | list) else outputs[-1]
    is_valid = isinstance(output, Tensor) and output.ndim in (3, 4)
    return "" if is_valid else f"{name} gives {getattr(output, 'shape', type(output).__name__)}, neither maps nor tokens"


def _check_measurable(candidate: Candidate) -> str:
    shape = (2, _CHANNELS, _SIDE, _SIDE)
    measurement = measure(candidate.empty, shape)
    if not measurement.activations:
        return "no activation is saved for the backward pass"
    return "" if count_flops(candidate.empty, (1, *shape[1:])) else "no operation was counted"


REAL_FORWARD = Check(
    "in evaluation mode, logits (B, K, H, W) at the input's size, on real tensors",
    "return ModelOutput(logits) from segment, with one map for each of num_classes",
    _check_forward,
)
MEASURABLE = Check(
    "memory and operations that can be measured without values",
    "no .item(), and no shape that depends on values, in the constructor and in segment",
    _check_measurable,
)
CHECKS = (
    Check("a spec that matches the model", "correct SPEC", _check_spec),
    Check("as many parameters as the spec says", "write the counted number into its Variant", _check_parameters),
    REAL_FORWARD,
    Check(
        "1, 3 and 5 channels, 2 to 6 classes, odd sizes",
        "use in_channels and num_classes; set divisor to the number that the sides must be multiples of",
        _check_sizes,
    ),
    Check(
        "the same logits again, alone and in a batch",
        "use no random numbers and no batch statistics in evaluation mode",
        _check_determinism,
    ),
    Check("in training mode, a ModelOutput with weighted auxiliary logits", "see ModelOutput", _check_training_output),
    Check(
        "a finite gradient for every parameter",
        "use the parameter, remove it, or name it in unused_parameters",
        _check_gradients,
    ),
    Check("weights that can be saved and loaded", "keep learned values in parameters and buffers", _check_state_dict),
    Check("a layer for heat maps", "set SPEC.cam_layer to a layer that gives (B, C, h, w) or (B, L, C)", _check_cam_layer),
    MEASURABLE,
)


def _images(batch: int, channels: int = _CHANNELS, height: int = _SIDE, width: int = _SIDE) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def _fault_of_logits(logits: Any, shape: tuple[int, ...]) -> str:
    if not isinstance(logits, Tensor):
        return f"a {type(logits).__name__} instead of a tensor"
    if tuple(logits.shape) != shape:
        return f"logits of shape {tuple(logits.shape)} instead of {shape}"
    return "" if torch.isfinite(logits).all() else "logits are NaN or infinite"


def _loss(output: ModelOutput, labels: Tensor) -> Tensor:
    """Cross entropy with auxiliary outputs, or the network's own loss."""
    if output.own_loss is not None:
        target = F.one_hot(labels, _CLASSES).movedim(-1, 1).float()
        return output.own_loss(target, torch.ones(len(labels), 1, *labels.shape[1:]))
    loss = F.cross_entropy(output.logits, labels)
    for auxiliary, weight in output.auxiliary:
        small = F.interpolate(labels[:, None].float(), auxiliary.shape[-2:]).long()[:, 0]
        loss = loss + weight * F.cross_entropy(auxiliary, small)
    return loss


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
