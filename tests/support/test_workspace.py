from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace, fold_folders


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("Dataset501_Polyp", "Dataset502_Heart", "notes"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    return Workspace.at(tmp_path)


@pytest.mark.parametrize("which", ["501", 501, "Polyp", "polyp", "Dataset501_Polyp"])
def test_a_dataset_answers_to_id_name_and_both(workspace: Workspace, which: str | int) -> None:
    assert workspace.dataset(which).name == "Dataset501_Polyp"


def test_an_unknown_dataset_lists_what_there_is(workspace: Workspace) -> None:
    with pytest.raises(AutosegError, match="Dataset501_Polyp, Dataset502_Heart"):
        workspace.dataset("Lung")


def test_two_of_one_number_are_not_guessed_between(workspace: Workspace) -> None:
    (workspace.raw / "Dataset501_Other").mkdir()
    with pytest.raises(AutosegError, match="give the full name"):
        workspace.dataset(501)


@pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "a/b"])
def test_names_that_cannot_be_folders_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(AutosegError, match="cannot name a dataset"):
        workspace.new_dataset(503, name)


def test_the_root_comes_from_argument_then_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOSEG_ROOT", str(tmp_path / "env"))
    assert Workspace.at().root == tmp_path / "env"
    assert Workspace.at(tmp_path / "given").root == tmp_path / "given"
    monkeypatch.delenv("AUTOSEG_ROOT")
    monkeypatch.chdir(tmp_path)
    assert Workspace.at().root == tmp_path / "autoseg_data"


def test_only_folders_named_after_a_fold_are_folds(workspace: Workspace) -> None:
    """Copies that a user keeps beside the folds are not read as folds, and folds are sorted by number."""
    dataset = workspace.dataset("501")
    for name in ("fold_10", "fold_2", "fold_0", "fold_0_old", "fold_0 (copy)", "fold_all", "old_fold_1", "fold_00", "fold_٣"):
        (dataset.model("unet") / name).mkdir(parents=True)
    assert list(fold_folders(dataset.model("unet"))) == [0, 2, 10]
    assert {path.name for path in dataset.runs()} == {"fold_0", "fold_2", "fold_10"}
    assert dataset.runs(["nnunet"]) == [] and fold_folders(dataset.model("nnunet")) == {}
