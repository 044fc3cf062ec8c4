"""The registered architectures."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.frame import Results


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One architecture.

    variants: name -> parameters, for 3 channels and 2 classes, from small to large; parameters: of the default variant.
    divisor: the network pads images to multiples of it. fixed_size: the network resizes images to this square, None if it
    does not. weights: data the published weights were trained on.
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
    citation: str


def model_table() -> Results[ModelInfo]:
    """List every registered architecture, those of installed packages too.

    Returns:
        One row for each architecture. If the package of one cannot be imported, it is skipped with a warning.
    """
    from autoseg import models as registry

    rows: Results[ModelInfo] = Results()
    for name in registry.usable_names():
        spec = registry.spec(name)
        row = ModelInfo(
            name=name,
            title=spec.title,
            family=spec.family,
            variants={variant.name: variant.parameters for variant in spec.variants},
            default_variant=spec.default_variant,
            parameters=spec.variant(spec.default_variant).parameters,
            divisor=spec.divisor,
            fixed_size=spec.fixed_size,
            weights=sorted({weights.trained_on for weights in spec.weights}),
            citation=spec.citation,
        )
        rows.append(row)
    return rows
