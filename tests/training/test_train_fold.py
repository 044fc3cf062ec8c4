from __future__ import annotations

import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.inference import engine as engine_module
from autoseg.metrics.overlap import Counts
from autoseg.prediction.predictor import Predictor
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.training import checkpoint
from autoseg.training import train_fold as train_fold_module
from autoseg.training.checkpoint import load_network
from autoseg.training.run_lock import run_lock
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from autoseg.training.trainer import Trainer
from autoseg.training.validate import Validation
from tests.training import tiny
from tests.training.tiny import NAME, at_step, in_a_process, with_model, with_training

# 11 training cases in batches of 4.
STEPS = 3
LEFT = ["best.pt", "dataset.json", "last.pt", "metrics.csv", "plan.json", "progress.png", "run.json", "splits.json"]


@pytest.fixture(autouse=True)
def _as_in_the_processes(monkeypatch):
    """One thread, so that sums are made in the same order. Pictures take longer than the training: those draw them."""
    monkeypatch.setattr(Step, "__call__", Step.__call__)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("field", "name", "says"),
    [
        ("loss", "dice_cee", "there is no loss 'dice_cee'\n.*did you mean dice_ce"),
        ("optimizer", "adam", "there is no optimizer 'adam'\n.*did you mean adamw"),
        ("schedule", "cosine", "there is no schedule 'cosine'\n.*known: rex, poly"),
    ],
)
def test_unknown_name_in_a_plan_is_an_error_at_once(tmp_path, field, name, says):
    dataset, plan, splits = tiny.prepare(tmp_path)
    with pytest.raises(AutosegError, match=rf"plan.json: training.{field}: {says}"):
        train_fold(dataset, with_training(plan, **{field: name}), splits, NAME, 0, device="cpu")
    assert not folder_of(tmp_path).exists()


def of_dice(dice: float) -> Validation:
    """A validation with this Dice of the only class that is there."""
    tp = round(1000 * dice)
    return Validation.of({"disc": Counts(tp, 1000 - tp, 1000 - tp), "core": Counts(0, 0, 0)})


def folder_of(root: Path) -> Path:
    return root / "results" / "Dataset701_Discs" / NAME / "fold_0"


def same_weights(one: Path, other: Path) -> bool:
    for name in ("last.pt", "best.pt"):
        ones, others = (checkpoint.read(path / name)["state_dict"] for path in (one, other))
        if ones.keys() != others.keys() or not all(torch.equal(ones[key], others[key]) for key in ones):
            return False
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run nobody disturbed."""
    root = tmp_path_factory.mktemp("unbroken")
    code, output = in_a_process(root)
    assert code == 0, output
    return root, output


def test_results_folder_is_complete(unbroken):
    root, output = unbroken
    folder = folder_of(root)
    assert sorted(os.listdir(folder)) == LEFT
    record = read_artefact(folder / "run.json", RunRecord)
    assert (record.status, record.epochs_done, record.model, record.variant, record.fold) == ("finished", 4, NAME, "one", 0)
    assert record.class_mean_dice == pytest.approx(np.mean(list(record.dice.values()))) and set(record.dice) == {"disc", "core"}
    assert record.steps == 4 * STEPS and (record.batch_size, record.learning_rate) == (4, 0.01)
    assert record.peak_memory > 1 << 24 and record.images_per_second > 0
    assert 0 < record.epoch_seconds * 4 < record.seconds
    assert record.processor_seconds > 0
    assert record.parameters > 0 and record.versions["torch"] == torch.__version__ and len(record.identity) == 64
    assert "epoch 4/4  loss" in output and "(disc 0." in output
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4"]
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert 0 <= float(last["data_wait"]) <= 1 and float(last["seconds"]) > 0 and last["skipped"] == "0"
    column = lines[0].split(",").index("class_mean_dice")
    best = max(float(line.split(",")[column]) for line in lines[1:])
    assert best == pytest.approx(record.class_mean_dice, abs=1e-5) and record.monitor == "class_mean.dice"
    assert 0 < record.micro_iou < record.micro_dice < 1 and record.micro_dice != record.class_mean_dice


def test_network_loads_from_the_folder_alone(unbroken, tmp_path):
    root, _ = unbroken
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("best.pt", "last.pt", "plan.json", "dataset.json", "run.json"):
        (moved / name).write_bytes((folder_of(root) / name).read_bytes())
    trained = load_network(moved)
    assert not trained.network.training and trained.scheme.names == ("background", "disc", "core")
    assert trained.network(torch.zeros(1, 1, 30, 30)).shape == (1, 3, 30, 30)
    assert trained.preprocessing.size == (32, 32) and trained.record.model == NAME
    last = load_network(moved, "last").network.state_dict()
    assert all(torch.equal(last[key], value) for key, value in checkpoint.read(moved / "last.pt")["state_dict"].items())
    (moved / "best.pt").write_bytes(b"PK")
    with pytest.raises(AutosegError, match=r"best.pt is damaged.*\n.*train again"):
        load_network(moved)


# In the first epoch, before there is a checkpoint; in the middle of an epoch; at the beginning of one.
@pytest.mark.parametrize("step", [1, STEPS + 1, 3 * STEPS])
def test_resumed_run_equals_unbroken_run(unbroken, tmp_path, step):
    root, _ = unbroken
    assert in_a_process(tmp_path, signal.SIGKILL, step)[0] == -9
    folder = folder_of(tmp_path)
    assert json.loads((folder / "run.json").read_text())["status"] == "running" and (folder / "run.lock").exists()
    code, output = in_a_process(tmp_path)
    assert code == 0, output
    assert ("resuming after epoch" in output) == (step > 1)
    assert same_weights(folder, folder_of(root))
    assert sorted(os.listdir(folder)) == LEFT
    rows, expected = ((path / "metrics.csv").read_text().splitlines() for path in (folder, folder_of(root)))
    # Loss, learning rate and Dice are the same to the last digit; only the seconds differ.
    assert [row.split(",")[:6] for row in rows] == [row.split(",")[:6] for row in expected]


def test_run_killed_within_a_step_equals_unbroken_run(unbroken, tmp_path):
    """Each step has two parts: the second of the second epoch's second step."""
    root, _ = unbroken
    assert in_a_process(tmp_path, signal.SIGKILL, part=2 * (STEPS + 1) + 1)[0] == -9
    code, output = in_a_process(tmp_path)
    assert code == 0 and "resuming after epoch 1" in output
    assert same_weights(folder_of(tmp_path), folder_of(root))


@pytest.mark.parametrize(("stop_signal", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_signal_writes_a_checkpoint_within_the_epoch(unbroken, tmp_path, stop_signal, code):
    root, _ = unbroken
    assert in_a_process(tmp_path, stop_signal, STEPS + 1)[0] == code
    folder = folder_of(tmp_path)
    progress = checkpoint.read(folder / "last.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2)
    record = read_artefact(folder / "run.json", RunRecord)
    assert record.status == "stopped" and record.epochs_done == 1 and not (folder / "run.lock").exists()
    code, output = in_a_process(tmp_path)
    assert code == 0 and "resuming after epoch 1, step 2" in output
    assert same_weights(folder, folder_of(root))
    rows, expected = ((path / "metrics.csv").read_text().splitlines() for path in (folder, folder_of(root)))
    assert [row.split(",")[:6] for row in rows] == [row.split(",")[:6] for row in expected]


def test_damaged_checkpoint_falls_back_to_the_previous_one(unbroken, tmp_path):
    root, _ = unbroken
    assert in_a_process(tmp_path, signal.SIGKILL, 3 * STEPS)[0] == -9
    folder = folder_of(tmp_path)
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:1000])
    code, output = in_a_process(tmp_path)
    assert code == 0 and "last.pt is damaged" in output and "resuming after epoch 2" in output
    assert same_weights(folder, folder_of(root))


def test_finished_run_is_unchanged_and_restart_trains_again(tmp_path, monkeypatch):
    first = tiny.train(tmp_path)
    folder = folder_of(tmp_path)
    written = (folder / "last.pt").stat().st_mtime_ns
    assert tiny.train(tmp_path) == first
    assert (folder / "last.pt").stat().st_mtime_ns == written

    def die() -> None:
        raise RuntimeError("the machine went away")

    at_step(0, die)
    with pytest.raises(RuntimeError, match="went away"):
        tiny.train(tmp_path, restart=True)
    # The new run had no checkpoint yet, so the old one is back.
    assert (folder / "last.pt").stat().st_mtime_ns == written
    again = tiny.train(tmp_path, restart=True)
    assert (folder / "last.pt").stat().st_mtime_ns != written and sorted(os.listdir(folder)) == LEFT
    assert (again.class_mean_dice, again.status) == (first.class_mean_dice, "finished")


def test_run_with_other_settings_is_refused_with_the_differences(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, with_training(plan, epochs=1), splits, NAME, 0, device="cpu")
    changed = with_model(with_training(plan, epochs=2, seed=5), learning_rate=0.5)
    with pytest.raises(SeveralProblems, match=r"(?s)training.epochs: 1 -> 2.*training.seed: 0 -> 5.*--restart") as caught:
        train_fold(dataset, changed, splits, NAME, 0, device="cpu")
    assert "model.learning_rate: 0.01 -> 0.5" in caught.value.problems
    fewer = Splits(folds=(type(splits.folds[0])(splits.folds[0].train[:-1], splits.folds[0].validation),), reason="")
    with pytest.raises(SeveralProblems, match="training cases: 1 removed, 0 added"):
        train_fold(dataset, with_training(plan, epochs=1), fewer, NAME, 0, device="cpu")
    # What does not decide the weights may change.
    record = train_fold(
        dataset, with_model(with_training(plan, epochs=1, learning_rates=(1.0, 2.0)), memory=5), splits, NAME, 0, device="cpu"
    )
    assert record.status == "finished"


def test_second_run_on_a_folder_is_refused(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    with run_lock(folder_of(tmp_path)), pytest.raises(AutosegError, match=f"in use by process {os.getpid()}"):
        train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert os.listdir(folder_of(tmp_path)) == []


def test_diverged_run_ends_with_the_last_good_checkpoint(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    long = with_training(plan, epochs=20)
    at_step(4, lambda: setattr(Step, "_backward", lambda self, batch: torch.tensor(float("nan"), requires_grad=True)))
    backward = Step._backward
    try:
        with pytest.raises(AutosegError, match=r"(?s)NaN or infinite in 20 steps in a row.*learning_rate.*precision=fp32"):
            train_fold(dataset, long, splits, NAME, 0, device="cpu")
    finally:
        Step._backward = backward  # type: ignore[method-assign]
    folder = folder_of(tmp_path)
    state = checkpoint.read(folder / "last.pt")
    assert all(torch.isfinite(tensor).all() for tensor in state["state_dict"].values())
    assert read_artefact(folder / "run.json", RunRecord).status == "stopped"
    assert not (folder / "run.lock").exists()


def test_single_nan_steps_are_skipped_and_counted(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    original = Step._backward
    count = 0

    def sometimes(self, batch):
        nonlocal count
        count += 1
        loss = original(self, batch)
        return loss * float("nan") if count % 3 == 0 else loss

    Step._backward = sometimes  # type: ignore[method-assign]
    try:
        record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    finally:
        Step._backward = original  # type: ignore[method-assign]
    assert record.status == "finished" and record.steps == 4 * STEPS - 4
    assert (folder_of(tmp_path) / "metrics.csv").read_text().splitlines()[-1].split(",")[-1] == "4"


def test_early_stopping_counts_epochs_without_a_better_dice(tmp_path, monkeypatch):
    dataset, plan, splits = tiny.prepare(tmp_path)
    dices = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    monkeypatch.setattr("autoseg.training.trainer.validate", lambda *arguments: of_dice(next(dices)))
    record = train_fold(dataset, with_training(plan, epochs=30, patience=3), splits, NAME, 0, device="cpu")
    assert (record.status, record.epochs_done, record.best_epoch, record.class_mean_dice) == ("finished", 5, 2, 0.5)
    assert checkpoint.read(folder_of(tmp_path) / "best.pt")["epoch"] == 2
    # It is over: going on does not train further.
    assert train_fold(dataset, with_training(plan, epochs=30, patience=3), splits, NAME, 0, device="cpu").epochs_done == 5


@pytest.mark.parametrize(("monitor", "best"), [("class_mean.dice", 1), ("micro.dice", 2), ("micro.iou", 2)])
def test_the_monitored_average_chooses_the_epoch(tmp_path, monkeypatch, monitor, best):
    """Epoch 1 is better on the small class, epoch 2 on the large one."""
    dataset, plan, splits = tiny.prepare(tmp_path)
    small, large = Counts(9, 1, 1), Counts(900, 100, 100)
    epochs = iter([{"disc": Counts(700, 300, 300), "core": small}, {"disc": large, "core": Counts(1, 9, 9)}])
    monkeypatch.setattr("autoseg.training.trainer.validate", lambda *arguments: Validation.of(next(epochs)))
    plan = with_training(plan, epochs=2, monitor=monitor, selection="held_out")
    record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert (record.best_epoch, record.monitor) == (best, monitor)
    expected = {1: (0.8, 2 * 709 / (2 * 709 + 602)), 2: (0.5, 2 * 901 / (2 * 901 + 218))}[best]
    assert (record.class_mean_dice, record.micro_dice) == pytest.approx(expected)
    assert record.micro_iou == pytest.approx(record.micro_dice / (2 - record.micro_dice))


def test_gains_that_are_too_small_use_patience_up_but_keep_the_weights(tmp_path, monkeypatch):
    """They add up: 0.504 is more than 0.003 better than 0.5, where the patience is counted from, not than the 0.502 before."""
    dataset, plan, splits = tiny.prepare(tmp_path)
    dices = iter([0.5, 0.502, 0.504, 0.505, 0.506, 0.507, 0.9])
    monkeypatch.setattr("autoseg.training.trainer.validate", lambda *arguments: of_dice(next(dices)))
    plan = with_training(plan, epochs=30, patience=3, min_delta=0.003, monitor="micro.dice", selection="held_out")
    record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert (record.epochs_done, record.best_epoch, record.micro_dice) == (6, 6, pytest.approx(0.507))


def test_patience_counts_validations(tmp_path, monkeypatch):
    """Epochs without a validation say nothing, so they do not use the patience up."""
    dataset, plan, splits = tiny.prepare(tmp_path)
    dices = iter([0.2, 0.5, 0.4, 0.9])
    monkeypatch.setattr("autoseg.training.trainer.validate", lambda *arguments: of_dice(next(dices)))
    rare = with_training(plan, epochs=7, patience=2, validate_every=2)
    record = train_fold(dataset, rare, splits, NAME, 0, device="cpu")
    assert (record.status, record.epochs_done, record.best_epoch, record.class_mean_dice) == ("finished", 7, 7, 0.9)


@pytest.mark.parametrize(("patience", "every", "epochs"), [(3, 5, 20), (1, 4, 3), (1, 50, 2)])
def test_a_finished_run_has_weights(tmp_path, patience, every, epochs):
    dataset, plan, splits = tiny.prepare(tmp_path)
    plan = with_training(plan, epochs=epochs, patience=patience, validate_every=every, learning_rates=(1e-9,))
    record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert record.status == "finished" and record.best_epoch >= min(every, epochs)
    assert checkpoint.read(folder_of(tmp_path) / "best.pt")["epoch"] == record.best_epoch


def test_weights_lost_after_the_last_epoch_are_made_again(tmp_path, monkeypatch):
    """Killed between the last checkpoint and the end of the run, and best.pt is gone."""
    dataset, plan, splits = tiny.prepare(tmp_path)
    original = train_fold_module._RecordWriter.write

    def killed(self, status, progress):
        if status == "finished":
            raise KeyboardInterrupt
        return original(self, status, progress)

    monkeypatch.setattr(train_fold_module._RecordWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    monkeypatch.setattr(train_fold_module._RecordWriter, "write", original)
    (folder_of(tmp_path) / "best.pt").unlink()
    record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert (record.status, record.best_epoch) == ("finished", 4)
    assert checkpoint.read(folder_of(tmp_path) / "best.pt")["epoch"] == 4


def test_early_stopping_counts_on_after_resuming(tmp_path, monkeypatch):
    """Two epochs without a better Dice before it and one after it make three."""
    dataset, plan, splits = tiny.prepare(tmp_path)
    patient = with_training(plan, epochs=30, patience=3)
    monkeypatch.setattr("autoseg.training.trainer._SAVE_FRACTION", 1e3)
    dices = iter([0.2, 0.5, 0.4, 0.5, 0.3])
    monkeypatch.setattr("autoseg.training.trainer.validate", lambda *arguments: of_dice(next(dices)))

    def leave() -> None:
        raise KeyboardInterrupt

    at_step(4 * STEPS + 1, leave)
    with pytest.raises(KeyboardInterrupt):
        train_fold(dataset, patient, splits, NAME, 0, device="cpu")
    assert checkpoint.read(folder_of(tmp_path) / "last.pt")["progress"]["validations_since_best"] == 2
    record = train_fold(dataset, patient, splits, NAME, 0, device="cpu")
    assert (record.status, record.epochs_done, record.best_epoch, record.class_mean_dice) == ("finished", 5, 2, 0.5)


@pytest.mark.parametrize(("loss", "activation"), [("dice_ce", "softmax"), ("bce", "sigmoid"), ("dice_bce", "sigmoid")])
def test_validation_and_prediction_use_the_activation_of_the_loss(tmp_path, monkeypatch, loss, activation):
    """Three exclusive classes. An older record does not name the activation, but its plan names the loss."""
    seen = []
    original = engine_module.activations.probabilities

    def spying(logits, activation, scheme):
        seen.append(activation)
        return original(logits, activation, scheme)

    monkeypatch.setattr(engine_module.activations, "probabilities", spying)
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, with_training(plan, epochs=1, loss=loss), splits, NAME, 0, device="cpu")
    trained = load_network(folder_of(tmp_path))
    older = replace(trained, record=replace(trained.record, activation=""))
    for member in (trained, older):
        Predictor([member])(np.zeros((32, 32), np.uint8))
    assert len(seen) > 2 and set(seen) == {activation}


def test_worker_processes_give_the_same_weights(unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.training.trainer.use_processes", lambda device_type, cores: True)
    tiny.train(tmp_path)
    assert same_weights(folder_of(tmp_path), folder_of(unbroken[0]))


def test_last_epoch_is_always_validated(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, with_training(plan, epochs=5, validate_every=3), splits, NAME, 0, device="cpu")
    lines = (folder_of(tmp_path) / "metrics.csv").read_text().splitlines()[1:]
    assert [bool(line.split(",")[3]) for line in lines] == [False, False, True, False, True]


def test_an_ignore_label_trains_and_is_not_scored(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path, ignore=True)
    record = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    assert record.status == "finished" and set(record.dice) == {"disc", "core"}
    assert load_network(folder_of(tmp_path)).scheme.ignore == 3


@pytest.mark.parametrize(
    ("model", "fold", "output"),
    [
        ("tyni", 0, "no model 'tyni'.*\n.*tiny"),
        ("unet", 0, "does not include unet.*\n.*--models tiny,unet"),
        (NAME, 1, "no fold 1.*\n.*folds 0 to 0"),
    ],
)
def test_untrainable_request_is_an_error_before_anything_is_written(tmp_path, model, fold, output):
    dataset, plan, splits = tiny.prepare(tmp_path)
    with pytest.raises(AutosegError, match=output):
        train_fold(dataset, plan, splits, model, fold, device="cpu")
    assert not dataset.results.exists()


def test_split_that_does_not_match_the_arrays_lists_every_case(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    fold = type(splits.folds[0])(("case_00", "typo_1"), ("typo_2",))
    with pytest.raises(SeveralProblems, match="(?s)splits.json.*typo_1.*typo_2"):
        train_fold(dataset, plan, Splits(folds=(fold,), reason=""), NAME, 0, device="cpu")


def test_arrays_of_other_data_are_refused(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    other_data = Plan(**{**vars(plan), "content_hash": "another"})
    with pytest.raises(AutosegError, match="made from other images or by another plan.*\n.*plan_and_preprocess"):
        train_fold(dataset, other_data, splits, NAME, 0, device="cpu")


def test_training_keeps_the_random_state_of_the_caller(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, with_training(plan, epochs=1), splits, NAME, 0, device="cpu")
    assert torch.equal(torch.rand(2), expected)


def test_checkpoint_of_another_run_is_a_pretrained_start(tmp_path, caplog):
    dataset, plan, splits = tiny.prepare(tmp_path)
    first = train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    donor = folder_of(tmp_path) / "best.pt"
    copy = tmp_path / "donor.pt"
    copy.write_bytes(donor.read_bytes())
    short = with_training(plan, epochs=1)
    second = train_fold(dataset, short, splits, NAME, 0, device="cpu", pretrained=str(copy), restart=True)
    assert second.pretrained == str(copy) and second.identity != first.identity
    random = train_fold(dataset, short, splits, NAME, 0, device="cpu", restart=True)
    assert random.pretrained == "" and second.class_mean_dice > random.class_mean_dice


def copy_of(folder, target):
    target.mkdir()
    for name in ("best.pt", "last.pt", "plan.json", "dataset.json", "run.json", "splits.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("run.json", lambda run: run.update(identity="0" * 64), "best.pt holds the weights of another run than .*run.json"),
        ("run.json", lambda run: run.update(model="unet"), "run.json is of unet, .*plan.json of tiny"),
        ("plan.json", lambda plan: plan["models"]["tiny"].update(input_size=[64, 64]), "different are:\n  - model"),
        ("plan.json", lambda plan: plan["models"]["tiny"]["normalisation"].update(mean=[0.0]), "different are:\n  - model"),
        ("plan.json", lambda plan: plan["preprocessing"]["whole32"].update(size=[16, 16]), "different are:\n  - preparation"),
        ("plan.json", lambda plan: plan.update(content_hash="other"), "different are:\n  - prepared data"),
        ("dataset.json", lambda spec: spec["labels"].update(core=1, disc=2), "different are:\n  - labels"),
        ("plan.json", lambda plan: plan["models"]["tiny"].update(variant="three"), "no variant 'three'|different are"),
    ],
)
def test_files_of_another_run_are_told_when_a_network_is_loaded(unbroken, tmp_path, name, change, says):
    folder = copy_of(folder_of(unbroken[0]), tmp_path / "fold_0")
    load_network(folder)
    edit(folder / name, change)
    with pytest.raises(AutosegError, match=says):
        load_network(folder)


def test_splits_of_fewer_folds_are_told(unbroken, tmp_path):
    folder = copy_of(folder_of(unbroken[0]), tmp_path / "fold_0")
    assert checkpoint.read_split(folder, 0).train == tiny.CASES[:11]
    with pytest.raises(AutosegError, match="splits.json has 1 folds, but the run is of fold 4"):
        checkpoint.read_split(folder, 4)


def test_the_remaining_time_covers_the_runs_that_follow(tmp_path, caplog):
    dataset, plan, splits = tiny.prepare(tmp_path)
    with caplog.at_level("INFO", "autoseg"):
        train_fold(dataset, plan, splits, NAME, 0, device="cpu", later_epochs=4_000_000)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch")]
    assert len(lines) == 4 and all(line.endswith("left in all") for line in lines)
    assert all(float(line.split()[-5]) > 10 and line.split()[-4] == "h" for line in lines), lines


@pytest.mark.parametrize(("waited", "shown"), [(0.04, False), (0.3, True)])
def test_the_line_of_an_epoch_tells_of_waiting_only_where_it_costs(
    tmp_path, monkeypatch, caplog, waited, shown
):
    tiny.register()
    dataset, plan, splits = tiny.prepare(tmp_path)
    log_epoch = Trainer._log_epoch
    monkeypatch.setattr(
        Trainer, "_log_epoch", lambda self, row, improved: log_epoch(self, {**row, "data_wait": waited}, improved)
    )
    with caplog.at_level(logging.INFO):
        train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu")
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert lines and all(("30% waiting for data" in line) == shown for line in lines)
