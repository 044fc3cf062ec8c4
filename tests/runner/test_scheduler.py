from __future__ import annotations

import os
import signal

import pytest

from autoseg.runner import scheduler, table
from autoseg.runner.engine import Outcome
from autoseg.runner.jobs import JobOptions, command_of, fold_jobs, log_of
from autoseg.schema.run import RateSearch, RateTrial
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError
from autoseg.support.files import write_artefact
from autoseg.training.run_lock import run_lock
from tests.runner.scripted import FOLDS, Scripted, finish, job_options, on_disk, planned, well


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(scheduler, "_WITHIN", 0.001)
    monkeypatch.setattr(scheduler, "_LOOK", 0.01)


def states(found) -> dict[str, int]:
    kept = [row.state for row in found.rows]
    return {state: kept.count(state) for state in set(kept)}


def test_everything_that_is_not_done_runs_and_the_table_says_so(tmp_path):
    dataset = planned(tmp_path)
    jobs = fold_jobs(dataset, None, None)
    assert len(jobs) == 2 * FOLDS
    finish(tmp_path, jobs[1])
    engine = Scripted(tmp_path, well(tmp_path), count=2)
    found = scheduler.run_grid(jobs, job_options(tmp_path), engine)
    assert states(found) == {"done": 2 * FOLDS}
    assert engine.started == [jobs[0], *jobs[2:]]
    assert max(len(under_way) for under_way in engine.together) == 2
    row = found.rows[0]
    assert (row.attempts, row.where, row.epochs_done, row.best_dice) == (1, "there", 10, 0.75)
    assert found.rows[1].attempts == 0 and on_disk(tmp_path)["engine"] == "scripted"
    assert table.status(tmp_path).rows == found.rows
    assert repr(found) == f"GridTable({2 * FOLDS} runs: {2 * FOLDS} done)"
    assert list(found.to_frame()["fold"]) == [one.job.fold for one in found.rows]
    # Once more: nothing is left to do.
    again = Scripted(tmp_path, well(tmp_path))
    assert states(scheduler.run_grid(jobs, job_options(tmp_path), again)) == {"done": 2 * FOLDS} and again.started == []


@pytest.mark.parametrize("ending", [Outcome(-9), Outcome(1), Outcome(None, message="its machine went away"), Outcome(143)])
def test_a_run_that_dies_is_started_again_and_a_hopeless_one_given_up(tmp_path, ending):
    jobs = fold_jobs(planned(tmp_path), ["unet"], None)

    def script(job: Job, attempt: int) -> Outcome:
        if job.fold == 2 or (job.fold == 1 and attempt == 1):
            return ending
        finish(tmp_path, job)
        return Outcome(0)

    engine = Scripted(tmp_path, script)
    found = scheduler.run_grid(jobs, job_options(tmp_path), engine, retries=2)
    assert [row.state for row in found.rows] == ["done", "done", "failed"]
    assert [row.attempts for row in found.rows] == [1, 2, 3]


def test_a_mistake_of_the_users_is_not_repeated_and_its_message_kept(tmp_path):
    jobs = fold_jobs(planned(tmp_path), ["unet"], [0, 1])

    def script(job: Job, attempt: int) -> Outcome:
        log = log_of(tmp_path, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("epoch 1\nerror: the disk is full: last.pt could not be written\n  -> free some space\n")
        return Outcome(2)

    found = scheduler.run_grid(jobs, job_options(tmp_path), Scripted(tmp_path, script))
    assert [(row.state, row.attempts) for row in found.rows] == [("failed", 1)] * 2
    assert found.rows[0].message == "the disk is full: last.pt could not be written -> free some space"


def test_a_process_that_says_it_went_well_but_left_nothing_did_not(tmp_path):
    jobs = fold_jobs(planned(tmp_path), ["unet"], [0])
    found = scheduler.run_grid(jobs, job_options(tmp_path), Scripted(tmp_path, lambda job, attempt: Outcome(0)), retries=0)
    assert found.rows[0].state == "failed"


def test_the_first_run_of_a_model_searches_for_its_rate_alone(tmp_path):
    dataset = planned(tmp_path, search_epochs=2)
    jobs = fold_jobs(dataset, None, None)

    def script(job: Job, attempt: int) -> Outcome:
        chosen = RateSearch(
            fold=0,
            epochs=2,
            identity="id",
            tried=(RateTrial(rate=1e-3, best_dice=0.5, dice={}, steps=4, seconds=1.0),),
            chosen=1e-3,
            steps=4,
            seconds=1.0,
        )
        write_artefact(dataset.results / job.model / "learning_rate" / "learning_rate.json", chosen)
        finish(tmp_path, job)
        return Outcome(0)

    engine = Scripted(tmp_path, script, count=4, polls=3)
    scheduler.run_grid(jobs, job_options(tmp_path), engine)
    first = engine.together[:2]
    assert first[-1] == {Job(dataset.name, "unet", 0), Job(dataset.name, "segformer", 0)}
    assert max(len(under_way) for under_way in engine.together) > 2
    # A rate the user gives needs no search.
    other = planned(tmp_path / "other", search_epochs=2)
    engine = Scripted(tmp_path / "other", well(tmp_path / "other"), count=3, polls=3)
    given = JobOptions(root=tmp_path / "other", settings={"models.unet.learning_rate": "0.01"})
    scheduler.run_grid(fold_jobs(other, ["unet"], None), given, engine)
    assert len(engine.together[2]) == 3


def test_a_folder_somebody_else_works_on_is_left_to_them(tmp_path):
    dataset = planned(tmp_path)
    jobs = fold_jobs(dataset, ["unet"], [0, 1])
    engine = Scripted(tmp_path, well(tmp_path))
    messages = []
    with run_lock(dataset.fold("unet", 0)) as hold:

        def watch(found) -> None:
            messages.append(found.rows[0].message)
            if found.rows[1].state == "done":
                hold.path.unlink(missing_ok=True)

        found = scheduler.run_grid(jobs, job_options(tmp_path), engine, watch=watch)
    assert engine.started == [jobs[1], jobs[0]] and states(found) == {"done": 2}
    assert any(f"held by process {os.getpid()}" in message for message in messages)


def test_being_asked_to_stop_stops_the_runs_and_leaves_them_waiting(tmp_path):
    jobs = fold_jobs(planned(tmp_path), None, None)

    def script(job: Job, attempt: int) -> Outcome:
        finish(tmp_path, job, "stopped", 4)
        return Outcome(143)

    engine = Scripted(tmp_path, script, count=2, polls=10**6)

    def watch(found) -> None:
        if states(found).get("running") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        scheduler.run_grid(jobs, job_options(tmp_path), engine, watch=watch, handle_signals=True)
    assert caught.value.code == 143 and all(handle.stopped for handle in engine.handles)
    found = table.status(tmp_path)
    assert states(found) == {"waiting": 2 * FOLDS}
    assert [row.epochs_done for row in found.rows[:3]] == [4, 4, 0]


def test_an_interrupted_library_call_leaves_the_runs_waiting_too(tmp_path):
    """Without signal handlers Ctrl-C is an exception; the runs it stops have not failed."""
    jobs = fold_jobs(planned(tmp_path), None, None)
    engine = Scripted(tmp_path, lambda job, attempt: Outcome(143), count=2, polls=10**6)

    def watch(found) -> None:
        if states(found).get("running") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler.run_grid(jobs, job_options(tmp_path), engine, retries=0, watch=watch)
    assert all(handle.stopped for handle in engine.handles)
    assert states(table.status(tmp_path)) == {"waiting": 2 * FOLDS}


def test_a_second_grid_under_the_root_is_refused(tmp_path):
    jobs = fold_jobs(planned(tmp_path), ["unet"], [0])

    def script(job: Job, attempt: int) -> Outcome:
        with pytest.raises(AutosegError, match=f"in use by process {os.getpid()}"):
            scheduler.run_grid(jobs, job_options(tmp_path), Scripted(tmp_path, well(tmp_path)))
        finish(tmp_path, job)
        return Outcome(0)

    assert states(scheduler.run_grid(jobs, job_options(tmp_path), Scripted(tmp_path, script))) == {"done": 1}


def test_test_images_are_predicted_when_all_folds_are_there(tmp_path):
    dataset = planned(tmp_path)
    images = dataset.raw / "imagesTs"
    images.mkdir()
    (images / "a_0000.png").touch()
    commands = []

    class Predicting(Scripted):
        def start(self, command, log):
            if "predict" in command[2]:
                commands.append(command)
                folder = dataset.results / command[command.index("-m") + 1] / "predictions"
                folder.mkdir()
                (folder / "prediction.json").write_text("{}")
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

    found = scheduler.run_grid(fold_jobs(dataset, None, None), job_options(tmp_path), Predicting(tmp_path, script))
    (command,) = commands
    assert command[command.index("-i") + 1] == str(images) and "unet" in command
    assert found.rows[-1].job == Job(dataset.name, "unet", -1) and found.rows[-1].state == "done"


def test_commands_carry_everything_a_run_needs(tmp_path):
    job = Job("Dataset501_Paper", "unet", 3)
    given = JobOptions(root=tmp_path, device="cpu", pretrained="none", settings={"training.epochs": "3"}, processes=1)
    command = command_of(job, given)
    assert command[3:6] == ["Dataset501_Paper", "unet", "3"]
    assert command[-4:] == ["--pretrained", "none", "--set", "training.epochs=3"]
    several = command_of(job, JobOptions(root=tmp_path, processes=4))
    assert several[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]


def test_models_and_folds_a_plan_lacks_are_said_before_anything_starts(tmp_path):
    dataset = planned(tmp_path)
    with pytest.raises(AutosegError, match=r"not for hsnet\n.*--models unet,segformer,hsnet"):
        fold_jobs(dataset, ["unet", "hsnet"], None)
    with pytest.raises(AutosegError, match=r"no fold 7\n.*folds 0 to 2"):
        fold_jobs(dataset, None, [0, 7])
    with pytest.raises(AutosegError, match="no grid was run"):
        table.status(tmp_path)
