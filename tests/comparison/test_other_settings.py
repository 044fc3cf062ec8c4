"""Another setting of the same model beside it: `--also NAME=` the results folder of a model, under another root."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg import api
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Augmentation
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from tests.comparison.results import Experiment, plan_of, write_fold


@pytest.fixture
def other(experiment: Experiment, tmp_path: Path) -> Path:
    """segformer's folds under another root, with another augmentation."""
    root = tmp_path / "other"
    shutil.copytree(experiment.root, root)
    copied = Experiment(root, replace(experiment.dataset, root=root), experiment.splits)
    spec = read_artefact(copied.dataset.description, DatasetSpec)
    plan = plan_of(copied.dataset, "segformer", spec)
    strong = Augmentation(p_jpeg=0.3, gamma=(0.5, 2.0))
    shutil.rmtree(copied.dataset.results)
    for fold in (0, 1):
        write_fold(
            copied, spec, "segformer", fold, plan=replace(plan, training=replace(plan.training, augmentation=strong)),
            seconds=99.0,
        )  # fmt: skip
    return copied.dataset.results / "segformer"


def test_two_settings_of_one_model_stand_side_by_side(experiment: Experiment, other: Path, tmp_path: Path) -> None:
    comparison = api.compare(
        "Polyps", models="segformer", also={"strong": other}, allow_unequal=True, root=experiment.root, output=tmp_path / "out"
    )
    (dataset,) = comparison.datasets
    own, strong = dataset.models
    assert (own.model, strong.model, own.family, strong.family) == ("segformer", "strong", "generalist", "generalist")
    assert strong.folds == (0, 1) and strong.cost is not None and strong.cost.training_seconds == 99.0
    assert len(dataset.tests) == 1
    # Its training is known, unlike that of masks of another program.
    assert dataset.conditions.unknown == () and "other programs" not in dataset.conditions.lines
    (note,) = [note for note in dataset.notes if note.startswith("augmentation")]
    assert "gamma 0.7 to 1.5, p_jpeg 0.0 for" in note and "gamma 0.5 to 2, p_jpeg 0.3 for strong" in note
    assert "p_noise" not in note
    assert "strong" in (tmp_path / "out" / "report.html").read_text()


def test_settings_that_differ_need_leave(experiment: Experiment, other: Path, tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="not equal"):
        api.compare("Polyps", models="segformer", also={"strong": other}, root=experiment.root, output=tmp_path / "out")


def test_a_name_that_a_model_has_is_refused(experiment: Experiment, other: Path, tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="already the name of a trained model"):
        api.compare("Polyps", also={"segformer": other}, root=experiment.root, output=tmp_path / "out")
