"""Label errors: objects where the reference and the out-of-fold prediction contradict each other.

The score of an error grows with the models' certainty and with the rarity of equally certain errors of the same kind and class.
If the models often miss a class, one more missed object is weak evidence (the idea of confident learning, Northcutt et al.,
JAIR 2021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from acvl_utils.morphology.morphology_helper import label_with_component_sizes
from numpy.typing import NDArray

from autoseg.audit.out_of_fold import OutOfFoldPredictions, predicted_masks
from autoseg.schema.audit import Kind
from autoseg.schema.dataset import LabelScheme

Mask = NDArray[np.bool_]
# Smaller objects, as a fraction of the image, are specks and ignored.
_MIN_OBJECT_AREA = 5e-4
_MIN_OVERLAP = 0.1  # an object is matched if at least this fraction of it is marked in the other mask
_MIN_SHIFT = 0.03  # fraction of the longer side; a smaller shift counts as a boundary error
_MIN_IOU_GAIN = 0.15  # minimal gain in IoU by moving a shifted reference


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelError:
    """where: (h, w), the disputed pixels. proposal: (h, w) predicted label values. certainty: 0 to 1. size: fraction of the
    image. other: for a wrong class, the predicted one. score: set after all cases are read.
    """

    case: str
    kind: Kind
    label: str
    where: Mask
    proposal: NDArray[Any]
    certainty: float
    size: float
    detail: str = ""
    other: str = ""
    score: float = 0.0


@dataclass
class Tally:
    """Per class, over the set: number of reference and of predicted objects, areas, and disagreement (1 - IoU)."""

    references: Counter[str]
    predictions: Counter[str]
    areas: dict[str, list[float]]
    disagreement: dict[str, list[float]]


def find_label_errors(predictions: Sequence[OutOfFoldPredictions], scheme: LabelScheme) -> list[LabelError]:
    """All label errors of a set with a score above 0.01, highest first."""
    tally = Tally(Counter(), Counter(), {}, {})
    errors = [error for one in predictions for error in _case_errors(one, scheme, tally)]
    certainties: dict[tuple[Kind, str, str], list[float]] = {}
    for one in errors:
        certainties.setdefault((one.kind, one.label, one.other), []).append(one.certainty)
    scored = [replace(one, score=_score(one, certainties, tally)) for one in errors]
    return sorted((one for one in scored if one.score > 0.01), key=lambda one: (-one.score, one.case, one.label))


def _case_errors(predictions: OutOfFoldPredictions, scheme: LabelScheme, tally: Tally) -> list[LabelError]:
    values = predicted_masks(predictions, scheme)
    proposal = _label_map(values, scheme)
    ignored = (
        predictions.reference == scheme.ignore if scheme.ignore is not None else np.zeros(predictions.reference.shape, bool)
    )
    marked = {name: np.isin(predictions.reference, member) & ~ignored for name, member in scheme.foreground.items()}
    empty = not any(mask.any() for mask in marked.values())
    errors: list[LabelError] = []
    for name in scheme.foreground:
        probability = predictions.maps[scheme.names.index(name)]
        reference, prediction = marked[name], values[name] & ~ignored
        for component in _objects(prediction):
            tally.predictions[name] += 1
            other_class = any(_fraction_inside(component, mask) > 0.5 for key, mask in marked.items() if key != name)
            if _fraction_inside(component, reference) < _MIN_OVERLAP and (scheme.regions or not other_class):
                kind: Kind = "empty_mask" if empty else "missed_object"
                errors.append(_label_error(predictions, kind, name, component, proposal, float(probability[component].mean())))
        for component in _objects(reference):
            tally.references[name] += 1
            tally.areas.setdefault(name, []).append(float(component.mean()))
            if _fraction_inside(component, prediction) < _MIN_OVERLAP:
                errors.append(_unmatched_object(predictions, scheme, name, component, proposal))
            else:
                errors.append(
                    _matched_object(
                        predictions, name, component=component, prediction=prediction, reference=reference, proposal=proposal,
                        tally=tally,
                    )
                )  # fmt: skip
    return errors


def _unmatched_object(
    predictions: OutOfFoldPredictions, scheme: LabelScheme, name: str, component: Mask, proposal: NDArray[Any]
) -> LabelError:
    """Error of a reference object without a predicted object: a wrong class or an extra object."""
    means = {key: float(predictions.maps[scheme.names.index(key)][component].mean()) for key in scheme.foreground}
    other = max((key for key in means if key != name), key=lambda key: means[key], default="")
    if other and not scheme.regions and means[other] > 0.5 * (1 - means[name]):
        certainty = max(0.0, means[other] - means[name])
        return _label_error(predictions, "wrong_class", name, component, proposal, certainty, other=other)
    foreground = means[name] if scheme.regions else sum(means.values())
    return _label_error(predictions, "extra_object", name, component, proposal, max(0.0, 1 - foreground))


def _matched_object(
    predictions: OutOfFoldPredictions, name: str, component: Mask, prediction: Mask, reference: Mask, proposal: NDArray[Any],
    tally: Tally,
) -> LabelError:  # fmt: skip
    """Error of an object in both masks: shifted if moving the reference increases the IoU enough, else boundary."""
    counterpart = np.zeros(component.shape, bool)
    for other in _objects(prediction):
        if (other & component).any():
            counterpart |= other
    counterpart &= component | ~reference
    dispute, union = component ^ counterpart, component | counterpart
    disagreement = float(dispute.sum()) / max(int(union.sum()), 1)
    tally.disagreement.setdefault(name, []).append(disagreement)
    move = _centre(counterpart) - _centre(component) if counterpart.any() else np.zeros(2)
    length = float(np.hypot(*move))
    kind: Kind = "boundary"
    detail = f"IoU {1 - disagreement:.0%}"
    if (
        length > _MIN_SHIFT * max(component.shape)
        and _iou(_shifted(component, move), counterpart) > 1 - disagreement + _MIN_IOU_GAIN
    ):
        scale = max(predictions.size) / max(component.shape)
        kind, detail = "shifted", f"a shift by ({move[0] * scale:+.0f}, {move[1] * scale:+.0f}) px (rows, columns) fits"
    return _label_error(
        predictions, kind, label=name, where=dispute | component, proposal=proposal, certainty=disagreement, detail=detail
    )


def _score(one: LabelError, certainties: Mapping[tuple[Kind, str, str], Sequence[float]], tally: Tally) -> float:
    if one.kind in ("boundary", "shifted"):
        disagreement = np.asarray(tally.disagreement[one.label])
        median = float(np.median(disagreement))
        spread = 1.4826 * float(np.median(np.abs(disagreement - median))) + 0.02
        beyond = max(0.0, (one.certainty - median) / spread - 1)
        # Half the weight for boundaries: human annotators differ there too.
        return one.certainty * (1 - float(np.exp(-beyond / 2))) * (1.0 if one.kind == "shifted" else 0.5)
    # Count only errors that are at least as certain: many uncertain ones do not make this one common.
    similar = sum(certainty >= one.certainty for certainty in certainties[one.kind, one.label, one.other])
    total = tally.predictions[one.label] if one.kind in ("missed_object", "empty_mask") else tally.references[one.label]
    rarity = 1 - min(1.0, (similar - 1) / max(total, 1))
    typical = float(np.median(tally.areas.get(one.label, [one.size])))
    weight = min(1.0, float(np.sqrt(one.size / max(typical, 1e-9))))
    return one.certainty * rarity * weight


def _label_error(
    predictions: OutOfFoldPredictions, kind: Kind, label: str, where: Mask, proposal: NDArray[Any], certainty: float,
    detail: str = "", other: str = "",
) -> LabelError:  # fmt: skip
    return LabelError(
        case=predictions.case,
        kind=kind,
        label=label,
        where=where,
        proposal=proposal,
        certainty=certainty,
        size=float(where.mean()),
        detail=detail,
        other=other,
    )


def _label_map(values: dict[str, Mask], scheme: LabelScheme) -> NDArray[Any]:
    labels = np.zeros(next(iter(values.values())).shape, np.uint16)
    paint = dict(zip(scheme.names, scheme.paint, strict=True)) if scheme.regions else {}
    for name, mask in values.items():
        labels[mask] = paint.get(name, scheme.foreground[name][0])
    return labels


def _objects(mask: Mask) -> list[Mask]:
    """The 8-connected components of a mask (H, W) bool, one mask each, without specks."""
    labelled, areas = label_with_component_sizes(mask)
    smallest = max(4.0, _MIN_OBJECT_AREA * mask.size)
    return [labelled == component for component, area in areas.items() if area >= smallest]


def _fraction_inside(part: Mask, mask: Mask) -> float:
    return float((part & mask).sum()) / max(int(part.sum()), 1)


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum()) / max(int((one | other).sum()), 1)


def _centre(mask: Mask) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(axis=0), np.float64)


def _shifted(mask: Mask, move: NDArray[np.float64]) -> Mask:
    shift = np.array([[1, 0, move[1]], [0, 1, move[0]]], np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), shift, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
