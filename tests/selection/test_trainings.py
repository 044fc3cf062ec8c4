"""A selection with real trainings of networks of eight weights, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg import api
from autoseg.api.training import train_trial
from autoseg.io import read_label
from autoseg.runner.jobs import JobOptions, is_done
from autoseg.schema.plan import Plan
from autoseg.schema.runner import GridTable, Job, JobRow
from autoseg.selection import ladder
from autoseg.support.files import read_artefact
from tests.selection import world


def train_here(jobs: Sequence[Job], job_options: JobOptions, engine: Any, **options: Any) -> GridTable:
    rows = []
    for job in jobs:
        if not is_done(job_options.root, job):
            train_trial(job.dataset, job.model, job.fold, job.trial, device="cpu", root=job_options.root)
        assert is_done(job_options.root, job)
        rows.append(JobRow(job=job, state="done", attempts=1, seconds=60.0))
    return GridTable(engine="here", host="here", pid=1, updated="", rows=tuple(rows))


def test_a_selection_ends_in_masks(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.register()
    world.known_times(monkeypatch)
    monkeypatch.setattr("autoseg.runner.scheduler.run_jobs", train_here)
    monkeypatch.setattr("autoseg.selection.trials.image_seconds", lambda record: world.STEP[record.model] / 8)
    monkeypatch.setattr(ladder, "_CANDIDATES", 2)
    monkeypatch.setattr(ladder, "_OF_A_MODEL", 1)
    root = world.copy(planned, tmp_path)
    (selection,) = api.select("Lesion", hours=0.1, models=["fast_net", "good_net"], device="cpu", root=root)
    data = world.dataset(root)
    # good_net begins near the level that divides lesion from skin, fast_net far from it.
    assert selection.candidate(selection.recommended).model == "good_net"
    winner = selection.confirmed_as("winner")
    assert winner is not None and winner.value.mean > 0.3 and winner.cases == 9
    lengths = {rung.level: {one.steps for one in rung.tried} for rung in selection.rungs}
    assert max(lengths[0]) < max(lengths[1]) < max(lengths[2])
    assert 0 < selection.overhead_seconds < 60 * len(selection.job_seconds)
    # Folds are whole and complete, and the plan says what it is.
    plan = read_artefact(data.fold(winner.run, 0) / "plan.json", Plan)
    assert list(plan.models) == ["good_net"] and plan.training.selection == "last"
    assert any("autoseg_select" in decision.reason for decision in plan.decisions)

    report = api.predict(data.raw / "imagesTr", tmp_path / "masks", dataset="Lesion", model="best", device="cpu", root=root)
    assert report.record.models == ("good_net",) and len(report.record.folds) == world.FOLDS
    some = read_label(next((tmp_path / "masks").glob("*.png"))).array
    assert set(np.unique(some)) == {0, 1}
    best = api.find_best("Lesion", device="cpu", root=root)
    assert {name for one in best.candidates for name in one.models} == {one.run for one in selection.confirmed}
    comparison = api.compare("Lesion", allow_unequal=True, root=root)
    assert {one.model for one in comparison.datasets[0].models} == {one.run for one in selection.confirmed}
    assert {one.family for one in comparison.datasets[0].models} == {"generalist", "specialist"}


def test_missing_weights_are_named_with_a_command_for_the_models_of_the_selection(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The dataset's own plan has other models."""
    world.register()
    monkeypatch.setattr("autoseg.training.step_time._measure", lambda plan, model, scheme, device: 0.01)
    jobs = world.Jobs()
    jobs.stop_after = 0
    monkeypatch.setattr("autoseg.runner.scheduler.run_jobs", jobs)
    caplog.set_level("INFO", logger="autoseg")
    with pytest.raises(KeyboardInterrupt):
        api.select("Lesion", hours=1.0, models=["segformer"], device="cpu", root=world.copy(planned, tmp_path))
    (line,) = [record.message for record in caplog.records if "published weights are missing" in record.message]
    assert "autoseg_weights fetch segformer:" in line and "--plan" not in line
