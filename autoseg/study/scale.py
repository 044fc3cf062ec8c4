"""What a study trains at its full scale, and at a small one that tries it in hours on two cores."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from autoseg.schema.study import Scale, Setting, Study, StudyDataset, StudyModel

# From random weights and in few steps the study's rates of at most 1e-4 would teach nothing.
_SMALL_RATE = 5e-4
_SMALL_BATCH = 8
_SMALL_VALIDATIONS = 4


def at_scale(study: Study, scale: Scale) -> Study:
    """The study with the folds and the number of worst cases of its scale."""
    if scale == "full":
        return study
    folds = min(study.folds, study.small.folds) if study.small.folds else study.folds
    comparison = replace(study.comparison, worst_cases=study.small.worst_cases)
    return replace(study, folds=max(2, folds), comparison=comparison)


def mark(study: Study, scale: Scale) -> str:
    """What every table of a small study says; "" at full scale."""
    if scale == "full":
        return ""
    small = study.small
    return (
        f"SMALL SCALE: at most {small.cases} images of each dataset, {small.side} x {small.side} pixels, {small.steps} steps, "
        "one learning rate; models without weights in their smallest variant. Not comparable with the published numbers."
    )


def plan_settings(
    study: Study, dataset: StudyDataset, models: Mapping[str, StudyModel], scale: Scale, seed: int, train_cases: int
) -> dict[str, Setting]:
    """Dotted field of the plan -> value, for one dataset and seed. train_cases: of the smallest fold."""
    settings: dict[str, Setting] = {**study.settings, **dataset.settings}
    if seed:
        settings["training.seed"] = seed
    for name, model in models.items():
        chosen = {"variant": model.variant, "pretrained": model.pretrained} | model.settings
        settings |= {f"models.{name}.{field}": value for field, value in chosen.items() if value != ""}
    if scale == "full":
        return settings
    small = study.small
    epochs = max(1, math.ceil(small.steps * _SMALL_BATCH / max(train_cases, _SMALL_BATCH)))
    settings |= {
        "side": small.side,
        "training.epochs": epochs,
        "training.search_epochs": 0,
        "training.learning_rates": json.dumps([_SMALL_RATE]),
        "training.patience": 0,
        "training.validate_every": max(1, epochs // _SMALL_VALIDATIONS),
    }
    settings |= {f"models.{name}.batch_size": _SMALL_BATCH for name in models}
    settings |= {f"models.{name}.learning_rate": _SMALL_RATE for name in models}
    return settings | small.settings


def without_weights(model: StudyModel, smallest: str, scale: Scale) -> StudyModel:
    """The model from random weights; at the small scale in its smallest variant."""
    return replace(model, pretrained="none", variant=smallest if scale == "small" else model.variant)


def selected(study: Study, datasets: Collection[str] | None, models: Collection[str] | None) -> Study:
    """The study with only these datasets and models; published numbers of others are left out."""
    kept_models = tuple(one for one in study.models if models is None or one.name in models)
    trained = {one.name for one in kept_models}
    kept_datasets = tuple(
        replace(one, specialist=one.specialist if one.specialist in trained else "")
        for one in study.datasets
        if datasets is None or one.name in datasets
    )
    names = {one.name for one in kept_datasets}
    comparison = replace(
        study.comparison,
        external=tuple(one for one in study.comparison.external if {one.dataset, one.other} <= names),
        families={
            family: tuple(name for name in members if name in trained)
            for family, members in study.comparison.families.items()
        },
    )
    return replace(study, datasets=kept_datasets, models=kept_models, comparison=comparison)
