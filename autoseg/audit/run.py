"""The audit: out-of-fold predictions, label errors and conflicting duplicates to audit.json, suggestions and the gallery."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask_npwhere
from numpy.typing import NDArray

from autoseg.audit.gallery import write_gallery
from autoseg.audit.label_errors import LabelError, find_label_errors
from autoseg.audit.out_of_fold import OutOfFoldPredictions, find_models, out_of_fold_predictions, predicted_masks, select_models
from autoseg.io import Case, read_label_of, write_label
from autoseg.io.raw_dataset import RawDataset
from autoseg.metrics.overlap import counts
from autoseg.metrics.rules import is_defined
from autoseg.schema.audit import Audit, AuditFinding
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.fingerprint import Fingerprint
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import atomic_directory, hash_file, read_artefact, write_artefact
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

RECORD, GALLERY, SUGGESTIONS = "audit.json", "gallery.html", "suggestions"
UNCHANGED = 65535
_REASONS = {
    "missed_object": "the models predict {label} here (mean probability {certainty:.2f}); the reference does not mark it",
    "empty_mask": "the reference is empty; the models predict {label} here (mean probability {certainty:.2f})",
    "extra_object": "the reference marks {label} here; the models' mean probability is {rest:.2f}",
    "wrong_class": "the reference marks {label}, the models predict {other} (difference in mean probability {certainty:.2f})",
    "shifted": "the reference of {label} is shifted against the prediction: {detail}",
    "boundary": "the outline of {label} differs from the prediction: {detail}",
}


def audit(
    dataset: Dataset,
    models: Sequence[str] | None = None,
    output: Path | None = None,
    max_findings: int = 100,
    device: str = "auto",
) -> Audit:
    """Write audit.json, suggestions/ and gallery.html into `output` (default: results/<dataset>/audit).

    models: only these; by default those of `select_models`. max_findings: number of label errors to keep. Raises AutosegError
    if no model has held-out predictions, SeveralProblems for unknown models.
    """
    available = find_models(dataset)
    unknown = [name for name in models or () if name not in available]
    if unknown:
        raise SeveralProblems(f"these models have no held-out predictions on {dataset.name}:", unknown, ", ".join(available))
    chosen = {name: available[name] for name in models} if models else select_models(available)
    raw = RawDataset.open(dataset)
    cases = {case.name: case for case in raw.cases if case.label is not None}
    predictions = out_of_fold_predictions(dataset, cases, raw.scheme, chosen, device)
    errors = find_label_errors(predictions, raw.scheme)
    ranked: dict[str, float] = {}
    folder = output or dataset.results / "audit"
    with atomic_directory(folder, RECORD, Audit) as temporary:
        findings = [_finding(temporary, one, predictions, number) for number, one in enumerate(errors[:max_findings])]
        findings += _duplicates(dataset, cases, predictions, raw.scheme)
        findings.sort(key=lambda one: (-one.score, one.id))
        for one in findings:
            ranked.setdefault(one.case, one.score)
        references = {case.name: hash_file(case.label) for case in cases.values() if case.label is not None}
        result = Audit(
            dataset=dataset.name, models=tuple(chosen), cases=ranked, findings=tuple(findings), references=references
        )
        write_artefact(temporary / RECORD, result)
        write_gallery(temporary / GALLERY, result, cases, {one.case: one for one in predictions}, raw.scheme)
    counted = f"{len(findings)} findings in {len(ranked)} of {len(predictions)} cases"
    logger.info(f"{dataset.name}: {counted}; look at {folder / GALLERY}")
    return result


def _finding(folder: Path, one: LabelError, predictions: Sequence[OutOfFoldPredictions], number: int) -> AuditFinding:
    size = next(each.size for each in predictions if each.case == one.case)
    name = f"{SUGGESTIONS}/{number:04d}.png"
    patch = np.where(one.where, one.proposal, UNCHANGED).astype(np.uint16)
    write_label(folder / name, cv2.resize(patch, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))
    reason = _REASONS[one.kind].format(
        label=one.label, certainty=one.certainty, rest=1 - one.certainty, other=one.other, detail=one.detail
    )
    score = round(min(one.score, 1.0), 4)
    return AuditFinding(
        id=f"{number:04d}",
        case=one.case,
        kind=one.kind,
        label=one.label,
        score=score,
        reason=reason,
        box=_box(one.where, size),
        suggestion=name,
    )


def _box(where: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in an image of `size` around a mask (h, w); bottom and right are exclusive."""
    (top, bottom), (left, right) = get_bbox_from_mask_npwhere(where)
    down, across = size[0] / where.shape[0], size[1] / where.shape[1]
    return int(top * down), int(left * across), int(bottom * down), int(right * across)


def _duplicates(
    dataset: Dataset, cases: dict[str, Case], predictions: Sequence[OutOfFoldPredictions], scheme: LabelScheme
) -> Iterator[AuditFinding]:
    """Findings for duplicate images with different masks: the case whose mask agrees less with the prediction."""
    if not dataset.fingerprint.is_file():
        return
    predicted = {one.case: predicted_masks(one, scheme) for one in predictions}
    fingerprint = read_artefact(dataset.fingerprint, Fingerprint)
    groups = [one.cases for one in fingerprint.findings if one.kind in ("exact_duplicate", "near_duplicate")]
    for number, group in enumerate(groups):
        masks = {case: _thumbnail(cases[case]) for case in group if case in cases}
        pairs = [(a, b) for place, a in enumerate(masks) for b in list(masks)[place + 1 :]]
        for a, b in pairs:
            dice = _mean_dice(masks[a], masks[b], scheme)
            if dice > 0.8:
                continue
            worse, other = sorted((a, b), key=lambda case: _agreement(case, predictions, predicted, scheme))
            reason = f"{a} and {b} show the same image; their masks have Dice {dice:.0%}. "
            reason += f"{worse} agrees less with the models than {other}"
            box = (0, 0, *next((one.size for one in predictions if one.case == worse), (1, 1)))
            name = f"d{number:03d}_{a}_{b}"
            yield AuditFinding(
                id=name,
                case=worse,
                kind="conflicting_duplicates",
                label="",
                score=round(1 - dice, 4),
                reason=reason,
                box=box,
                suggestion="",
            )


def _agreement(case: str, predictions: Sequence[OutOfFoldPredictions], predicted: Any, scheme: LabelScheme) -> float:
    one = next((each for each in predictions if each.case == case), None)
    if one is None:
        return 0.0
    labels = np.zeros(one.reference.shape, np.int64)
    for name, mask in predicted[case].items():
        labels[mask] = scheme.foreground[name][0]
    return _mean_dice(one.reference, labels, scheme)


def _thumbnail(case: Case) -> NDArray[Any]:
    assert case.label is not None
    return cv2.resize(
        read_label_of(case.label, case.images).array.astype(np.uint16), (128, 128), interpolation=cv2.INTER_NEAREST
    )


def _mean_dice(one: NDArray[Any], other: NDArray[Any], scheme: LabelScheme) -> float:
    """Mean Dice over the classes in either mask; 1 if both are empty."""
    dice = [each.dice for each in counts(one, other, scheme.foreground).values() if is_defined(each.dice)]
    return sum(dice) / len(dice) if dice else 1.0
