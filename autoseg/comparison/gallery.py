"""Pictures of best, median and worst cases: the image with the reference's contour, and with count model's."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.comparison.paired_scores import dice_of_cases
from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.io import read_case, read_label_of
from autoseg.io.raw_dataset import Case, RawDataset
from autoseg.prediction.overlay import draw_overlay
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError

# Wide enough to judge a contour when enlarged.
_WIDTH, _JPEG_QUALITY, _CASES_PER_KIND = 720, 80, 3


@dataclass(frozen=True)
class Picture:
    """One picture. caption: below the picture. text: alternative text. data: a JPEG as a data URI. model: whose mask it shows,
    "" for the reference."""

    caption: str
    text: str
    data: str
    model: str = ""


@dataclass(frozen=True)
class GalleryRow:
    """One case. kind: "best", "median" or "worst" by the mean Dice of all models."""

    kind: str
    case: str
    dice: float
    pictures: tuple[Picture, ...]


def gallery(dataset_results: DatasetResults, cases_per_kind: int = _CASES_PER_KIND) -> tuple[GalleryRow, ...]:
    """Rows of pictures, of the cases that all models have; empty if the raw images are missing."""
    by_model = {name: dice_of_cases(model) for name, model in dataset_results.models.items()}
    common = set.intersection(*(set(one) for one in by_model.values()))
    means = {case: sum(one[case] for one in by_model.values()) / len(by_model) for case in common}
    raw = _raw_cases(dataset_results)
    order = sorted((case for case in means if case in raw), key=lambda case: (-means[case], case))
    scheme = dataset_results.spec.label_scheme()
    return tuple(
        GalleryRow(kind, case, means[case], tuple(_pictures(dataset_results.models.values(), by_model, raw[case], scheme)))
        for kind, cases in _select_cases(order, cases_per_kind)
        for case in cases
    )


def examples(dataset_results: DatasetResults, model: str) -> tuple[tuple[str, Picture], ...]:
    """Best, median and worst case of one model by its own Dice, as it segments them: (kind and case, picture)."""
    one = dataset_results.models[model]
    dice, raw = dice_of_cases(one), _raw_cases(dataset_results)
    order = sorted((case for case in dice if case in raw), key=lambda case: (-dice[case], case))
    scheme = dataset_results.spec.label_scheme()
    shown = []
    for kind, cases in _select_cases(order, 1) if order else ():
        for case in cases:
            pictures = _pictures([one], {model: dice}, raw[case], scheme)
            shown += [(f"{kind}: {case}", picture) for picture in pictures if picture.model]
    return tuple(shown)


def _raw_cases(dataset_results: DatasetResults) -> dict[str, Case]:
    """Empty if the raw images are missing."""
    try:
        return {case.name: case for case in RawDataset.open(dataset_results.dataset).cases}
    except AutosegError:
        return {}


def _select_cases(order: Sequence[str], count: int) -> list[tuple[str, Sequence[str]]]:
    """(kind, cases) of best, median and worst cases; no case appears twice."""
    count = min(count, len(order) // 3) or min(1, len(order))
    middle = max(count, len(order) // 2 - count // 2)
    parts = [
        ("best", order[:count]),
        ("median", order[middle : middle + count]),
        ("worst", order[max(count, len(order) - count) :]),
    ]
    used: set[str] = set()
    groups: list[tuple[str, Sequence[str]]] = []
    for kind, cases in parts:
        groups.append((kind, [case for case in cases if case not in used]))
        used |= set(cases)
    return groups


def _pictures(
    models: Iterable[ModelResults], by_model: dict[str, dict[str, float]], case: Case, scheme: LabelScheme
) -> Iterator[Picture]:
    if case.label is None:
        return
    whole = read_case(case.images)
    image, reference = whole.array, read_label_of(case.label, case.images, whole).array
    alone = draw_overlay(image, reference, scheme, legend=False)
    yield Picture("reference", f"{case.name} with the reference's contour", _encode(alone))
    for model in models:
        path = model.mask_of(case.name)
        if path is not None:
            picture = draw_overlay(image, read_label_of(path, case.images, whole).array, scheme, reference, legend=False)
            dice = f"Dice {by_model[model.model][case.name]:.3f}"
            text = f"{case.name} with the mask of {model.model}: {dice}"
            yield Picture(f"{model.model}, {dice}", text, _encode(picture), model.model)


def encode_file(path: Path) -> str:
    """A picture file as a small JPEG in a data URI; "" if it cannot be read."""
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return _encode(picture[..., ::-1]) if picture is not None else ""


def _encode(picture: NDArray[Any]) -> str:
    height = max(1, round(picture.shape[0] * _WIDTH / picture.shape[1]))
    small = cv2.resize(picture, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    encoded_ok, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert encoded_ok
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
