"""Heat maps of a trained fold's cases, as pictures, with the fractions of heat inside and around the true region."""

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
from autoseg.io import read_case, read_label_of, write_image
from autoseg.io.raw_dataset import Case, RawDataset
from autoseg.models import registry
from autoseg.prediction.overlay import draw_overlay
from autoseg.prediction.predictor import Predictor
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.transform import image_window, place
from autoseg.schema.explanation import Explanation, HeatMap
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_directory, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import read_split

FOLDER, RECORD = "explanation", "explanation.json"
REGIONS = ("predicted", "reference")
_DEFAULT_NUM_CASES = 4
# Gradients of larger whole images would not fit into usual memory.
_MAX_PIXELS = 1 << 21
Array = NDArray[Any]


@dataclass(frozen=True)
class _Settings:
    """Settings of an explanation. region: over which the target is averaged."""

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
    """Write heat maps of every class in some cases (default: the first validation cases) to <fold>/explanation.

    layer: dotted path of a module, "auto" for the `cam_layer` of the model's spec. methods: see `cam.heat_map`. region: the
    target is the mean logit of a class inside its "predicted" or "reference" region; classes without one are listed in
    `skipped`. Raises AutosegError for an unknown layer, SeveralProblems for unknown cases.
    """
    if region not in REGIONS or not set(methods) <= set(METHODS):
        raise AutosegError("a region or method is unknown", f"regions: {', '.join(REGIONS)}; methods: {', '.join(METHODS)}")
    predictor = Predictor.load(dataset, model, [fold], device=device)
    (member,) = predictor.members
    run_folder = dataset.fold(model, fold)
    name = registry.spec(model).cam_layer if layer == "auto" else layer
    settings = _Settings(predictor, find_layer(member.network, name), tuple(methods), region)
    cases_by_name = {case.name: case for case in RawDataset.open(dataset).cases}
    validation_cases = read_split(run_folder, fold).validation
    names = list(cases) if cases else list(validation_cases[:_DEFAULT_NUM_CASES])
    missing = [f"{case}: no image in {dataset.raw}" for case in names if case not in cases_by_name]
    if missing:
        raise SeveralProblems(
            "these cases are not in the dataset:",
            missing,
            f"validation cases of fold {fold}: {', '.join(validation_cases[:5])}",
        )
    heatmaps: list[HeatMap] = []
    skipped: dict[str, str] = {}
    with atomic_directory(run_folder / FOLDER, RECORD, Explanation) as folder:
        for case in names:
            case_heatmaps, case_skipped = _explain_case(settings, cases_by_name[case], folder)
            heatmaps += case_heatmaps
            skipped |= case_skipped
        explanation = Explanation(
            dataset=dataset.name,
            model=model,
            fold=fold,
            identity=member.record.identity,
            layer=name,
            heatmaps=tuple(heatmaps),
            skipped=skipped,
        )
        write_artefact(folder / RECORD, explanation)
    return explanation


def _explain_case(settings: _Settings, case: Case, folder: Path) -> tuple[list[HeatMap], dict[str, str]]:
    predictor = settings.predictor
    (member,) = predictor.members
    image = read_case(case.images)
    reference = read_label_of(case.label, case.images, image).array if case.label is not None else None
    prepared = predictor.prepare(image.array, image.spacing)
    stored = prepared.arrays[0]
    if stored.shape[0] * stored.shape[1] > _MAX_PIXELS:
        raise AutosegError(f"{case.name} is too large for a heat map", "choose smaller images")
    labels = predictor.label_map(predictor.average([prepared])[0], prepared.size)
    inputs = _inputs(predictor, stored)
    # Where the image lies in the network's input; all of it, unless it was padded.
    padded = member.preprocessing.pad
    window = image_window(prepared.size, member.preprocessing) if padded else (slice(None), slice(None))
    empty = np.zeros(prepared.size, bool)
    heatmaps, skipped = [], {}
    for name, values in predictor.scheme.foreground.items():
        truth = np.isin(reference, values) if reference is not None else empty
        region = truth if settings.region == "reference" else np.isin(labels, values)
        small_region = _stored_region(region, stored, member.preprocessing)
        if not small_region.any():
            skipped[f"{case.name}, {name}"] = f"it has no {settings.region} region"
            continue
        output = predictor.scheme.names.index(name)
        for method in settings.methods:
            small_heat = heat_map(member.network, settings.layer, inputs.clone(), output, small_region, method)
            heat = cv2.resize(small_heat[window], (prepared.size[1], prepared.size[0]), interpolation=cv2.INTER_LINEAR)
            picture = f"{case.name}_{name}_{method}.png"
            overlay = draw_overlay(_blend(image.array, heat), labels, predictor.scheme, reference)
            write_image(folder / picture, overlay.transpose(2, 0, 1))
            inside, ring, outside, width = saliency_metrics(heat.astype(np.float32), truth)
            heatmaps.append(
                HeatMap(
                    case=case.name,
                    name=name,
                    method=method,
                    region=settings.region,
                    file=picture,
                    inside=inside,
                    ring=ring,
                    outside=outside,
                    ring_width=width,
                )
            )
    return heatmaps, skipped


def _stored_region(region: Array, stored: Array, preprocessing: PreprocessingConfig) -> Array:
    """A region (H, W) of the image on the preprocessed one, (h, w)."""

    def resize(values: Array, size: tuple[int, int]) -> Array:
        return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST))

    values = region.astype(np.uint8)
    if preprocessing.pad:
        return place(values, preprocessing, resize) > 0
    return resize(values, (stored.shape[0], stored.shape[1])) > 0


def _inputs(predictor: Predictor, stored: Array) -> torch.Tensor:
    """The network's input (1, C, h, w) for a preprocessed image (h, w, C)."""
    values = stored if stored.dtype == np.uint8 else stored.astype(np.float32)
    batch = torch.from_numpy(values).permute(2, 0, 1)[None].to(predictor.device)
    return normalise(batch, predictor.members[0].model_plan.normalisation)


def _blend(image: Array, heat: Array) -> Array:
    """An image (C, H, W) blended with its heat map, (3, H, W) uint8; bright is hot."""
    gray = image.astype(np.float32).mean(axis=0)
    low, high = np.percentile(gray, (0.5, 99.5))
    base = (np.clip((gray - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    # Inferno is readable with any colour vision and in grayscale.
    colours = cv2.applyColorMap((np.clip(heat, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    blended = 0.5 * base[..., None] + 0.5 * colours
    return np.ascontiguousarray(blended.astype(np.uint8).transpose(2, 0, 1))
