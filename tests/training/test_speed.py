from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg.io.raw_dataset import read_description
from autoseg.preprocessing.store import Store
from autoseg.preprocessing.store import identity as store_identity
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.schema.speed import Timing
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from autoseg.training import checkpoint, speed
from autoseg.training.checkpoint import load_network
from autoseg.training.fold import train_fold
from autoseg.training.step import Step
from autoseg.training.trainer import Task
from tests.training import tiny
from tests.training.test_fold import folder_of, same_weights
from tests.training.tiny import NAME, with_model, with_training

CPU = torch.device("cpu")


class Clock:
    """Stands still but for training steps, which take what `costs` says of their memory format."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **costs: float) -> None:
        self.now, self.steps = 0.0, []
        original = Step.__call__

        def counted(step: Step, *arguments):
            form = "channels_last" if step._format == torch.channels_last else "contiguous"
            self.now += costs[form]
            self.steps.append(form)
            return original(step, *arguments)

        monkeypatch.setattr(Step, "__call__", counted)
        monkeypatch.setattr(speed, "_CLOCKS", (self, self))

    def __call__(self) -> float:
        return self.now


def task_of(root: Path, **changes) -> Task:
    dataset, plan, splits = tiny.prepare(root)
    plan = with_model(plan, memory_format="auto", **changes)
    model_plan = plan.models[NAME]
    preparation = plan.preparations[model_plan.preparation]
    store = Store.open(dataset.store(preparation.key), store_identity(preparation, plan.content_hash))
    scheme = read_description(dataset.description).label_scheme()
    return Task(
        folder=root,
        title="tiny",
        plan=plan,
        model_plan=model_plan,
        scheme=scheme,
        store=store,
        split=splits.folds[0],
        device=CPU,
        identity={},
    )


@pytest.mark.parametrize(("cost", "chosen"), [(0.5, "channels_last"), (0.95, "contiguous"), (2.0, "contiguous")])
def test_the_format_that_is_clearly_faster_is_chosen_with_its_reason(tmp_path, monkeypatch, cost, chosen):
    clock = Clock(monkeypatch, contiguous=1.0, channels_last=cost)
    task = speed.with_memory_format(with_steps(task_of(tmp_path)), tmp_path, None)
    assert task.model_plan.memory_format == task.plan.models[NAME].memory_format == chosen
    (said,) = [found for found in task.plan.decisions if found.subject == f"models.{NAME}.memory_format"]
    assert said.value == chosen and f"contiguous 1 s, channels_last {cost:g} s" in said.because
    # The first one tells how many images may go at once.
    assert clock.steps[:5] == ["contiguous"] + ["contiguous", "channels_last"] * 2 and len(clock.steps) <= 9
    (path,) = (tmp_path / "speed").iterdir()
    timing = read_artefact(path, Timing)
    assert timing.chosen == chosen and timing.seconds == pytest.approx({"contiguous": 1.0, "channels_last": cost})
    # The second training finds it there.
    again = speed.with_memory_format(with_steps(task_of(tmp_path)), tmp_path, None)
    assert again.plan.decisions == task.plan.decisions and len(clock.steps) <= 9


def with_steps(task: Task) -> Task:
    """Enough of them to be worth timing."""
    return replace(task, plan=with_training(task.plan, epochs=100))


def test_a_run_that_goes_on_keeps_its_format_and_the_reason_where_it_is_known(tmp_path, monkeypatch):
    task = with_steps(task_of(tmp_path))
    unknown = speed.with_memory_format(task, tmp_path, "channels_last")
    assert unknown.plan.decisions[-1].because == "the format this run began with" and not (tmp_path / "speed").exists()
    Clock(monkeypatch, contiguous=1.0, channels_last=0.5)
    fresh = speed.with_memory_format(task, tmp_path, None)
    assert speed.with_memory_format(task, tmp_path, "channels_last").plan.decisions == fresh.plan.decisions
    other = speed.with_memory_format(task, tmp_path, "contiguous")
    assert other.model_plan.memory_format == "contiguous" and "began with" in other.plan.decisions[-1].because


def test_both_clocks_must_agree():
    faster, slower = {"contiguous": 2.0, "channels_last": 1.0}, {"contiguous": 1.0, "channels_last": 1.0}
    assert speed._gain(faster, faster) == 2.0
    assert speed._gain(faster, slower) == speed._gain(slower, faster) == 1.0


def test_slow_steps_are_tried_twice_and_no_more(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, contiguous=60.0, channels_last=60.0)
    speed.with_memory_format(with_steps(task_of(tmp_path)), tmp_path, None)
    assert len(clock.steps) == 5


@pytest.mark.parametrize(("cost", "images"), [(0.1, 6), (1.0, 3), (60.0, 2)])
def test_as_many_images_are_timed_as_will_train_unless_that_takes_long(tmp_path, monkeypatch, cost, images):
    """cost: of the first step, which has two images."""
    Clock(monkeypatch, contiguous=cost, channels_last=cost)
    task = task_of(tmp_path, batch_size=12, accumulate=2)
    assert speed.time_formats(task).images == images


def test_nothing_is_timed_where_it_is_not_asked_for_or_would_not_pay(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, contiguous=1.0, channels_last=0.1)
    task = with_steps(task_of(tmp_path))
    off = replace(task, plan=with_training(task.plan, time_formats=False))
    short = replace(task, plan=with_training(task.plan, epochs=2))
    gpu = replace(task, device=torch.device("cuda"))
    fixed = replace(task, model_plan=replace(task.model_plan, memory_format="channels_last"))
    found = [speed.with_memory_format(one, tmp_path, None) for one in (off, short, gpu, fixed)]
    assert [one.model_plan.memory_format for one in found] == ["contiguous"] * 3 + ["channels_last"]
    reasons = [one.plan.decisions[-1].because for one in found[:3]]
    assert "switched off" in reasons[0] and "6 steps" in reasons[1] and "cuda" in reasons[2]
    assert clock.steps == [] and not (tmp_path / "speed").exists()
    # What is known already costs nothing.
    speed.with_memory_format(task, tmp_path, None)
    assert speed.with_memory_format(short, tmp_path, None).model_plan.memory_format == "channels_last"


def test_another_machine_size_or_batch_is_timed_by_itself(tmp_path, monkeypatch):
    Clock(monkeypatch, contiguous=1.0, channels_last=0.1)
    timed = {"one": with_steps(task_of(tmp_path))}
    model_plan = timed["one"].model_plan
    timed["size"] = replace(timed["one"], model_plan=replace(model_plan, input_size=(16, 16)))
    timed["batch"] = replace(timed["one"], model_plan=replace(model_plan, batch_size=6, accumulate=1))
    for task in timed.values():
        speed.with_memory_format(task, tmp_path, None)
    monkeypatch.setattr(speed, "_processor", lambda: "another")
    speed.with_memory_format(timed["one"], tmp_path, None)
    assert len(list((tmp_path / "speed").iterdir())) == 4


def test_a_damaged_timing_is_made_again(tmp_path, monkeypatch, caplog):
    clock = Clock(monkeypatch, contiguous=1.0, channels_last=0.1)
    task = with_steps(task_of(tmp_path))
    speed.with_memory_format(task, tmp_path, None)
    (path,) = (tmp_path / "speed").iterdir()
    path.write_text("{")
    before = len(clock.steps)
    assert speed.with_memory_format(task, tmp_path, None).model_plan.memory_format == "channels_last"
    assert len(clock.steps) == 2 * before and "timing again" in caplog.text
    assert read_artefact(path, Timing).chosen == "channels_last"


def test_of_two_trainings_that_time_at_once_the_first_answer_counts(tmp_path, monkeypatch):
    task = with_steps(task_of(tmp_path))
    seconds = {"contiguous": 1.0, "channels_last": 0.5}
    first = Timing(
        work={},
        machine=speed.machine(),
        images=2,
        seconds=seconds,
        processor_seconds=seconds,
        failed={},
        chosen="channels_last",
    )

    def slow(timed: Task, *clocks) -> Timing:
        write_artefact(speed._path(tmp_path, timed), first)
        return replace(first, chosen="contiguous")

    monkeypatch.setattr(speed, "time_formats", slow)
    assert speed.with_memory_format(task, tmp_path, None).model_plan.memory_format == "channels_last"


def test_a_network_that_cannot_do_it_keeps_the_usual_format(tmp_path, monkeypatch):
    def flattened(self, x):
        self.stem(x).view(-1)
        return original(self, x)

    original = tiny.Tiny.segment
    monkeypatch.setattr(tiny.Tiny, "segment", flattened)
    task = speed.with_memory_format(with_steps(task_of(tmp_path)), tmp_path, None)
    assert task.model_plan.memory_format == "contiguous" and "not possible (RuntimeError" in task.plan.decisions[-1].because


def test_a_run_keeps_the_format_it_began_with_to_the_last_bit(tmp_path):
    """Killed in the third epoch, gone on with by a plan that would rather try which format to take."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    assert tiny.in_a_process(unbroken, memory_format="channels_last")[0] == 0
    assert tiny.in_a_process(killed, signal.SIGKILL, 7, memory_format="channels_last")[0] == -9
    code, said = tiny.in_a_process(killed, memory_format="auto")
    assert code == 0 and "going on after epoch" in said and "channels_last" in said, said
    folder = folder_of(killed)
    assert same_weights(folder, folder_of(unbroken)) and not (killed / "speed").exists()
    assert read_artefact(folder / "run.json", RunRecord).memory_format == "channels_last"
    assert read_artefact(folder / "plan.json", Plan).models[NAME].memory_format == "channels_last"
    weight = checkpoint.read(folder / "best.pt")["state_dict"]["body.0.weight"]
    assert weight.is_contiguous() and load_network(folder).network.body[0].weight.is_contiguous()  # type: ignore[index,union-attr]


def test_another_format_is_refused_for_a_run_under_way_and_old_checkpoints_go_on(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    with pytest.raises(SeveralProblems, match="(?s)memory_format: contiguous -> channels_last.*--restart"):
        train_fold(dataset, with_model(plan, memory_format="channels_last"), splits, NAME, 0, device="cpu")
    path = folder_of(tmp_path) / "last.pt"
    state = checkpoint.read(path)
    del state["memory_format"]
    torch.save(state, path)
    (folder_of(tmp_path) / "run.json").unlink()
    record = train_fold(dataset, with_model(plan, memory_format="auto"), splits, NAME, 0, device="cpu")
    assert record.status == "finished" and record.memory_format == "contiguous"


def test_a_training_times_by_itself_and_says_so(tmp_path, monkeypatch):
    Clock(monkeypatch, contiguous=1.0, channels_last=0.1)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: None)
    dataset, plan, splits = tiny.prepare(tmp_path)
    long = with_model(with_training(plan, epochs=20, validate_every=20), memory_format="auto")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    record = train_fold(dataset, long, splits, NAME, 0, device="cpu")
    assert torch.equal(torch.rand(2), expected), "the caller's random numbers are left alone"
    assert record.memory_format == "channels_last" and record.steps == 60
    (path,) = (tmp_path / "speed").iterdir()
    assert path.name.startswith("tiny_one_") and json.loads(path.read_text())["work"]["input_size"] == "32x32"
    shutil.rmtree(tmp_path / "speed")
    # By the plan it leaves, the run can be repeated without trying.
    left = read_artefact(folder_of(tmp_path) / "plan.json", Plan)
    again = train_fold(dataset, left, splits, NAME, 0, device="cpu", restart=True)
    assert again.dice == record.dice and not (tmp_path / "speed").exists()
