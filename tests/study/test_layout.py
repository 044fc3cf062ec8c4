from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.study.layout import StudyFolders
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace


def test_each_seed_has_a_root_that_shares_data_and_weights(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset501_A").mkdir(parents=True)
    folders = StudyFolders.of(Workspace(tmp_path), "mine", "small")
    assert folders.folder == tmp_path / "studies" / "mine_small"
    root = folders.make_root(3)
    assert root == folders.make_root(3) == tmp_path / "studies" / "mine_small" / "seed_3"
    assert Workspace(root).dataset("A").name == "Dataset501_A"
    (root / "weights" / "x").write_text("w")
    assert (tmp_path / "weights" / "x").read_text() == "w"
    assert not (tmp_path / "results").exists()


def test_folders_of_others_are_not_taken_for_links(tmp_path: Path) -> None:
    folders = StudyFolders.of(Workspace(tmp_path), "mine", "full")
    (folders.root(0) / "raw").mkdir(parents=True)
    with pytest.raises(AutosegError, match="is no link to"):
        folders.make_root(0)
