"""--deterministic: the mode is on in every step and validation, off afterwards, and what has no such form is an error."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from autoseg import api
from autoseg.cli import entry, run, train
from autoseg.runner.jobs import is_done
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import lr_search
from autoseg.training.deterministic import deterministic_algorithms
from autoseg.training.train_fold import train_fold
from tests.runner.scripted import finish, write_planned_dataset
from tests.training import tiny
from tests.training.tiny import NAME, Tiny, with_training

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _no_workspace_of_the_user(monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())


def modes():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(CUBLAS),
    )


OFF, ON = (False, False, False, None), (True, False, False, ":4096:8")


@pytest.fixture
def seen(monkeypatch):
    """The modes in each forward pass, with whether it was of a training step."""
    seen = []
    original = Tiny.segment

    def segment(self, x):
        seen.append((self.training, modes()))
        return original(self, x)

    monkeypatch.setattr(Tiny, "segment", segment)
    # This one pass is on the CPU whatever the device.
    monkeypatch.setattr("autoseg.training.train_fold.init_head_bias", lambda *_: None)
    return seen


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_mode_is_on_in_every_pass_and_off_afterwards(tmp_path, seen, deterministic):
    record = tiny.train(tmp_path, deterministic=deterministic)
    assert set(seen) == {(training, ON if deterministic else OFF) for training in (True, False)}
    assert modes() == OFF
    stored = read_artefact(tmp_path / "results" / "Dataset701_Discs" / NAME / "fold_0" / "run.json", RunRecord)
    assert record.deterministic == stored.deterministic == deterministic


def test_the_callers_settings_come_back_after_an_error_too(monkeypatch):
    monkeypatch.setenv(CUBLAS, ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        with pytest.raises(ZeroDivisionError), deterministic_algorithms():
            assert modes() == (True, False, False, ":16:8")
            raise ZeroDivisionError
        assert modes() == (True, True, True, ":16:8")
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_workspace_with_which_products_do_not_repeat_is_an_error(monkeypatch):
    monkeypatch.setenv(CUBLAS, ":0:0")
    with pytest.raises(AutosegError, match=f"{CUBLAS} is ':0:0'(.|\n)*:4096:8"), deterministic_algorithms():
        pytest.fail("it began")
    assert modes() == (False, False, False, ":0:0")


@pytest.fixture
def unrepeatable(monkeypatch):
    """A network with `put_`, which has no deterministic form on a CPU."""
    original = Tiny.segment

    def segment(self, x):
        x.clone().put_(torch.tensor([0]), torch.ones(1))
        return original(self, x)

    monkeypatch.setattr(Tiny, "segment", segment)


def test_an_operation_without_such_a_form_is_named_with_the_option(tmp_path, unrepeatable, capsys):
    def command(arguments):
        tiny.train(tmp_path, deterministic=arguments == ["--deterministic"])
        return 0

    assert entry.command(command)(["--deterministic"]) == entry.USER_ERROR
    shown = capsys.readouterr().err
    assert "put_ has no deterministic form" in shown and "--deterministic" in shown and "Traceback" not in shown
    assert modes() == OFF
    # Nothing is left that stands in the way of a training without the option.
    assert entry.command(command)([]) == 0


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="^something else$"), deterministic_algorithms():
        raise RuntimeError("something else")


@pytest.mark.parametrize("before", [True, False])
def test_a_run_goes_on_as_it_began(tmp_path, before):
    tiny.train(tmp_path, deterministic=before)
    with pytest.raises(SeveralProblems, match="other settings") as caught:
        tiny.train(tmp_path, deterministic=not before)
    assert list(caught.value.problems) == ["deterministic: true -> false" if before else "deterministic: false -> true"]
    assert tiny.train(tmp_path, deterministic=before).deterministic == before
    again = tiny.train(tmp_path, deterministic=not before, restart=True)
    assert again.deterministic != before


def test_trials_of_the_learning_rate_are_made_the_same_way(tmp_path, seen):
    dataset, plan, splits = tiny.prepare(tmp_path)
    plan = with_training(plan, learning_rates=(1e-2, 1e-3), search_epochs=1)
    searches = []
    for deterministic in (False, True):
        seen.clear()
        _, search = lr_search.with_searched_rate(dataset, plan, splits, NAME, device="cpu", deterministic=deterministic)
        assert {modes for _, modes in seen} == {ON if deterministic else OFF}
        searches.append(search.identity)
    assert searches[0] != searches[1]


def test_weights_and_scores_are_the_same_with_it_on_a_processor(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    records = [train_fold(dataset, plan, splits, NAME, 0, device="cpu", restart=True, deterministic=on) for on in (False, True)]
    assert records[0].dice == records[1].dice and records[0].identity != records[1].identity


def test_a_finished_run_that_need_not_repeat_is_not_done_where_one_is_asked_for(tmp_path):
    job = Job(write_planned_dataset(tmp_path).name, "unet", 0)
    finish(tmp_path, job)
    assert is_done(tmp_path, job) and not is_done(tmp_path, job, deterministic=True)
    path = Dataset(tmp_path, job.dataset).fold("unet", 0) / "run.json"
    write_artefact(path, replace(read_artefact(path, RunRecord), deterministic=True))
    assert is_done(tmp_path, job) and is_done(tmp_path, job, deterministic=True)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("given", [True, False])
def test_commands_and_functions_pass_it_on(tmp_path, monkeypatch, given):
    calls = {}

    def stop(name):
        def stopped(*arguments, **options):
            calls[name] = options["deterministic"]
            raise Stopped

        return stopped

    monkeypatch.setattr(api, "train", stop("train"))
    monkeypatch.setattr(api, "run", stop("run"))
    option = ["--deterministic"] if given else []
    for name, call in (("train", lambda: train.main(["1", "unet", "0", "--device", "cpu", *option])),
                       ("run", lambda: run.main(["--datasets", "1", *option]))):  # fmt: skip
        with pytest.raises(Stopped):
            call()
        assert calls[name] is given
