"""Metrics that are not autoseg's own, from scoring to ranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from autoseg import api
from autoseg.comparison.paired_scores import case_values
from autoseg.comparison.tables import tables
from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.io import write_label
from autoseg.metrics.rules import Metric
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import METRICS
from tests.comparison.results import make

SPEC = DatasetSpec(channel_names={"0": "R"}, labels={"background": 0, "lesion": 1}, numTraining=2, file_ending=".png")
Compute = Callable[..., float]


@pytest.fixture
def add() -> Iterator[Callable[..., None]]:
    """Adds the metric "mine" for a test."""

    def metric(compute: Compute | None, **fields: object) -> None:
        METRICS.add("mine", Metric(definition="ours", compute=compute, **fields))  # type: ignore[arg-type]

    yield metric
    METRICS.remove("mine")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Masks of two cases: `hit`, three of four pixels found, and `none`, empty in both."""
    label = np.zeros((8, 8), np.uint8)
    write_label(tmp_path / "ref" / "none.png", label)
    write_label(tmp_path / "pred" / "none.png", label)
    label[2, 2:6] = 1
    write_label(tmp_path / "ref" / "hit.png", label)
    label[2, 2] = 0
    write_label(tmp_path / "pred" / "hit.png", label)
    return tmp_path / "pred", tmp_path / "ref"


def test_metric_gets_masks_and_spacing_and_is_summarised(add: Callable[..., None], folders: tuple[Path, Path]) -> None:
    calls = []

    def compute(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]) -> float:
        calls.append((prediction.dtype, int(prediction.sum()), int(reference.sum()), spacing))
        return 7.5

    add(compute, highest=10.0)
    scores = evaluate_folders(*folders, SPEC, workers=1)
    assert calls == [(np.dtype(bool), 3, 4, (1.0, 1.0))], "not asked where the class is nowhere"
    summary = scores.classes["lesion"].per_image["mine"]
    assert (summary.mean, summary.undefined) == (7.5, 1) and "mine" not in scores.classes["lesion"].pooled
    assert scores.overall["per_image.mine"] == 7.5 and scores.definitions["mine"] == "ours"


def broken(*masks: object) -> float:
    raise ZeroDivisionError("nothing there")


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (broken, "hit: the metric mine of this program fails: ZeroDivisionError: nothing there"),
        (lambda *masks: 1.5, "hit: the metric mine of this program returns 1.5, outside its range of 0 to 1"),
        (None, "hit: the metric mine of this program fails: TypeError"),
    ],
)
def test_failing_metric_is_named(
    add: Callable[..., None], folders: tuple[Path, Path], compute: Compute | None, says: str
) -> None:
    add(compute)
    with pytest.raises(SeveralProblems, match=says):
        evaluate_folders(*folders, SPEC)


def fraction_missed(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]) -> float:
    return float((reference & ~prediction).sum() / reference.sum()) if reference.any() else math.nan


def test_lower_is_better_metric_ranks_like_dice(add: Callable[..., None], tmp_path: Path) -> None:
    """The model with the highest Dice misses least, and both rankings say so."""
    add(fraction_missed, higher_is_better=False)
    experiment = make(tmp_path, cases=10, folds=2, models=("unet", "segformer"))
    orders, shown = {}, {}
    for metric in ("dice", "mine"):
        comparison = api.compare(experiment.dataset.name, metric=metric, report=False, root=tmp_path)
        ranking = comparison.datasets[0].ranking
        assert ranking is not None
        orders[metric] = ranking.order
        shown = {table.title: table for table in tables(comparison)}
    assert orders["mine"] == orders["dice"]
    rows = shown["Models on Dataset501_Polyps"]
    column = rows.headings.index("mine of images")
    assert all(0 < float(row[column].split(" ")[0]) < 100 for row in rows.rows), "in percent"


def test_comparing_an_unscored_metric_raises(add: Callable[..., None], tmp_path: Path) -> None:
    experiment = make(tmp_path, cases=6, folds=2, models=("unet",))
    add(fraction_missed)
    with pytest.raises(AutosegError, match=r"unet on Dataset501_Polyps was scored without the metric 'mine'\n.*this program"):
        api.compare(experiment.dataset.name, metric="mine", report=False, root=tmp_path)
    with pytest.raises(AutosegError, match="did you mean mine"):
        api.compare(experiment.dataset.name, metric="minee", report=False, root=tmp_path)


@pytest.mark.parametrize(
    ("fields", "value"),
    [({}, [0.75, 1.0]), ({"highest": 5.0}, [0.75, 5.0]), ({"higher_is_better": False}, None), ({"highest": math.inf}, None)],
)
def test_correct_absence_has_the_best_value(
    add: Callable[..., None], folders: tuple[Path, Path], fields: dict[str, object], value: list[float] | None
) -> None:
    add(lambda prediction, reference, spacing: float(prediction.sum() / 4), **fields)
    scores = {case.case: case for case in evaluate_folders(*folders, SPEC).cases}
    assert case_values([scores["hit"], scores["none"]], "mine") == value
