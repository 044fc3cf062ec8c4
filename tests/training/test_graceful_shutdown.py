"""Whose signals they are: a command's training listens for them, a library's leaves them alone."""

from __future__ import annotations

import logging
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from autoseg import api
from autoseg.schema.run import RunRecord
from autoseg.support.files import read_artefact, write_artefact
from autoseg.training import checkpoint
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from tests.training import tiny
from tests.training.test_train_fold import STEPS, folder_of, same_weights

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _steps_as_they_were(monkeypatch):
    monkeypatch.setattr(Step, "__call__", Step.__call__)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def train(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny fold by `api.train`; it has no raw images to prepare or to score."""
    if not (root / "raw").exists():
        dataset, plan, splits = tiny.prepare(root)
        write_artefact(dataset.plan, plan)
        write_artefact(dataset.splits, splits)
    monkeypatch.setattr("autoseg.api.training._prepare", lambda *arguments, **options: None)
    monkeypatch.setattr("autoseg.api.training._score_fold", lambda *arguments, **options: None)
    monkeypatch.setattr("autoseg.training.trainer._SAVE_FRACTION", 1e3)
    api.train(701, tiny.NAME, [0], device="cpu", root=root)


def test_a_library_leaves_signal_handlers_untouched(tmp_path, monkeypatch):
    before, during = handlers(), []
    tiny.at_step(1, lambda: during.append(handlers()))
    train(tmp_path, monkeypatch)
    assert during == [before] and handlers() == before


def test_ctrl_c_in_a_library_is_an_ordinary_interrupt_and_the_run_resumes(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, monkeypatch)
    tiny.at_step(STEPS + 1, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(broken, monkeypatch)
    folder = folder_of(broken)
    # Nothing more was written than the checkpoint of the epoch that was complete.
    assert checkpoint.read(folder / "last.pt")["progress"]["epoch"] == 1
    assert read_artefact(folder / "run.json", RunRecord).status == "stopped" and not (folder / "run.lock").exists()
    train(broken, monkeypatch)
    assert read_artefact(folder / "run.json", RunRecord).status == "finished"
    assert same_weights(folder, folder_of(whole))


@pytest.mark.parametrize("step", [0, 1])
def test_the_times_of_an_epoch_that_was_interrupted_at_its_end_are_whole(step, tmp_path, caplog):
    """The last step of an epoch ran, was saved, and is not repeated: its time is in the checkpoint."""
    tiny.register()
    dataset, plan, splits = tiny.prepare(tmp_path)
    plan = tiny.with_model(plan, batch_size=11, accumulate=1)
    train = partial(train_fold, dataset, plan, splits, tiny.NAME, 0, device="cpu")
    tiny.at_step(step, lambda: (time.sleep(0.05), signal.raise_signal(signal.SIGTERM)))
    with pytest.raises(SystemExit):
        train(handle_signals=True)
    progress = checkpoint.read(folder_of(tmp_path) / "last.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (step, 1)
    assert progress["epoch_seconds"] > 0.05 and 0 < progress["data_seconds"] < progress["epoch_seconds"]
    with caplog.at_level(logging.INFO):
        train()
    lines = (folder_of(tmp_path) / "metrics.csv").read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[step + 1].split(","), strict=True))
    assert 0 <= float(row["data_wait"]) <= 1 and float(row["seconds"]) > 0.05
    assert all(int(number) <= 100 for number in re.findall(r"(\d+)% waiting for data", caplog.text))
