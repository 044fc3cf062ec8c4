from __future__ import annotations

import pytest
import torch

from autoseg.support.errors import AutosegError
from autoseg.training import checkpoint
from autoseg.training.checkpoint import BEST, LAST, PREVIOUS, Progress


class Evil:
    def __reduce__(self):
        return print, ("code was run",)


def save(folder, epoch):
    states = {"state_dict": {"w": torch.full((3,), float(epoch))}, "optimizer": {}, "scaler": {}}
    checkpoint.save_last(folder, {"training": "x"}, states, Progress(epoch=epoch, dice={"a": float("nan")}), "contiguous")


def test_last_and_previous_checkpoint_are_kept(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, LAST]
    assert checkpoint.read(tmp_path / PREVIOUS)["progress"]["epoch"] == 2
    state = checkpoint.load_last(tmp_path)
    assert Progress(**state["progress"]).epoch == 3 and state["state_dict"]["w"].tolist() == [3, 3, 3]


def test_truncated_checkpoint_is_reported_and_the_previous_one_used(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    content = (tmp_path / LAST).read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / LAST).write_bytes(content[:length])
        caplog.clear()
        assert checkpoint.load_last(tmp_path)["progress"]["epoch"] == 1
        assert f"{tmp_path / LAST} is damaged" in caplog.text and f"resuming from {tmp_path / PREVIOUS}" in caplog.text


def test_kill_between_the_two_renames_loses_nothing(tmp_path):
    save(tmp_path, 1)
    (tmp_path / LAST).rename(tmp_path / PREVIOUS)
    assert checkpoint.load_last(tmp_path)["progress"]["epoch"] == 1


def test_empty_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.load_last(tmp_path) is None


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    (tmp_path / LAST).write_bytes(b"not a checkpoint")
    with pytest.raises(AutosegError, match=rf"{LAST} is damaged.*\n.*--restart"):
        checkpoint.load_last(tmp_path)


def test_foreign_file_is_refused_by_name(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / BEST)
    with pytest.raises(AutosegError, match=rf"{BEST} is not a checkpoint of this version"):
        checkpoint.read(tmp_path / BEST)


def test_code_in_a_checkpoint_is_not_executed(tmp_path, capsys):
    torch.save({"format": checkpoint.FORMAT, "evil": Evil()}, tmp_path / BEST)
    with pytest.raises(AutosegError, match="was not loaded"):
        checkpoint.read(tmp_path / BEST)
    assert "code was run" not in capsys.readouterr().out


def test_full_disk_keeps_existing_checkpoints(tmp_path, monkeypatch):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(content, stream):
        stream.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail] unexpected pos 704 vs 598")  # noqa: B904 (as torch has it)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(AutosegError, match=rf"the disk is full: .*{LAST}"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert checkpoint.load_last(tmp_path)["progress"]["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, LAST]


def test_checkpoint_of_format_1_is_migrated(tmp_path):
    progress = {"epoch": 3, "stale": 2, "in_a_row": 1, "waited": 0.5}
    torch.save({"format": "autoseg checkpoint 1", "progress": progress}, tmp_path / BEST)
    read = checkpoint.Progress(**checkpoint.read(tmp_path / BEST)["progress"])
    assert (read.epoch, read.epochs_since_best, read.consecutive_skipped, read.data_seconds) == (3, 2, 1, 0.5)
