"""Which weights a training gives (`training.selection`), and which choices saw the scored cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg.metrics.overlap import Counts
from autoseg.schema.plan import Fold, Plan, Splits
from autoseg.schema.run import RateSearch, RunRecord, choices_text
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from autoseg.training import checkpoint, lr_search, trainer
from autoseg.training.checkpoint import load_network
from autoseg.training.selection import choices_made, training_split
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from autoseg.training.validate import Validation
from tests.training import tiny
from tests.training.tiny import CASES, NAME, with_training

INNER = CASES[:2]
Prepared = tuple[Dataset, Plan, Splits]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "__call__", Step.__call__)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    dataset, plan, splits = tiny.prepare(tmp_path)
    return dataset, plan, replace(splits, folds=tuple(replace(fold, inner=INNER) for fold in splits.folds))


def train(prepared: Prepared, selection: str, **changes: object) -> RunRecord:
    dataset, plan, splits = prepared
    return train_fold(dataset, with_training(plan, selection=selection, **changes), splits, NAME, 0, device="cpu")


def weights(prepared: Prepared, name: str, key: str = "state_dict") -> dict[str, torch.Tensor]:
    state = checkpoint.read(prepared[0].fold(NAME, 0) / name)[key]
    assert isinstance(state, dict)
    return state


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The cases of each validation. The second has the best Dice."""
    seen: list[tuple[str, ...]] = []

    def validate(engine, store, cases, scheme, on_batch, team):
        seen.append(tuple(cases))
        return Validation.of(dict.fromkeys(scheme.foreground, Counts(9, 1, 1) if len(seen) == 2 else Counts(1, 9, 9)))

    monkeypatch.setattr(trainer, "validate", validate)
    return seen


@pytest.mark.parametrize(
    ("selection", "epoch", "saw"), [("held_out", 2, ("epoch",)), ("inner", 2, ()), ("last", 4, ()), ("average", 4, ())]
)
def test_the_epoch_and_who_chose_it(prepared, scored, selection, epoch, saw):
    record = train(prepared, selection)
    assert (record.best_epoch, record.selection, record.saw_scored_cases) == (epoch, selection, saw)
    assert checkpoint.read(prepared[0].fold(NAME, 0) / "best.pt")["epoch"] == epoch
    held_out = prepared[2].folds[0].validation
    assert set(scored) == {INNER if selection == "inner" else held_out}
    assert load_network(prepared[0].fold(NAME, 0)).record == record


def test_last_gives_the_last_weights(prepared, scored):
    train(prepared, "last")
    assert equal(weights(prepared, "best.pt"), weights(prepared, "last.pt"))


def test_inner_cases_are_not_trained_on(prepared, monkeypatch):
    drawn = set()
    original = Step.__call__

    def note(step, batch, *arguments):
        drawn.update(batch.cases)
        return original(step, batch, *arguments)

    monkeypatch.setattr(Step, "__call__", note)
    train(prepared, "inner")
    assert drawn == set(prepared[2].folds[0].train) - set(INNER)


def test_the_average_lies_between_the_weights_of_the_steps(prepared, monkeypatch):
    """Checked against the rule, written once more: w <- d w + (1 - d) now, with d = (1 + n) / (10 + n)."""
    expected: dict[str, torch.Tensor] = {}
    original, count = Step.__call__, 0

    def follow(step, *arguments):
        nonlocal count
        loss = original(step, *arguments)
        decay = 0.0 if count == 0 else min(0.999, (1 + count) / (10 + count))
        for name, now in networks[0].state_dict().items():
            if now.is_floating_point():
                expected[name] = decay * expected.get(name, now) + (1 - decay) * now
        count += 1
        return loss

    networks: list[torch.nn.Module] = []
    make = trainer.weight_average
    monkeypatch.setattr(trainer, "weight_average", lambda network: (networks.append(network), make(network))[1])
    monkeypatch.setattr(Step, "__call__", follow)
    train(prepared, "average")
    best, last = weights(prepared, "best.pt"), weights(prepared, "last.pt")
    for name, value in expected.items():
        torch.testing.assert_close(best[name], value, rtol=1e-4, atol=1e-5)
    assert not equal(best, last) and best.keys() == last.keys()


@pytest.mark.parametrize("selection", ["last", "average", "inner"])
def test_a_resumed_run_gives_the_same_weights(prepared, tmp_path, monkeypatch, selection):
    dataset, plan, _ = tiny.prepare(tmp_path / "other")
    other = dataset, plan, prepared[2]
    train(prepared, selection)

    def die() -> None:
        raise RuntimeError("the machine went away")

    with monkeypatch.context() as context, pytest.raises(RuntimeError, match="went away"):
        context.setattr(Step, "__call__", Step.__call__)
        tiny.at_step(5, die)
        train(other, selection)
    train(other, selection)
    assert equal(weights(prepared, "best.pt"), weights(other, "best.pt"))


def test_without_inner_cases(prepared):
    dataset, plan, splits = prepared
    bare = replace(splits, folds=tuple(Fold(fold.train, fold.validation) for fold in splits.folds))
    with pytest.raises(AutosegError, match="no inner cases"):
        train((dataset, plan, bare), "inner")


def test_patience_without_a_choice_is_refused(prepared):
    plan = with_training(prepared[1], selection="last", patience=3)
    assert any("training.patience" in line for line in plan.problems())
    assert not any("training.patience" in line for line in with_training(plan, selection="inner").problems())


@pytest.mark.parametrize(
    ("selection", "inner", "compared", "saw"),
    [
        ("held_out", INNER, "held_out", ("epoch", "learning rate")),
        ("last", INNER, "inner", ()),
        ("last", (), "held_out", ("learning rate",)),
    ],
)
def test_learning_rates_are_compared_on_inner_cases(prepared, scored, selection, inner, compared, saw):
    dataset, plan, splits = prepared
    splits = replace(splits, folds=tuple(replace(fold, inner=inner) for fold in splits.folds))
    plan = with_training(plan, selection=selection, learning_rates=(1e-2, 1e-3), search_epochs=1)
    chosen, search = lr_search.with_searched_rate(dataset, plan, splits, NAME, device="cpu")
    assert search is not None and search.cases == compared
    assert set(scored) == {INNER if compared == "inner" else splits.folds[0].validation}
    assert ("inner cases" in chosen.decisions[-1].reason) == (compared == "inner")
    record = train_fold(dataset, chosen, splits, NAME, 0, device="cpu", search=search)
    assert record.saw_scored_cases == saw


def test_inner_cases_of_one_fold_are_scored_in_others(prepared):
    splits = Splits(
        folds=(Fold(CASES[:8], CASES[8:], CASES[:2]), Fold(CASES[2:], CASES[:2]), Fold(CASES, ("other",))), reason=""
    )
    search = RateSearch(fold=0, epochs=1, identity="", tried=(), chosen=1e-3, steps=1, seconds=1.0, cases="inner")
    plan = with_training(prepared[1], selection="last")
    assert [choices_made(plan, search, splits, fold) for fold in range(3)] == [(), ("learning rate",), ()]


THREE = Splits(folds=tuple(Fold(tuple(c for c in CASES if c not in part), part) for part in (CASES[:4], CASES[4:8], CASES[8:])),
               reason="")  # fmt: skip


def test_with_next_fold_three_sets_are_disjoint(prepared, monkeypatch):
    """The next fold's held-out cases choose and are not trained on; the fold's own are seen by nobody."""
    drawn: set[str] = set()
    original, seen = Step.__call__, []

    def note(step, batch, *arguments):
        drawn.update(batch.cases)
        return original(step, batch, *arguments)

    def validate(engine, store, cases, scheme, on_batch, team):
        seen.append(tuple(cases))
        return Validation.of(dict.fromkeys(scheme.foreground, Counts(9, 1, 1) if len(seen) == 2 else Counts(1, 9, 9)))

    monkeypatch.setattr(Step, "__call__", note)
    monkeypatch.setattr(trainer, "validate", validate)
    dataset, plan, _ = prepared
    plan = with_training(plan, selection="next_fold")
    record = train_fold(dataset, plan, THREE, NAME, 2, device="cpu")
    assert drawn == set(CASES[4:8]) and set(seen) == {CASES[:4]} and record.best_epoch == 2
    assert record.saw_scored_cases == ()
    two = Splits(folds=(Fold(CASES[4:], CASES[:4]), Fold(CASES[:4], CASES[4:])), reason="")
    with pytest.raises(AutosegError, match="next_fold, but the next of the 2 folds of discs leaves nothing to train on"):
        training_split(two, 0, "next_fold", "discs")
    with pytest.raises(AutosegError, match="nothing to choose on"):
        training_split(prepared[2], 0, "next_fold", "discs")


def test_rates_compared_on_the_next_fold_saw_only_its_scored_cases(prepared, scored):
    dataset, plan, _ = prepared
    plan = with_training(plan, selection="next_fold", learning_rates=(1e-2, 1e-3), search_epochs=2)
    chosen, search = lr_search.with_searched_rate(dataset, plan, THREE, NAME, device="cpu")
    assert search is not None and search.cases == "next_fold" and set(scored) == {CASES[4:8]}
    assert "tried on cases of the fold after 0 for 2 epochs" in chosen.decisions[-1].reason
    assert [choices_made(plan, search, THREE, fold) for fold in range(3)] == [(), ("learning rate",), ()]


def test_one_line_says_which_choices_saw_the_cases():
    assert choices_text(()) == "no choice of the training saw the scored cases"
    assert choices_text(("epoch", "learning rate")) == (
        "the epoch and the learning rate were chosen on scored cases, so the scores are optimistic"
    )
