"""--restart never loses an earlier run before the new one can be resumed."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
import torch

from autoseg.support.errors import AutosegError
from autoseg.support.registry import Registry
from autoseg.training.step import Step
from tests.training import tiny
from tests.training.test_train_fold import LEFT, folder_of


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "__call__", Step.__call__)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """The folder of a finished run with validation masks, and the content of its files."""
    tiny.train(tmp_path)
    folder = folder_of(tmp_path)
    (folder / "validation").mkdir()
    (folder / "validation" / "mask.png").write_bytes(b"mask")
    return folder, content(folder)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def die() -> None:
    raise RuntimeError("the machine went away")


def test_a_logger_that_is_not_installed_changes_nothing(tmp_path, finished, monkeypatch):
    folder, before = finished

    def missing(*arguments):
        raise ImportError("No module named 'mlflow'")

    monkeypatch.setattr("autoseg.training.loggers.LOGGERS", Registry("logger", "of.a.test", {"mlflow": missing}))
    with pytest.raises(AutosegError, match="mlflow is not installed"):
        tiny.train(tmp_path, restart=True, log_to=["mlflow"])
    assert content(folder) == before and not hidden(folder)


def test_weights_that_do_not_fit_change_nothing(tmp_path, finished):
    folder, before = finished
    wrong = tmp_path / "other.pt"
    state = torch.load(folder / "best.pt", weights_only=True)
    state["state_dict"] = {name: torch.zeros(3) for name in state["state_dict"]}
    torch.save(state, wrong)
    with pytest.raises(AutosegError, match="do not match"):
        tiny.train(tmp_path, restart=True, pretrained=str(wrong))
    assert content(folder) == before and not hidden(folder)


@pytest.mark.parametrize("step", [0, 2])
def test_an_error_before_the_first_checkpoint_puts_the_old_run_back(tmp_path, finished, step, caplog):
    folder, before = finished
    tiny.at_step(step, die)
    with caplog.at_level(logging.INFO, "autoseg"), pytest.raises(RuntimeError, match="went away"):
        tiny.train(tmp_path, restart=True)
    assert content(folder) == before and not hidden(folder)
    assert str(folder.with_name(".fold_0.replaced")) in caplog.text
    assert f"the earlier run is back in {folder}" in caplog.text
    Step.__call__ = Step.__call__  # type: ignore[method-assign]


def test_files_of_the_user_stay_in_the_folder(tmp_path, finished):
    folder, before = finished
    (folder / "notes.txt").write_text("mine")
    tiny.at_step(0, die)
    with pytest.raises(RuntimeError, match="went away"):
        tiny.train(tmp_path, restart=True)
    assert content(folder) == {**before, "notes.txt": b"mine"}


def test_an_interrupted_move_is_completed(tmp_path, finished):
    """Killed while the files are moved: nothing is lost, wherever the half is."""
    folder, before = finished
    moving = folder.with_name(".fold_0.moving")
    moving.mkdir()
    for name in ("best.pt", "validation"):
        (folder / name).rename(moving / name)
    record = tiny.train(tmp_path)
    assert record.status == "finished" and content(folder) == before and not hidden(folder)


def test_a_killed_restart_is_undone_by_the_next_start(tmp_path):
    tiny.train(tmp_path)
    folder = folder_of(tmp_path)
    before = content(folder)
    code, _ = tiny.in_a_process(tmp_path, signal.SIGKILL, step=1, restart=True)
    assert code == -signal.SIGKILL and hidden(folder) == [".fold_0.replaced"]
    assert tiny.train(tmp_path).status == "finished"
    assert content(folder) == before and not hidden(folder)


def test_the_old_run_goes_with_the_first_checkpoint_of_the_new_one(tmp_path):
    tiny.train(tmp_path)
    folder = folder_of(tmp_path)
    code, output = tiny.in_a_process(tmp_path, signal.SIGTERM, step=1, restart=True)
    assert code == 143, output
    assert not hidden(folder) and (folder / "last.pt").exists()
    assert tiny.train(tmp_path).status == "finished"
    assert sorted(os.listdir(folder)) == LEFT


def test_a_restart_without_an_earlier_run_is_a_start(tmp_path):
    assert tiny.train(tmp_path, restart=True).status == "finished"
    assert not hidden(folder_of(tmp_path)) and sorted(os.listdir(folder_of(tmp_path))) == LEFT
