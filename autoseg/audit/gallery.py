"""The findings as one page that needs no server: pictures inside, decisions by click or key, saved as a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray

from autoseg.audit.out_of_fold import OutOfFoldPredictions, predicted
from autoseg.io import Case, read_case, read_label
from autoseg.prediction.overlay import draw_overlay
from autoseg.schema.audit import Audit, AuditFinding
from autoseg.schema.dataset import LabelScheme
from autoseg.support.files import write_text

_LARGEST = 720
_QUALITY = 82


def write_gallery(
    path: Path, audit: Audit, cases: Mapping[str, Case], predictions: Mapping[str, OutOfFoldPredictions], scheme: LabelScheme
) -> None:
    """gallery.html: each finding with the image, the reference dashed and what the models say as a line."""
    environment = Environment(loader=PackageLoader("autoseg.audit"), autoescape=select_autoescape(default=True))
    items = [{"finding": one, "picture": _picture(one, cases, predictions, scheme)} for one in audit.findings]
    page = environment.get_template("gallery.html").render(
        audit=audit, items=items, ids=json.dumps([one.id for one in audit.findings])
    )
    write_text(path, page)


def _picture(
    finding: AuditFinding, cases: Mapping[str, Case], predictions: Mapping[str, OutOfFoldPredictions], scheme: LabelScheme
) -> str:
    """A JPEG as a data address."""
    case = cases[finding.case]
    assert case.label is not None
    image, reference = read_case(case.images).array, read_label(case.label).array
    labels = np.zeros(reference.shape, np.uint16)
    if finding.case in predictions:
        for name, mask in predicted(predictions[finding.case], scheme).items():
            full = cv2.resize(mask.astype(np.uint8), reference.shape[::-1], interpolation=cv2.INTER_NEAREST)
            labels[full > 0] = scheme.foreground[name][0]
    shown = _with_box(draw_overlay(image, labels, scheme, reference), finding, reference.shape)
    factor = min(1.0, _LARGEST / max(shown.shape[:2]))
    small = cv2.resize(shown, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _with_box(picture: NDArray[Any], finding: AuditFinding, size: tuple[int, ...]) -> NDArray[Any]:
    # The legend stands below the image, so the width alone tells the scale.
    scale = picture.shape[1] / size[1]
    top, left, bottom, right = (round(part * scale) for part in finding.box)
    boxed = np.ascontiguousarray(picture)
    cv2.rectangle(boxed, (left - 4, top - 4), (right + 4, bottom + 4), (255, 255, 255), 1)
    return boxed
