"""The registered architectures, and checks of the model contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoseg.api.options import Models, model_names
from autoseg.schema.frame import Results
from autoseg.support.workspace import Root, Workspace


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One architecture.

    variants: name -> parameters, for 3 channels and 2 classes, from small to large; parameters: of the default variant.
    divisor: the network pads images to multiples of it. fixed_size: the network resizes images to this square, None if it
    does not. weights: data the published weights were trained on; licences: of them. weights_present: the default variant would
    start from published weights, completely.
    """

    name: str
    title: str
    family: str
    variants: dict[str, int]
    default_variant: str
    parameters: int
    divisor: int
    fixed_size: int | None
    weights: list[str]
    licences: list[str]
    weights_present: bool
    citation: str


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """One check of one variant of a model.

    check: what was checked. fault: what is wrong, "" if the check passed. remedy: what to do if it did not.
    """

    model: str
    variant: str
    check: str
    passed: bool
    fault: str
    remedy: str


def check_model(model: str, *, on_result: Callable[[ModelCheck], None] | None = None) -> Results[ModelCheck]:
    """Check that a network works for planning, training and prediction: every variant, with real forward passes.

    Args:
        model: a registered name, also one of an installed package.
        on_result: called with each result as soon as it is known; all checks of a variant take seconds.

    Returns:
        One row for each check of each variant. Faults are in the rows; they are not raised.

    Raises:
        AutosegError: there is no such model.
    """
    from autoseg.planning import model_checks

    rows: Results[ModelCheck] = Results()
    for result in model_checks.check_model(model):
        row = ModelCheck(
            model=model,
            variant=result.variant,
            check=result.check.title,
            passed=not result.fault,
            fault=result.fault,
            remedy=result.check.remedy,
        )
        rows.append(row)
        if on_result is not None:
            on_result(row)
    return rows


def model_table(root: Root = None, *, models: Models | None = None) -> Results[ModelInfo]:
    """List every registered architecture, those of installed packages too, or some.

    Args:
        root: folder of weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        models: names of models, also "timm:NAME" for an encoder of timm. "timm:*hiera*" stands for all that match and have
            published weights; those of which timm gives no feature maps are skipped with a warning.

    Returns:
        One row for each architecture. If the package of one cannot be imported, it is skipped with a warning.

    Raises:
        AutosegError: a name is unknown, or a pattern matches nothing.
    """
    from autoseg.models import registry
    from autoseg.weights.pretrained import find_start

    folder = Workspace.at(root).weights
    rows: Results[ModelInfo] = Results()
    for name, spec in registry.matching_specs(model_names(models)):
        start = find_start(spec, spec.default_variant, folder)
        row = ModelInfo(
            name=name,
            title=spec.title,
            family=spec.family,
            variants={variant.name: variant.parameters for variant in spec.variants},
            default_variant=spec.default_variant,
            parameters=spec.variant(spec.default_variant).parameters,
            divisor=spec.divisor,
            fixed_size=spec.fixed_size,
            weights=sorted({weights.trained_on for weights in spec.weights if not weights.study}),
            licences=sorted({weights.licence or "not known" for weights in spec.weights if not weights.study}),
            weights_present=start.source is not None and not start.missing,
            citation=spec.citation,
        )
        rows.append(row)
    return rows
