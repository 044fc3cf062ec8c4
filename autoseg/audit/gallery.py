"""gallery.html: all findings as one page without a server, with embedded pictures. The page saves the decisions as a file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray

from autoseg.audit.out_of_fold import OutOfFoldPredictions, predicted_masks
from autoseg.io import Case, read_case, read_label_of
from autoseg.prediction.overlay import draw_overlay
from autoseg.schema.audit import Audit, AuditFinding
from autoseg.schema.dataset import LabelScheme
from autoseg.support.files import write_text

_MAX_SIDE = 720
_JPEG_QUALITY = 82


def write_gallery(
    path: Path, audit: Audit, cases: Mapping[str, Case], predictions: Mapping[str, OutOfFoldPredictions], scheme: LabelScheme
) -> None:
    """Write the page: each finding with its image, the reference (dashed) and the prediction (solid)."""
    environment = Environment(loader=PackageLoader("autoseg.audit"), autoescape=select_autoescape(default=True))
    items = [{"finding": one, "picture": _picture(one, cases, predictions, scheme)} for one in audit.findings]
    page = environment.get_template("gallery.html").render(
        audit=audit, items=items, ids=[one.id for one in audit.findings]
    )
    write_text(path, page)


def _picture(
    finding: AuditFinding, cases: Mapping[str, Case], predictions: Mapping[str, OutOfFoldPredictions], scheme: LabelScheme
) -> str:
    """The picture of a finding: a JPEG as a data URI."""
    case = cases[finding.case]
    assert case.label is not None
    whole = read_case(case.images)
    image, reference = whole.array, read_label_of(case.label, case.images, whole).array
    labels = np.zeros(reference.shape, np.uint16)
    if finding.case in predictions:
        for name, mask in predicted_masks(predictions[finding.case], scheme).items():
            full = cv2.resize(mask.astype(np.uint8), reference.shape[::-1], interpolation=cv2.INTER_NEAREST)
            labels[full > 0] = scheme.foreground[name][0]
    overlay = _with_box(draw_overlay(image, labels, scheme, reference), finding, reference.shape)
    factor = min(1.0, _MAX_SIDE / max(overlay.shape[:2]))
    small = cv2.resize(overlay, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    encoded_ok, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert encoded_ok
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _with_box(picture: NDArray[Any], finding: AuditFinding, size: tuple[int, ...]) -> NDArray[Any]:
    # The legend is below the image, so only the width gives the scale.
    scale = picture.shape[1] / size[1]
    top, left, bottom, right = (round(part * scale) for part in finding.box)
    boxed = np.ascontiguousarray(picture)
    cv2.rectangle(boxed, (left - 4, top - 4), (right + 4, bottom + 4), (255, 255, 255), 1)
    return boxed
