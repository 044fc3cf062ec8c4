"""--extend: a finished run is trained on, says so, and is never lost."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from autoseg.training import checkpoint, extension, train_fold
from autoseg.training.checkpoint import load_network
from autoseg.training.optim import learning_rate_at
from autoseg.training.step import Step
from autoseg.training.trainer import Trainer
from tests.training import tiny
from tests.training.test_train_fold import STEPS, folder_of, same_weights


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished run of 4 epochs."""
    tiny.train(tmp_path)
    return folder_of(tmp_path)


def extend(root: Path, epochs: int) -> RunRecord:
    dataset, _, splits = tiny.reopen(root)
    plan = extension.extended_plan(folder_of(root), epochs)
    return train_fold.train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu", extend=True)


def test_a_finished_run_goes_on_as_a_run_of_more_epochs(tmp_path, finished):
    before = read_artefact(finished / "run.json", RunRecord)
    record = extend(tmp_path, 6)
    assert (record.status, record.epochs_planned, record.epochs_done, record.extended) == ("finished", 6, 6, (4,))
    assert record.steps == 6 * STEPS and record.identity != before.identity and record.seconds > before.seconds
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    rates = [learning_rate_at(epoch * STEPS - 1, 6 * STEPS, 1e-2, "rex", STEPS) for epoch in (5, 6)]
    assert [float(row["learning_rate"]) for row in rows[4:]] == pytest.approx(rates, rel=1e-3)
    assert load_network(finished).record == record


def test_the_earlier_best_epoch_stays_the_best_unless_a_later_one_is_better(tmp_path, finished):
    old = checkpoint.read(finished / "best.pt")
    state = checkpoint.read(finished / "last.pt")
    progress = checkpoint.Progress(**{**state["progress"], "best_value": 1.0})
    states = {name: state[name] for name in ("state_dict", "optimizer", "scaler")}
    checkpoint.save_last(finished, state["identity"], states, progress, state["memory_format"])
    record = extend(tmp_path, 5)
    new = checkpoint.read(finished / "best.pt")
    assert record.best_epoch == old["epoch"] == new["epoch"]
    assert all((new["state_dict"][name] == value).all() for name, value in old["state_dict"].items())
    assert load_network(finished).record.extended == (4,)


def test_extended_twice_and_finished_already(tmp_path, finished, caplog):
    extend(tmp_path, 5)
    assert extend(tmp_path, 6).extended == (4, 5)
    before = checkpoint.read(finished / "last.pt")["progress"]
    with caplog.at_level("INFO", "autoseg"):
        assert extend(tmp_path, 6).extended == (4, 5)
    assert "is already finished" in caplog.text and checkpoint.read(finished / "last.pt")["progress"] == before


def die() -> None:
    raise RuntimeError("the machine went away")


@pytest.mark.parametrize("moment", ["before the first checkpoint", "between the checkpoints", "after one", "in an epoch"])
def test_an_interrupted_extension_goes_on(tmp_path, monkeypatch, moment):
    """Whatever was written when it was interrupted, the same command gives the weights of an unbroken one."""
    for root in (tmp_path / "broken", tmp_path / "unbroken"):
        tiny.train(root)
    extend(tmp_path / "unbroken", 6)
    with monkeypatch.context() as context:
        if moment == "before the first checkpoint":
            context.setattr(Trainer, "save", lambda trainer: die())
        elif moment == "between the checkpoints":
            context.setattr(checkpoint, "save_last", lambda *arguments: die())
        elif moment == "after one":
            context.setattr(train_fold._RecordWriter, "on_checkpoint", lambda writer, progress: die())
        else:
            context.setattr(Step, "__call__", Step.__call__)
            tiny.at_step(STEPS + 2, die)
        with pytest.raises(RuntimeError, match="the machine went away"):
            extend(tmp_path / "broken", 6)
    assert extend(tmp_path / "broken", 6).extended == (4,)
    assert same_weights(folder_of(tmp_path / "broken"), folder_of(tmp_path / "unbroken"))


def test_patience_begins_again(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    plan = tiny.with_training(plan, patience=1, epochs=20)
    record = train_fold.train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu")
    assert record.epochs_done < 20
    extended = extend(tmp_path, 21)
    assert extended.epochs_done > record.epochs_done and extended.extended == (record.epochs_done,)


def test_refused_with_a_reason(tmp_path, finished):
    folder = finished
    with pytest.raises(AutosegError, match="already has 4 epochs; --extend 4 adds none"):
        extend(tmp_path, 4)
    record = read_artefact(folder / "run.json", RunRecord)
    write_artefact(folder / "run.json", replace(record, protocol="benchmark"))
    with pytest.raises(AutosegError, match="gives every model the same epochs"):
        extend(tmp_path, 6)
    write_artefact(folder / "run.json", replace(record, status="stopped", epochs_done=2))
    with pytest.raises(AutosegError, match=r"is not finished: 2 of 4 epochs\n.*without --extend"):
        extend(tmp_path, 6)


def test_other_epochs_without_extend_name_it(tmp_path, finished):
    dataset, plan, splits = tiny.reopen(tmp_path)
    more = tiny.with_training(tiny.with_model(plan, memory_format="contiguous"), epochs=6)
    with pytest.raises(SeveralProblems, match=r"epochs: 4 -> 6\n(.|\n)*--extend 6"):
        train_fold.train_fold(dataset, more, splits, tiny.NAME, 0, device="cpu")
    extend(tmp_path, 6)
    with pytest.raises(SeveralProblems, match=r"epochs: 6 -> 4\n(.|\n)*--extend 6 goes on with this extended run"):
        tiny.train(tmp_path)
    assert read_artefact(finished / "plan.json", Plan).training.epochs == 6


def test_other_settings_are_still_refused(tmp_path, finished):
    plan = read_artefact(finished / "plan.json", Plan)
    write_artefact(finished / "plan.json", tiny.with_training(plan, seed=7))
    with pytest.raises(SeveralProblems, match=r"seed: 0 -> 7"):
        extend(tmp_path, 6)
    assert read_artefact(finished / "run.json", RunRecord).extended == ()
