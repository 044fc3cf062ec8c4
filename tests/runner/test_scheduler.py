from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.runner import scheduler, table
from autoseg.runner.engine import Outcome
from autoseg.runner.jobs import JobOptions, command_of, fold_jobs, is_done, log_of
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.schema.run import RateSearch, RateTrial
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.run_lock import run_lock
from tests.runner.scripted import FOLDS, ScriptedEngine, all_succeed, finish, job_options, read_table, write_planned_dataset


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch):
    monkeypatch.setattr(scheduler, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(scheduler, "_UPDATE_SECONDS", 0.01)


def states(result) -> dict[str, int]:
    all_states = [row.state for row in result.rows]
    return {state: all_states.count(state) for state in set(all_states)}


def test_unfinished_jobs_run_and_the_table_is_updated(tmp_path):
    dataset = write_planned_dataset(tmp_path)
    jobs = fold_jobs(dataset, None, None)
    assert len(jobs) == 2 * FOLDS
    finish(tmp_path, jobs[1])
    engine = ScriptedEngine(tmp_path, all_succeed(tmp_path), count=2)
    result = scheduler.run_jobs(jobs, job_options(tmp_path), engine)
    assert states(result) == {"done": 2 * FOLDS}
    assert engine.started == [jobs[0], *jobs[2:]]
    assert max(len(running) for running in engine.running_at_start) == 2
    row = result.rows[0]
    assert (row.attempts, row.where, row.epochs_done, row.micro_dice) == (1, "there", 10, 0.75)
    assert result.rows[1].attempts == 0 and read_table(tmp_path)["engine"] == "scripted"
    assert table.status(tmp_path).rows == result.rows
    assert repr(result) == f"GridTable({2 * FOLDS} runs: {2 * FOLDS} done)"
    assert list(result.to_frame()["fold"]) == [one.job.fold for one in result.rows]
    # A second call has nothing to do.
    again = ScriptedEngine(tmp_path, all_succeed(tmp_path))
    assert states(scheduler.run_jobs(jobs, job_options(tmp_path), again)) == {"done": 2 * FOLDS} and again.started == []


@pytest.mark.parametrize("ending", [Outcome(-9), Outcome(1), Outcome(None, message="its machine was lost"), Outcome(143)])
def test_crashed_jobs_restart_until_the_retries_are_used(tmp_path, ending):
    jobs = fold_jobs(write_planned_dataset(tmp_path), ["unet"], None)

    def script(job: Job, attempt: int) -> Outcome:
        if job.fold == 2 or (job.fold == 1 and attempt == 1):
            return ending
        finish(tmp_path, job)
        return Outcome(0)

    engine = ScriptedEngine(tmp_path, script)
    result = scheduler.run_jobs(jobs, job_options(tmp_path), engine, retries=2)
    assert [row.state for row in result.rows] == ["done", "done", "failed"]
    assert [row.attempts for row in result.rows] == [1, 2, 3]


def test_user_errors_are_not_retried_and_their_message_is_in_the_table(tmp_path):
    jobs = fold_jobs(write_planned_dataset(tmp_path), ["unet"], [0, 1])

    def script(job: Job, attempt: int) -> Outcome:
        log = log_of(tmp_path, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("epoch 1\nerror: the disk is full: last.pt could not be written\n  -> free some space\n")
        return Outcome(2)

    result = scheduler.run_jobs(jobs, job_options(tmp_path), ScriptedEngine(tmp_path, script))
    assert [(row.state, row.attempts) for row in result.rows] == [("failed", 1)] * 2
    assert result.rows[0].message == "the disk is full: last.pt could not be written -> free some space"


def test_exit_code_zero_without_results_is_a_failure(tmp_path):
    jobs = fold_jobs(write_planned_dataset(tmp_path), ["unet"], [0])
    result = scheduler.run_jobs(
        jobs, job_options(tmp_path), ScriptedEngine(tmp_path, lambda job, attempt: Outcome(0)), retries=0
    )
    assert result.rows[0].state == "failed"


def test_folds_wait_for_the_learning_rate_search_of_the_first_job(tmp_path):
    dataset = write_planned_dataset(tmp_path, search_epochs=2)
    jobs = fold_jobs(dataset, None, None)

    def script(job: Job, attempt: int) -> Outcome:
        chosen = RateSearch(
            fold=0,
            epochs=2,
            identity="id",
            tried=(RateTrial(rate=1e-3, class_mean_dice=0.5, dice={}, steps=4, seconds=1.0),),
            chosen=1e-3,
            steps=4,
            seconds=1.0,
        )
        write_artefact(dataset.results / job.model / "learning_rate" / "learning_rate.json", chosen)
        finish(tmp_path, job)
        return Outcome(0)

    engine = ScriptedEngine(tmp_path, script, count=4, polls=3)
    scheduler.run_jobs(jobs, job_options(tmp_path), engine)
    first = engine.running_at_start[:2]
    assert first[-1] == {Job(dataset.name, "unet", 0), Job(dataset.name, "segformer", 0)}
    assert max(len(running) for running in engine.running_at_start) > 2
    # A learning rate set by the user needs no search.
    other = write_planned_dataset(tmp_path / "other", search_epochs=2)
    engine = ScriptedEngine(tmp_path / "other", all_succeed(tmp_path / "other"), count=3, polls=3)
    options = JobOptions(root=tmp_path / "other", settings={"models.unet.learning_rate": "0.01"})
    scheduler.run_jobs(fold_jobs(other, ["unet"], None), options, engine)
    assert len(engine.running_at_start[2]) == 3


def test_jobs_with_a_locked_folder_wait(tmp_path):
    dataset = write_planned_dataset(tmp_path)
    jobs = fold_jobs(dataset, ["unet"], [0, 1])
    engine = ScriptedEngine(tmp_path, all_succeed(tmp_path))
    messages = []
    with run_lock(dataset.fold("unet", 0)) as lock:

        def watch(result) -> None:
            messages.append(result.rows[0].message)
            if result.rows[1].state == "done":
                lock.path.unlink(missing_ok=True)

        result = scheduler.run_jobs(jobs, job_options(tmp_path), engine, watch=watch)
    assert engine.started == [jobs[1], jobs[0]] and states(result) == {"done": 2}
    assert any(f"locked by process {os.getpid()}" in message for message in messages)


def test_sigterm_stops_the_jobs_and_marks_them_as_waiting(tmp_path):
    jobs = fold_jobs(write_planned_dataset(tmp_path), None, None)

    def script(job: Job, attempt: int) -> Outcome:
        finish(tmp_path, job, "stopped", 4)
        return Outcome(143)

    engine = ScriptedEngine(tmp_path, script, count=2, polls=10**6)

    def watch(result) -> None:
        if states(result).get("running") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        scheduler.run_jobs(jobs, job_options(tmp_path), engine, watch=watch, handle_signals=True)
    assert caught.value.code == 143 and all(handle.stopped for handle in engine.handles)
    result = table.status(tmp_path)
    assert states(result) == {"waiting": 2 * FOLDS}
    assert [row.epochs_done for row in result.rows[:3]] == [4, 4, 0]


def test_ctrl_c_without_signal_handlers_marks_the_jobs_as_waiting(tmp_path):
    """Stopped jobs do not count as failed."""
    jobs = fold_jobs(write_planned_dataset(tmp_path), None, None)
    engine = ScriptedEngine(tmp_path, lambda job, attempt: Outcome(143), count=2, polls=10**6)

    def watch(result) -> None:
        if states(result).get("running") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler.run_jobs(jobs, job_options(tmp_path), engine, retries=0, watch=watch)
    assert all(handle.stopped for handle in engine.handles)
    assert states(table.status(tmp_path)) == {"waiting": 2 * FOLDS}


def test_second_runner_under_the_same_root_is_refused(tmp_path):
    jobs = fold_jobs(write_planned_dataset(tmp_path), ["unet"], [0])

    def script(job: Job, attempt: int) -> Outcome:
        with pytest.raises(AutosegError, match=f"in use by process {os.getpid()}"):
            scheduler.run_jobs(jobs, job_options(tmp_path), ScriptedEngine(tmp_path, all_succeed(tmp_path)))
        finish(tmp_path, job)
        return Outcome(0)

    assert states(scheduler.run_jobs(jobs, job_options(tmp_path), ScriptedEngine(tmp_path, script))) == {"done": 1}


def prediction_of(dataset: Dataset, image: Path) -> PredictionRecord:
    """The record of masks of one image by all folds of unet."""
    case = PredictedCase(case="a", output="a.png", size=(1, 1), pixels={}, seconds={}, sha256=hash_file(image))
    return PredictionRecord(
        dataset=dataset.name, models=("unet",), folds=tuple(range(FOLDS)), labels={"background": 0, "x": 1}, mirror=(),
        identities={f"unet/fold_{fold}": "id" for fold in range(FOLDS)}, device="cpu", precision="fp32", seconds=1.0,
        cases=(case,),
    )  # fmt: skip


def test_test_images_are_predicted_after_all_folds(tmp_path):
    dataset = write_planned_dataset(tmp_path)
    images = dataset.raw / "imagesTs"
    images.mkdir()
    (images / "a_0000.png").touch()
    commands = []

    class PredictingEngine(ScriptedEngine):
        def start(self, command, log):
            if "predict" in command[2]:
                commands.append(command)
                folder = dataset.results / command[command.index("-m") + 1] / "predictions"
                folder.mkdir()
                write_artefact(folder / "prediction.json", prediction_of(dataset, images / "a_0000.png"))
                command = [*command[:3], dataset.name, command[command.index("-m") + 1], "-1"]
                handle = super().start(command, log)
                handle.script = lambda: Outcome(0)
                return handle
            return super().start(command, log)

    def script(job: Job, attempt: int) -> Outcome:
        if job.model == "segformer":
            return Outcome(2)
        finish(tmp_path, job)
        return Outcome(0)

    result = scheduler.run_jobs(fold_jobs(dataset, None, None), job_options(tmp_path), PredictingEngine(tmp_path, script))
    (command,) = commands
    assert command[command.index("-i") + 1] == str(images) and "unet" in command
    assert result.rows[-1].job == Job(dataset.name, "unet", -1) and result.rows[-1].state == "done"
    # The masks are of these images and these networks: with others they are predicted again.
    assert is_done(tmp_path, Job(dataset.name, "unet", -1))
    (images / "a_0000.png").write_bytes(b"another")
    assert not is_done(tmp_path, Job(dataset.name, "unet", -1))
    (images / "a_0000.png").write_bytes(b"")
    assert is_done(tmp_path, Job(dataset.name, "unet", -1))
    run = dataset.fold("unet", 0) / "run.json"
    run.write_text(run.read_text().replace('"identity": "id"', '"identity": "other"'))
    assert not is_done(tmp_path, Job(dataset.name, "unet", -1))


def test_commands_contain_all_options(tmp_path):
    job = Job("Dataset501_Paper", "unet", 3)
    options = JobOptions(root=tmp_path, device="cpu", pretrained="none", settings={"training.epochs": "3"}, processes=1)
    command = command_of(job, options)
    assert command[3:6] == ["Dataset501_Paper", "unet", "3"]
    assert command[-4:] == ["--pretrained", "none", "--set", "training.epochs=3"]
    assert command_of(job, JobOptions(root=tmp_path, deterministic=True))[-1] == "--deterministic" not in command
    torchrun_command = command_of(job, JobOptions(root=tmp_path, processes=4))
    assert torchrun_command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]


def test_missing_models_and_folds_raise_before_the_start(tmp_path):
    dataset = write_planned_dataset(tmp_path)
    with pytest.raises(AutosegError, match=r"not for hsnet\n.*--models unet,segformer,hsnet"):
        fold_jobs(dataset, ["unet", "hsnet"], None)
    with pytest.raises(AutosegError, match=r"no fold 7\n.*folds 0 to 2"):
        fold_jobs(dataset, None, [0, 7])
    with pytest.raises(AutosegError, match="no jobs were run"):
        table.status(tmp_path)


def test_trials_run_by_their_own_plan_in_their_own_folder(tmp_path):
    dataset = write_planned_dataset(tmp_path, search_epochs=2)
    images = dataset.raw / "imagesTs"
    images.mkdir()
    (images / "a_0000.png").write_bytes(b"")
    trials = [Job(dataset.name, "unet", 0, f"selection/{name}/level_0") for name in ("slow", "fast")]
    for trial in trials:
        folder = dataset.trial(trial.trial)
        write_artefact(folder / "plan.json", read_artefact(dataset.plan, Plan))
        write_artefact(folder / "splits.json", read_artefact(dataset.splits, Splits))

    def script(job: Job, attempt: int) -> Outcome:
        finish(tmp_path, job)
        return Outcome(0)

    engine = ScriptedEngine(tmp_path, script, count=2, polls=3)
    options = JobOptions(root=tmp_path, settings={"training.epochs": "3"}, pretrained="none")
    result = scheduler.run_jobs(trials, options, engine)
    # No search, no wait for each other, no prediction of the test images.
    assert states(result) == {"done": 2} and engine.running_at_start[-1] == set(trials)
    assert [row[1] for row in table.lines(result.rows)] == ["selection/slow/level_0", "selection/fast/level_0"]
    assert not (dataset.results / "unet").exists()
    command = command_of(trials[0], options)
    assert command[-2:] == ["--trial", "selection/slow/level_0"] and "--set" not in command and "--pretrained" not in command
    # Done means: by the plan and the splits that are in the folder now.
    changed = replace(read_artefact(dataset.splits, Splits), folds=read_artefact(dataset.splits, Splits).folds[1:])
    write_artefact(dataset.results / trials[0].trial / "splits.json", changed)
    assert [is_done(tmp_path, trial) for trial in trials] == [False, True]
