"""Trainings of several seeds: the spread next to the folds; all other numbers stay those of the plan's own seed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg import api
from autoseg.comparison.tables import tables
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.files import read_artefact, write_artefact


@pytest.fixture
def root(experiment, tmp_path: Path) -> Path:
    """unet has the seeds 0, 1 and 2; the scores of the last two are those of segnext and segformer."""
    root = tmp_path / "root"
    shutil.copytree(experiment.root, root)
    results = root / "results" / experiment.dataset.name
    for seed, other in ((1, "segnext"), (2, "segformer")):
        add_seed(results, seed, other)
    return root


def add_seed(results: Path, seed: int, other: str, **changes: object) -> None:
    for fold in (0, 1):
        target = results / f"unet-seed{seed}" / f"fold_{fold}"
        shutil.copytree(results / "unet" / f"fold_{fold}", target)
        plan, record = read_artefact(target / "plan.json", Plan), read_artefact(target / "run.json", RunRecord)
        write_artefact(target / "plan.json", replace(plan, training=replace(plan.training, seed=seed)))
        write_artefact(target / "run.json", replace(record, seed=seed, **changes))
        shutil.copy(results / other / f"fold_{fold}" / "validation" / "scores.json", target / "validation" / "scores.json")


def dice_of(results: Path, model: str) -> list[float]:
    paths = [results / model / f"fold_{fold}" / "validation" / "scores.json" for fold in (0, 1)]
    return [read_artefact(path, Scores).overall["micro.dice"] for path in paths]


def test_the_spread_is_that_of_the_seeds(experiment, root: Path, tmp_path: Path) -> None:
    before = api.compare("Polyps", root=experiment.root, output=tmp_path / "before", report=False).datasets[0]
    comparison = api.compare("Polyps", root=root, output=tmp_path / "out")
    (dataset,) = comparison.datasets
    (one,) = dataset.seeds
    results = root / "results" / experiment.dataset.name
    folds = {seed: dice_of(results, name) for seed, name in ((0, "unet"), (1, "segnext"), (2, "segformer"))}
    means = [np.mean(values) for values in folds.values()]
    assert (one.model, one.seeds, one.folds) == ("unet", (0, 1, 2), (0, 1))
    assert list(one.values) == pytest.approx(means) and one.mean == pytest.approx(np.mean(means))
    assert one.std == pytest.approx(np.std(means, ddof=1)) and one.std > 0
    assert one.fold_std == pytest.approx(np.mean([np.std(values, ddof=1) for values in folds.values()]))
    # Nothing else changes: seeds are no further models.
    assert str(dataset.models) == str(before.models) and str(dataset.tests) == str(before.tests)
    # The deviation over seeds stands beside that over folds, for each number, in every format.
    assert one.overall["micro.dice"] == pytest.approx(one.std)
    name = dataset.classes[0]
    paths = [sorted(results.glob(f"{model}/fold_*/*/scores.json")) for model in ("unet", "segnext", "segformer")]
    of_class = [[read_artefact(path, Scores).classes[name].pooled["dice"] for path in of_model] for of_model in paths]
    deviation = np.std(np.mean(of_class, axis=1), ddof=1)
    assert one.classes[name]["pooled.dice"] == pytest.approx(deviation)
    shown = {table.title: table for table in tables(comparison)}
    models, classes = shown[f"Models on {dataset.dataset}"], shown[f"Classes of {dataset.dataset}"]
    column = models.headings.index("mDSC, seeds")
    assert {row[0]: row[column] for row in models.rows} == {"unet": f"{100 * one.std:.1f}", "segnext": "–", "segformer": "–"}
    column = classes.headings.index("Dice, seeds")
    assert {row[:2]: row[column] for row in classes.rows}[name, "unet"] == f"{100 * deviation:.1f}"
    assert "object F1, seeds" in shown[f"Areas, borders and objects of {dataset.dataset}"].headings
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "mDSC, seeds" in text and "of unet: 3 (0, 1, 2)" in text
    assert "mDSC, seeds" in (tmp_path / "out" / "comparison.tex").read_text()
    for file in ("models", "images", "classes", "objects"):
        (header, *rows) = (tmp_path / "out" / f"comparison_{file}.csv").read_text().splitlines()
        assert ", seeds" in header and "unet" in "".join(rows)
    assert "seeds" not in (tmp_path / "before" / "comparison_models.csv").read_text()
    (table,) = [one for one in tables(comparison) if one.title.startswith("Seeds on")]
    assert table.rows[0][0] == "unet" and table.rows[0][1].count(":") == 3
    assert "the spread over several seeds of unet (3)" in dataset.conditions.lines["seeds"]
    assert "Seeds on Dataset501_Polyps" in (tmp_path / "out" / "report.html").read_text()


def test_only_folds_that_all_seeds_have_count(experiment, root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "results" / experiment.dataset.name / "unet-seed2" / "fold_1")
    (one,) = api.compare("Polyps", root=root, output=tmp_path / "out", report=False).datasets[0].seeds
    assert one.folds == (0,) and len(one.values) == 3 and np.isnan(one.fold_std)


def test_trainings_that_differ_in_more_than_the_seed_are_left_out(experiment, root: Path, tmp_path: Path, caplog) -> None:
    results = root / "results" / experiment.dataset.name
    add_seed(results, 3, "segnext", epochs_done=2)
    path = results / "unet-seed1" / "fold_0" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "learning_rate": 0.5}))
    (one,) = api.compare("Polyps", root=root, output=tmp_path / "out", report=False).datasets[0].seeds
    assert one.seeds == (0, 2)
    for name in ("unet-seed1", "unet-seed3"):
        assert f"{name} is left out: its trainings differ from those of unet in more than the seed" in caplog.text


def test_seeds_are_no_models_for_the_choice_of_the_best(experiment, root: Path) -> None:
    from autoseg.prediction.predictor import trained_models

    assert trained_models(root / "results" / experiment.dataset.name) == ("segformer", "segnext", "unet")
