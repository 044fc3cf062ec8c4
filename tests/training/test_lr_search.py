from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from autoseg.schema.plan import Decision, Plan, Splits
from autoseg.schema.run import RateSearch, RunRecord
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import lr_search
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from tests.training import tiny
from tests.training.tiny import NAME, at_step, with_training

RATES = (1e-9, 1e-2, 1e-3)
STEPS = 3


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(Step, "__call__", Step.__call__)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda *arguments: None)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Dataset, Plan, Splits]:
    dataset, plan, splits = tiny.prepare(tmp_path)
    decisions = (Decision(f"models.{NAME}.learning_rate", "0.01", "planned"),)
    return dataset, Plan(**{**vars(with_training(plan, learning_rates=RATES, search_epochs=3)), "decisions": decisions}), splits


def run(prepared, **options):
    dataset, plan, splits = prepared
    return lr_search.with_searched_rate(dataset, options.pop("plan", plan), splits, NAME, device="cpu", **options)


def test_best_candidate_is_used_and_trials_are_saved(prepared):
    dataset, _, splits = prepared
    chosen, search = run(prepared)
    assert [trial.rate for trial in search.tried] == list(RATES)
    best = max(search.tried, key=lambda trial: trial.best_dice)
    assert search.chosen == best.rate != 1e-9 and best.best_dice > search.tried[0].best_dice
    assert (search.fold, search.epochs, search.steps) == (0, 3, 3 * 3 * STEPS)
    assert search.seconds == pytest.approx(sum(trial.seconds for trial in search.tried))
    assert chosen.models[NAME].learning_rate == search.chosen
    reason = chosen.decisions[0].reason
    assert "tried on fold 0 for 3 epochs" in reason and f"{best.best_dice:.3f}" in reason
    folder = dataset.results / NAME / "learning_rate"
    assert read_artefact(folder / "learning_rate.json", RateSearch) == search
    for rate in RATES:
        files = sorted(os.listdir(folder / f"rate_{rate:g}"))
        assert "metrics.csv" in files and "run.json" in files and not [name for name in files if name.endswith(".pt")]
    train_fold(dataset, chosen, splits, NAME, 0, device="cpu", search=search)
    record = read_artefact(dataset.fold(NAME, 0) / "run.json", RunRecord)
    assert record.search == search and record.learning_rate == search.chosen


def test_search_is_repeated_only_when_its_inputs_change(prepared):
    _, plan, _ = prepared
    _, first = run(prepared)
    at_step(0, lambda: pytest.fail("it trains again"))
    assert run(prepared)[1] == first
    # What the folds are trained with besides does not decide the search.
    assert run(prepared, plan=with_training(plan, epochs=7, patience=2))[1] == first
    Step.__call__ = _original  # type: ignore[method-assign]
    _, second = run(prepared, plan=with_training(plan, search_epochs=1))
    assert second.identity != first.identity and second.steps == 3 * STEPS


_original = Step.__call__


def test_interrupted_search_keeps_finished_trials(prepared):
    dataset, _, _ = prepared

    def die() -> None:
        raise RuntimeError("the machine went away")

    at_step(3 * STEPS + 2, die)
    with pytest.raises(RuntimeError, match="went away"):
        run(prepared)
    Step.__call__ = _original  # type: ignore[method-assign]
    assert lr_search.read_search(dataset, NAME) is None
    done = dataset.results / NAME / "learning_rate" / "rate_1e-09" / "last.pt"
    before = done.stat().st_mtime_ns
    counted = []
    monitor = Step.__call__

    def counting(self, *arguments):
        counted.append(1)
        return monitor(self, *arguments)

    Step.__call__ = counting  # type: ignore[method-assign]
    assert done.stat().st_mtime_ns == before
    run(prepared)
    assert len(counted) <= 2 * 3 * STEPS and lr_search.read_search(dataset, NAME) is not None


def test_no_search_if_the_user_set_the_rate_or_there_is_one_candidate(prepared):
    dataset, plan, _ = prepared
    overridden = Plan(**{**vars(plan), "overrides": {f"models.{NAME}.learning_rate": 0.5}})
    for without in (overridden, with_training(plan, search_epochs=0), with_training(plan, learning_rates=(0.1,))):
        assert run(prepared, plan=without) == (without, None)
    assert not dataset.results.exists()


def test_diverging_rate_counts_as_dice_zero(prepared):
    _, plan, _ = prepared
    backward = Step._backward
    steps = 0

    def bad_at_first(self, batch):
        nonlocal steps
        steps += 1
        loss = backward(self, batch)
        return loss * float("nan") if steps <= 20 else loss

    Step._backward = bad_at_first  # type: ignore[method-assign]
    try:
        _, search = run(prepared, plan=with_training(plan, search_epochs=8, learning_rates=(0.05, 0.01)))
    finally:
        Step._backward = backward  # type: ignore[method-assign]
    assert (search.tried[0].best_dice, search.tried[0].steps, search.chosen) == (0.0, 0, 0.01)
    assert torch.isfinite(torch.tensor(search.tried[1].best_dice))
