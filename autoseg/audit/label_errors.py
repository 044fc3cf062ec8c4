"""Object by object: where a reference and what the models say of the image cannot both be right.

A contradiction weighs by how sure the models are of it, and by how seldom they contradict references of this class in this
way as surely: a class the models often miss is no evidence where they miss it once more (the thought behind confident learning,
Northcutt et al., JAIR 2021).
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

from autoseg.audit.out_of_fold import OutOfFoldPredictions, predicted
from autoseg.schema.audit import Kind
from autoseg.schema.dataset import LabelScheme

Mask = NDArray[np.bool_]
# Smaller objects, as a share of the image, are specks and no contradiction.
_SMALLEST = 5e-4
_MET = 0.1  # an object is met where this share of it, at least, is marked in the other mask
_SHIFT = 0.03  # of the longer side: less is a boundary drawn differently
_GAIN = 0.15  # in IoU, by moving the reference: then it was shifted


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelError:
    """where: (h, w), the pixels in dispute. proposal: (h, w) label values the models propose there. certainty: 0 to 1.

    other: for a wrong class, the one the models say. score: filled in when the whole set is known.
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
    """How often references and predictions met, by class, over the set: what is usual here."""

    references: Counter[str]
    predictions: Counter[str]
    areas: dict[str, list[float]]
    disagreement: dict[str, list[float]]


def find_label_errors(predictions: Sequence[OutOfFoldPredictions], scheme: LabelScheme) -> list[LabelError]:
    """All contradictions of a set, scored, highest first."""
    tally = Tally(Counter(), Counter(), {}, {})
    found = [one for each in predictions for one in _of_case(each, scheme, tally)]
    alike: dict[tuple[Kind, str, str], list[float]] = {}
    for one in found:
        alike.setdefault((one.kind, one.label, one.other), []).append(one.certainty)
    scored = [replace(one, score=_score(one, alike, tally)) for one in found]
    return sorted((one for one in scored if one.score > 0.01), key=lambda one: (-one.score, one.case, one.label))


def _of_case(predictions: OutOfFoldPredictions, scheme: LabelScheme, tally: Tally) -> list[LabelError]:
    values = predicted(predictions, scheme)
    proposal = _painted(values, scheme)
    ignored = (
        predictions.reference == scheme.ignore if scheme.ignore is not None else np.zeros(predictions.reference.shape, bool)
    )
    marked = {name: np.isin(predictions.reference, member) & ~ignored for name, member in scheme.foreground.items()}
    empty = not any(mask.any() for mask in marked.values())
    found: list[LabelError] = []
    for name in scheme.foreground:
        chance = predictions.maps[scheme.names.index(name)]
        mine, theirs = marked[name], values[name] & ~ignored
        for thing in _objects(theirs):
            tally.predictions[name] += 1
            others = any(_share(thing, mask) > 0.5 for key, mask in marked.items() if key != name)
            if _share(thing, mine) < _MET and (scheme.regions or not others):
                kind: Kind = "empty_mask" if empty else "missed_object"
                found.append(_made(predictions, kind, name, thing, proposal, float(chance[thing].mean())))
        for thing in _objects(mine):
            tally.references[name] += 1
            tally.areas.setdefault(name, []).append(float(thing.mean()))
            if _share(thing, theirs) < _MET:
                found.append(_unmet(predictions, scheme, name, thing, proposal))
            else:
                found.append(_met(predictions, name, thing=thing, theirs=theirs, mine=mine, proposal=proposal, tally=tally))
    return found


def _unmet(
    predictions: OutOfFoldPredictions, scheme: LabelScheme, name: str, thing: Mask, proposal: NDArray[Any]
) -> LabelError:
    """An object of the reference that no model sees: another class, or nothing at all."""
    means = {key: float(predictions.maps[scheme.names.index(key)][thing].mean()) for key in scheme.foreground}
    other = max((key for key in means if key != name), key=lambda key: means[key], default="")
    if other and not scheme.regions and means[other] > 0.5 * (1 - means[name]):
        certainty = max(0.0, means[other] - means[name])
        return _made(predictions, "wrong_class", name, thing, proposal, certainty, other=other)
    rest = means[name] if scheme.regions else sum(means.values())
    return _made(predictions, "extra_object", name, thing, proposal, max(0.0, 1 - rest))


def _met(
    predictions: OutOfFoldPredictions, name: str, thing: Mask, theirs: Mask, mine: Mask, proposal: NDArray[Any], tally: Tally
) -> LabelError:
    """An object both see: how differently they draw it, and whether moving it would reconcile them."""
    against = np.zeros(thing.shape, bool)
    for other in _objects(theirs):
        if (other & thing).any():
            against |= other
    against &= thing | ~mine
    dispute, whole = thing ^ against, thing | against
    amount = float(dispute.sum()) / max(int(whole.sum()), 1)
    tally.disagreement.setdefault(name, []).append(amount)
    move = _centre(against) - _centre(thing) if against.any() else np.zeros(2)
    length = float(np.hypot(*move))
    kind: Kind = "boundary"
    detail = f"they overlap by {1 - amount:.0%}"
    if length > _SHIFT * max(thing.shape) and _iou(_moved(thing, move), against) > 1 - amount + _GAIN:
        scale = max(predictions.size) / max(thing.shape)
        kind, detail = "shifted", f"moved by ({move[0] * scale:+.0f}, {move[1] * scale:+.0f}) px it would fit"
    return _made(predictions, kind, label=name, where=dispute | thing, proposal=proposal, certainty=amount, detail=detail)


def _score(one: LabelError, alike: Mapping[tuple[Kind, str, str], Sequence[float]], tally: Tally) -> float:
    if one.kind in ("boundary", "shifted"):
        known = np.asarray(tally.disagreement[one.label])
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - middle))) + 0.02
        beyond = max(0.0, (one.certainty - middle) / spread - 1)
        # Half the weight: borders differ between people too.
        return one.certainty * (1 - float(np.exp(-beyond / 2))) * (1.0 if one.kind == "shifted" else 0.5)
    # Only what is contradicted as surely counts as alike: that a class is often half seen does not excuse the rest.
    seen = sum(certainty >= one.certainty for certainty in alike[one.kind, one.label, one.other])
    total = tally.predictions[one.label] if one.kind in ("missed_object", "empty_mask") else tally.references[one.label]
    rarity = 1 - min(1.0, (seen - 1) / max(total, 1))
    typical = float(np.median(tally.areas.get(one.label, [one.size])))
    weight = min(1.0, float(np.sqrt(one.size / max(typical, 1e-9))))
    return one.certainty * rarity * weight


def _made(
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


def _painted(values: dict[str, Mask], scheme: LabelScheme) -> NDArray[Any]:
    labels = np.zeros(next(iter(values.values())).shape, np.uint16)
    paint = dict(zip(scheme.names, scheme.paint, strict=True)) if scheme.regions else {}
    for name, mask in values.items():
        labels[mask] = paint.get(name, scheme.foreground[name][0])
    return labels


def _objects(mask: Mask) -> list[Mask]:
    """The 8-connected components of a mask (H, W) bool, each as a mask, without specks."""
    labelled, areas = label_with_component_sizes(mask)
    smallest = max(4.0, _SMALLEST * mask.size)
    return [labelled == component for component, area in areas.items() if area >= smallest]


def _share(part: Mask, whole: Mask) -> float:
    return float((part & whole).sum()) / max(int(part.sum()), 1)


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum()) / max(int((one | other).sum()), 1)


def _centre(mask: Mask) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(axis=0), np.float64)


def _moved(mask: Mask, move: NDArray[np.float64]) -> Mask:
    shift = np.array([[1, 0, move[1]], [0, 1, move[0]]], np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), shift, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
