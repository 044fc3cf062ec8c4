from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.schema.plan import Decision, Plan, Splits
from autoseg.schema.run import RateSearch, RateTrial, RunRecord
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import lr_search
from autoseg.training import train_fold as train_fold_module
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
    best = max(search.tried, key=lambda trial: trial.class_mean_dice)
    assert search.chosen == best.rate != 1e-9 and best.class_mean_dice > search.tried[0].class_mean_dice
    assert (search.fold, search.epochs, search.steps) == (0, 3, 3 * 3 * STEPS)
    assert search.seconds == pytest.approx(sum(trial.seconds for trial in search.tried))
    assert chosen.models[NAME].learning_rate == search.chosen
    reason = chosen.decisions[0].reason
    assert "tried on fold 0 for 3 epochs" in reason and f"{best.class_mean_dice:.3f}" in reason
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


def test_only_trials_are_deleted_for_another_search(tmp_path):
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    folder = dataset.model(NAME) / "learning_rate"
    for name in ("rate_0.1", "rate_mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "keep.txt").write_text("notes")
    shutil.copyfile(Path(__file__).parents[1] / "schema" / "samples" / "run_v1.json", folder / "rate_0.1" / "run.json")
    (folder / "rate_link").symlink_to(folder / "rate_mine")
    lr_search._start_search(dataset, NAME, "key")
    assert sorted(path.name for path in folder.iterdir()) == ["learning_rate.json", "rate_link", "rate_mine"]
    assert (folder / "rate_mine" / "keep.txt").is_file()


def test_no_search_if_the_user_set_the_rate_or_there_is_one_candidate(prepared):
    dataset, plan, _ = prepared
    overridden = Plan(**{**vars(plan), "overrides": {f"models.{NAME}.learning_rate": 0.5}})
    for without in (overridden, with_training(plan, search_epochs=0), with_training(plan, learning_rates=(0.1,))):
        assert run(prepared, plan=without) == (without, None)
    assert not dataset.results.exists()


def trial(rate: float, dice: float) -> RateTrial:
    return RateTrial(rate=rate, class_mean_dice=dice, dice={}, steps=1, seconds=1.0)


@pytest.mark.parametrize(
    ("scores", "beyond"),
    [
        ({3e-4: 0.8, 1e-4: 0.7, 5e-5: 0.6}, 9e-4),
        ({3e-4: 0.6, 1e-4: 0.7, 5e-5: 0.8}, 2.5e-5),
        ({3e-4: 0.6, 1e-4: 0.8, 5e-5: 0.7}, None),
        ({3e-4: 0.5, 1e-4: 0.5, 5e-5: 0.5}, None),
        ({3e-4: 0.0, 1e-4: 0.0}, None),
        ({3e-4: 0.8}, None),
    ],
)
def test_the_rate_beyond_the_edge(scores, beyond):
    assert lr_search.beyond_the_edge([trial(*one) for one in scores.items()], "class_mean.dice") == beyond


@pytest.mark.parametrize(("selection", "intervals"), [("held_out", {2}), ("last", {3})])
def test_trials_validate_as_the_plan_does_where_the_epoch_is_chosen(prepared, monkeypatch, selection, intervals):
    every = set()

    def trained(data: Any, plan: Plan, **options: Any) -> RunRecord:
        every.add(plan.training.validate_every)
        return _record(plan)

    monkeypatch.setattr(lr_search, "train_fold", trained)
    _, plan, _ = prepared
    run(prepared, plan=with_training(plan, selection=selection, search_epochs=12, validate_every=2))
    assert every == intervals


def test_the_monitored_average_chooses_the_rate(prepared, monkeypatch):
    """The high rate is better by the mean over classes, the low one by the counts of all classes."""

    def trained(data: Any, plan: Plan, **options: Any) -> RunRecord:
        high = plan.models[NAME].learning_rate == 1e-2
        return replace(_record(plan), class_mean_dice=0.8 if high else 0.6, micro_dice=0.7 if high else 0.9, micro_iou=0.5)

    monkeypatch.setattr(lr_search, "train_fold", trained)
    _, plan, _ = prepared
    chosen = {}
    for monitor in ("class_mean.dice", "micro.dice"):
        changed, search = run(prepared, plan=with_training(plan, learning_rates=(1e-2, 1e-3), monitor=monitor))
        assert search.monitor == monitor
        (reason,) = [one.reason for one in changed.decisions if one.subject.endswith(".learning_rate")]
        chosen[monitor] = (search.chosen, reason)
    assert chosen["class_mean.dice"][0] == 1e-2 and "by Dice (class mean): 0.01 gave 0.800" in chosen["class_mean.dice"][1]
    assert chosen["micro.dice"][0] == 1e-3 and "by mDSC: 0.01 gave 0.700, 0.001 gave 0.900" in chosen["micro.dice"][1]


def test_auto_widens_a_list_whose_edge_is_best(prepared, monkeypatch, caplog):
    """Dice grows with the rate: 0.1, one beyond 0.01, is tried too, and is said to be at the edge itself."""
    _, plan, _ = prepared
    monkeypatch.setattr(lr_search, "train_fold", lambda data, plan, **options: _record(plan))
    auto = replace(with_training(plan, learning_rates=(1e-2, 1e-3)), protocol="auto")
    with caplog.at_level("INFO", "autoseg"):
        chosen, search = run(prepared, plan=auto)
    assert [one.rate for one in search.tried] == [1e-2, 1e-3, 0.1] and search.chosen == 0.1
    assert chosen.models[NAME].learning_rate == 0.1
    assert "(1 of 2, 3 epochs each)" in caplog.text and "(2 of 2, 3 epochs each)" in caplog.text
    assert "trying 0.1 too" in caplog.text and "add 1 to training.learning_rates" in caplog.text
    # Other protocols keep to their list, and say so.
    caplog.clear()
    _, search = run(prepared, plan=with_training(plan, learning_rates=(1e-2, 1e-3)))
    assert len(search.tried) == 2 and "0.01 is at the edge of the rates" in caplog.text
    assert "add 0.1 to training.learning_rates" in caplog.text


def _record(plan: Plan) -> RunRecord:
    rate = plan.models[NAME].learning_rate
    return RunRecord(
        dataset="", model=NAME, variant="", fold=0, protocol="auto", identity="", seed=0, device="cpu", precision="fp32",
        status="finished", epochs_planned=3, class_mean_dice=0.5 + rate,
    )  # fmt: skip


def test_missing_weights_are_logged_once(prepared, monkeypatch):
    """Only the first trial logs it."""
    announce = []
    original = train_fold_module.find_weights
    monkeypatch.setattr(
        train_fold_module, "find_weights", lambda *arguments: (announce.append(arguments[-1]), original(*arguments))[1]
    )
    run(prepared)
    # The first call is the search's own, for its key.
    assert announce == [True, False, True, True]


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
    assert (search.tried[0].class_mean_dice, search.tried[0].steps, search.chosen) == (0.0, 0, 0.01)
    assert torch.isfinite(torch.tensor(search.tried[1].class_mean_dice))
