"""Measured steps: real ones, each configuration once on a machine."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import pytest
import torch

from autoseg.io.raw_dataset import read_description
from autoseg.schema.step_times import StepTimes
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from autoseg.training import step_time
from autoseg.training.config_hash import config_hash
from autoseg.training.step_time import MeasuredSteps
from tests.training import tiny
from tests.training.tiny import NAME, with_training


@pytest.fixture
def planned(tmp_path):
    dataset, plan, _ = tiny.prepare(tmp_path)
    return Workspace(tmp_path), read_description(dataset.description).label_scheme(), plan


def test_real_steps_are_measured_once(planned, monkeypatch):
    workspace, scheme, plan = planned
    steps = []
    original = step_time.Step.__call__
    monkeypatch.setattr(step_time.Step, "__call__", lambda self, *arguments: steps.append(1) or original(self, *arguments))
    timer = MeasuredSteps(workspace, scheme, "cpu")
    seconds = timer.seconds(plan, plan.models[NAME])
    assert seconds > 0 and len(steps) >= 3
    count = len(steps)
    for again in (timer, MeasuredSteps(workspace, scheme, "cpu")):
        assert again.seconds(plan, plan.models[NAME]) == seconds
    assert len(steps) == count
    stored = read_artefact(workspace.root / "step_times.json", StepTimes)
    assert list(stored.machines) == [timer.machine] and list(stored.machines[timer.machine].values()) == [seconds]
    timer.seconds(plan, replace(plan.models[NAME], variant="two"))
    assert len(steps) > count


def test_nothing_of_the_caller_changes(planned):
    workspace, scheme, plan = planned
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    MeasuredSteps(workspace, scheme, "cpu").seconds(plan, plan.models[NAME])
    assert torch.rand(1) == expected


def test_a_damaged_file_of_times_is_measured_again(planned):
    workspace, scheme, plan = planned
    (workspace.root / "step_times.json").write_text("{")
    assert MeasuredSteps(workspace, scheme, "cpu").seconds(plan, plan.models[NAME]) > 0
    assert read_artefact(workspace.root / "step_times.json", StepTimes).machines


def test_a_busy_machine_is_told_once(planned, monkeypatch, caplog):
    workspace, scheme, plan = planned
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    timer = MeasuredSteps(workspace, scheme, "cpu")
    with caplog.at_level(logging.WARNING, "autoseg"):
        timer.seconds(plan, plan.models[NAME])
        timer.seconds(plan, replace(plan.models[NAME], variant="two"))
    assert caplog.text.count("other programs use this machine") == 1


@pytest.mark.parametrize("geometry", ["patch", "resize"])
def test_patches_and_slow_batches(planned, monkeypatch, geometry):
    workspace, scheme, plan = planned
    monkeypatch.setattr(step_time, "_SLOW", 0.0)
    ((key, config),) = plan.preprocessing.items()
    plan = replace(plan, preprocessing={key: replace(config, geometry=geometry)})
    assert MeasuredSteps(workspace, scheme, "cpu").seconds(with_training(plan, loss="dice_ce"), plan.models[NAME]) > 0


def test_measured_times_do_not_change_the_identity_of_a_run(planned):
    from autoseg.planning.time_budget import Cost, expected_time
    from autoseg.schema.plan import Fold

    _, scheme, plan = planned
    model = plan.models[NAME]
    timed = replace(model, timing=expected_time(plan.training, 0.5, Cost(steps_per_epoch=3, validation=0.1), "a machine"))
    fold = Fold(("a",), ("b",))
    before = config_hash(plan, model, scheme, fold, "")
    assert config_hash(replace(plan, models={NAME: timed}, time_budget=2.0), timed, scheme, fold, "") == before
