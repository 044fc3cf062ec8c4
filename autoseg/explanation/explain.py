"""Heat maps of a trained fold's cases, as pictures and as shares of the heat inside and around the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.explanation.cam import METHODS, find_layer, heat_map
from autoseg.explanation.saliency_metrics import saliency_metrics
from autoseg.io import read_case, read_label, write_image
from autoseg.io.raw_dataset import Case, RawDataset
from autoseg.models import registry
from autoseg.prediction.overlay import draw_overlay
from autoseg.prediction.predictor import Predictor
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.explanation import Explanation, Heat
from autoseg.schema.plan import Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_directory, read_artefact, write_artefact
from autoseg.support.workspace import Dataset

FOLDER, RECORD = "explanation", "explanation.json"
REGIONS = ("predicted", "reference")
_FIRST = 4
# Gradients of a whole image of more pixels than this would not fit an ordinary memory.
_MOST_PIXELS = 1 << 21
Array = NDArray[Any]


@dataclass(frozen=True)
class _Asked:
    """What a fold is asked: layer and methods, and which region the target is averaged over."""

    predictor: Predictor
    layer: torch.nn.Module
    methods: tuple[str, ...]
    region: str


def explain_fold(
    dataset: Dataset,
    model: str,
    fold: int,
    cases: Sequence[str] | None = None,
    *,
    layer: str = "auto",
    methods: Sequence[str] = METHODS,
    region: str = "predicted",
    device: str = "auto",
) -> Explanation:
    """Heat maps of every class in some cases (default: the first held-out ones), into <fold>/explanation.

    layer: dotted path of a module, "auto" for the one the model's spec names. methods: see `cam.heat_map`. region: the
    target is the mean logit of a class inside its "predicted" or "reference" region; a class without one is named in
    `skipped`. Raises AutosegError for an unknown layer, SeveralProblems for unknown cases.
    """
    if region not in REGIONS or not set(methods) <= set(METHODS):
        raise AutosegError("a region or method is unknown", f"regions: {', '.join(REGIONS)}; methods: {', '.join(METHODS)}")
    predictor = Predictor.load(dataset, model, [fold], device=device)
    (member,) = predictor.members
    home = dataset.fold(model, fold)
    name = registry.spec(model).cam_layer if layer == "auto" else layer
    asked = _Asked(predictor, find_layer(member.network, name), tuple(methods), region)
    known = {case.name: case for case in RawDataset.open(dataset).cases}
    held_out = read_artefact(home / "splits.json", Splits).folds[fold].validation
    chosen = list(cases) if cases else list(held_out[:_FIRST])
    gone = [f"{case}: no image in {dataset.raw}" for case in chosen if case not in known]
    if gone:
        raise SeveralProblems(
            "these cases are not in the dataset:", gone, f"held out by fold {fold}: {', '.join(held_out[:5])}"
        )
    heats: list[Heat] = []
    skipped: dict[str, str] = {}
    with atomic_directory(home / FOLDER) as folder:
        for case in chosen:
            found, left_out = _explain_case(asked, known[case], folder)
            heats += found
            skipped |= left_out
        said = Explanation(
            dataset=dataset.name,
            model=model,
            fold=fold,
            identity=member.record.identity,
            layer=name,
            heatmaps=tuple(heats),
            skipped=skipped,
        )
        write_artefact(folder / RECORD, said)
    return said


def _explain_case(asked: _Asked, case: Case, folder: Path) -> tuple[list[Heat], dict[str, str]]:
    predictor = asked.predictor
    (member,) = predictor.members
    image = read_case(case.images)
    reference = read_label(case.label).array if case.label is not None else None
    prepared = predictor.prepare(image.array, image.spacing)
    stored = prepared.arrays[0]
    if stored.shape[0] * stored.shape[1] > _MOST_PIXELS:
        raise AutosegError(f"{case.name} is too large to explain as a whole", "explain smaller images")
    labels = predictor.label_map(predictor.average([prepared])[0], prepared.size)
    inputs = _inputs(predictor, stored)
    nothing = np.zeros(prepared.size, bool)
    heats, skipped = [], {}
    for name, values in predictor.scheme.foreground.items():
        truth = np.isin(reference, values) if reference is not None else nothing
        region = truth if asked.region == "reference" else np.isin(labels, values)
        small = cv2.resize(region.astype(np.uint8), (stored.shape[1], stored.shape[0]), interpolation=cv2.INTER_NEAREST) > 0
        if not small.any():
            skipped[f"{case.name}, {name}"] = f"it has no {asked.region} region to explain"
            continue
        output = predictor.scheme.names.index(name)
        for method in asked.methods:
            found = heat_map(member.network, asked.layer, inputs.clone(), output, small, method)
            heat = cv2.resize(found, (prepared.size[1], prepared.size[0]), interpolation=cv2.INTER_LINEAR)
            picture = f"{case.name}_{name}_{method}.png"
            shown = draw_overlay(_heated(image.array, heat), labels, predictor.scheme, reference)
            write_image(folder / picture, shown.transpose(2, 0, 1))
            inside, ring, outside, width = saliency_metrics(heat.astype(np.float32), truth)
            heats.append(
                Heat(
                    case=case.name,
                    name=name,
                    method=method,
                    region=asked.region,
                    file=picture,
                    inside=inside,
                    ring=ring,
                    outside=outside,
                    ring_width=width,
                )
            )
    return heats, skipped


def _inputs(predictor: Predictor, stored: Array) -> torch.Tensor:
    """What the network sees (1, C, h, w) of a prepared image (h, w, C)."""
    values = stored if stored.dtype == np.uint8 else stored.astype(np.float32)
    batch = torch.from_numpy(values).permute(2, 0, 1)[None].to(predictor.device)
    return normalise(batch, predictor.members[0].model_plan.normalisation)


def _heated(image: Array, heat: Array) -> Array:
    """An image (C, H, W) with the heat laid over it, (3, H, W) uint8; bright is hot."""
    gray = image.astype(np.float32).mean(axis=0)
    low, high = np.percentile(gray, (0.5, 99.5))
    base = (np.clip((gray - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    # Inferno can be read with any colour vision, and in gray.
    colours = cv2.applyColorMap((np.clip(heat, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    blended = 0.5 * base[..., None] + 0.5 * colours
    return np.ascontiguousarray(blended.astype(np.uint8).transpose(2, 0, 1))
