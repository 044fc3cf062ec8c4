"""Calibration of stored probabilities in a comparison: means over folds, a table, a diagram."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg import api
from autoseg.comparison.tables import tables
from autoseg.schema.scores import Calibration, Scores
from autoseg.support.files import read_artefact, write_artefact

_TITLE = "Reliability near the foreground"


def _calibration(error: float) -> Calibration:
    """Two bins in use: 0.55 sure, 0.95 sure; both right less often by `error`."""
    values = [math.nan] * 15
    confidence, accuracy, share = list(values), list(values), [0.0] * 15
    for number, sure, pixels in ((8, 0.55, 0.25), (14, 0.95, 0.75)):
        confidence[number], accuracy[number], share[number] = sure, sure - error, pixels
    bins = tuple(confidence), tuple(accuracy), tuple(share)
    return Calibration(
        ece=error / 10, brier=0.01, cases=3, confidence=bins[0], accuracy=bins[1], share=bins[2], near_ece=error,
        near_brier=0.2, near_confidence=bins[0], near_accuracy=bins[1], near_share=bins[2],
    )  # fmt: skip


def test_probabilities_are_compared_where_they_are_stored(experiment, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(experiment.root, root)
    where = {"root": root, "output": tmp_path / "out"}
    (before,) = api.compare("Polyps", **where).datasets
    assert not any(result.calibrations for result in before.models)
    assert _TITLE not in (tmp_path / "out" / "report.html").read_text()
    for number, path in enumerate(sorted(root.glob("results/*/unet/fold_*/validation/scores.json"))):
        write_artefact(path, replace(read_artefact(path, Scores), calibration=_calibration(0.1 * (number + 1))))
    comparison = api.compare("Polyps", **where)
    results = {result.model: result for result in comparison.datasets[0].models}
    folds = len(results["unet"].folds)
    assert results["unet"].calibrations["near_ece"] == pytest.approx(0.1 * (folds + 1) / 2)
    assert results["unet"].calibration == pytest.approx(0.01 * (folds + 1) / 2) and results["segformer"].calibrations == {}
    (table,) = [one for one in tables(comparison) if one.title.startswith("Calibration on")]
    assert [row[0] for row in table.rows] == ["unet"] and table.rows[0][4] == "0.2000"
    page = (tmp_path / "out" / "report.html").read_text()
    assert _TITLE in page and "ECE near the foreground" in page
