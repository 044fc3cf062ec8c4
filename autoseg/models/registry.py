"""Architectures by name, from the table `MODELS` in `autoseg.support.extensions`. A new one needs a file and a row there.

Other packages add modules with entry points in the group "autoseg.models". `autoseg.models.base` describes what a module
needs; `autoseg_check_model NAME` checks it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from inspect import Parameter
from typing import Any

from autoseg.models.base import ModelSpec, SegmentationNetwork
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS

_TIMM = "timm:"
# Parameters of every model's `build`; the others are its options.
_GIVEN = ("variant", "in_channels", "num_classes", "input_size")
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def names() -> tuple[str, ...]:
    """All names: the table's, in its order, then those of other packages. Nothing is imported."""
    return MODELS.names()


def usable_names() -> tuple[str, ...]:
    """Like `names`, without models of other packages that cannot be imported; each of them gives a warning."""
    return tuple(name for name, _ in MODELS.usable())


def spec(name: str) -> ModelSpec:
    """The traits of a model. Raises AutosegError, with similar names, if there is no such model."""
    return MODELS.get(name).SPEC  # type: ignore[no-any-return]


def matching_specs(wanted: Sequence[str] | None = None) -> Iterator[tuple[str, ModelSpec]]:
    """Name and traits of some models, None: of all that are usable. "timm:" and a pattern with * stands for timm's encoders.

    Raises AutosegError for an unknown name, and for a pattern that no encoder matches.
    """
    if wanted is None:
        yield from ((name, module.SPEC) for name, module in MODELS.usable())
    for one in wanted or ():
        if not ("*" in one and one.startswith(_TIMM)):
            yield one, spec(one)
            continue
        import timm

        encoders = [f"{_TIMM}{name}" for name in timm.list_pretrained(one.removeprefix(_TIMM))]
        if not encoders:
            problem = f"no encoder of timm with published weights matches {one!r}"
            raise AutosegError(problem, "give another pattern: 'timm:*vit*'")
        yield from ((name, module.SPEC) for name, module in MODELS.usable(encoders))


def find_spec(name: str) -> ModelSpec | None:
    """Like `spec`, but None for an unknown model or an unusable package: results may be older than the installed packages."""
    try:
        return spec(name)
    except AutosegError:
        return None


def build(
    name: str,
    variant: str | None = None,
    in_channels: int = 3,
    num_classes: int = 2,
    input_size: tuple[int, int] | None = None,
    **options: Any,
) -> SegmentationNetwork:
    """The network with new random weights.

    variant: one of the spec's; by default that of the benchmark protocol. num_classes: channels of the logits, with the
    background. input_size: (H, W) in training, for networks whose depth depends on it; other sizes work too. options: see
    the model's own file. Raises AutosegError for an unknown name or variant.
    """
    module = MODELS.get(name)
    model_spec: ModelSpec = module.SPEC
    variant_name = variant or model_spec.default_variant
    if variant_name not in {v.name for v in model_spec.variants}:
        available = ", ".join(v.name for v in model_spec.variants)
        raise AutosegError(f"{name} has no variant {variant_name!r}", f"choose one of: {available}")
    parameters = inspect.signature(module.build).parameters
    known_options = [option for option, parameter in parameters.items() if option not in _GIVEN and parameter.kind in _NAMED]
    unknown = [option for option in options if option not in known_options]
    if unknown and not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise AutosegError(f"{name} has no option {unknown[0]!r}", f"its options: {', '.join(known_options) or 'none'}")
    try:
        network: SegmentationNetwork = module.build(
            variant=variant_name, in_channels=in_channels, num_classes=num_classes, input_size=input_size, **options
        )
    except (TypeError, ValueError, KeyError, RuntimeError, ArithmeticError) as error:
        if not options:
            raise
        raise AutosegError(f"{name} cannot be built with the options {options}: {error}", "correct the options") from error
    return network
