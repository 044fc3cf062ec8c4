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
    with pytest.raises(AutosegError, match=rf"cannot write .*{LAST}: the disk is full"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert checkpoint.load_last(tmp_path)["progress"]["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, LAST]


def test_checkpoint_of_format_1_is_migrated(tmp_path):
    progress = {"epoch": 3, "stale": 2, "in_a_row": 1, "waited": 0.5, "best_dice": 0.25}
    torch.save({"format": "autoseg checkpoint 1", "progress": progress}, tmp_path / BEST)
    read = checkpoint.Progress(**checkpoint.read(tmp_path / BEST)["progress"])
    assert (read.epoch, read.validations_since_best, read.consecutive_skipped, read.data_seconds) == (3, 2, 1, 0.5)
    # It chose by the mean over classes, and counted patience from it.
    assert (read.best_value, read.patience_value, read.averages) == (0.25, 0.25, {"class_mean.dice": 0.25})


def weights():
    random = torch.Generator().manual_seed(0)
    return {"w": torch.rand(40, 50, generator=random), "n": torch.tensor(7), "h": torch.rand(9, generator=random).bfloat16()}


@pytest.mark.parametrize("name", [BEST, LAST])
def test_a_flipped_bit_anywhere_in_the_content_is_detected(tmp_path, name):
    """Every 97th byte: of tensors, numbers and names."""
    checkpoint.save_best(tmp_path, {"training": "x"}, weights(), 3, 0.5)
    checkpoint.save_last(tmp_path, {"training": "x"}, {"state_dict": weights()}, Progress(epoch=2), "contiguous")
    content = (tmp_path / name).read_bytes()
    expected = checkpoint.read(tmp_path / name)
    num_detected = 0
    for index in range(0, len(content), 97):
        (tmp_path / name).write_bytes(content[:index] + bytes([content[index] ^ 16]) + content[index + 1 :])
        try:
            state = checkpoint.read(tmp_path / name)
        except AutosegError as error:
            num_detected += 1
            assert str(tmp_path / name) in error.problem and "train again" in error.remedy
        else:  # Padding, or a time stamp that is not read.
            assert all(torch.equal(state["state_dict"][key], value) for key, value in expected["state_dict"].items())
            assert {key: state[key] for key in state if key != "state_dict"} == {
                key: expected[key] for key in expected if key != "state_dict"
            }
    assert num_detected > 80


def test_zeros_and_weights_saved_again_are_found(tmp_path):
    checkpoint.save_best(tmp_path, {"training": "x"}, weights(), 3, 0.5)
    content = (tmp_path / BEST).read_bytes()
    (tmp_path / BEST).write_bytes(content[:2000] + bytes(1024) + content[3024:])
    with pytest.raises(AutosegError, match=rf"{BEST} is damaged"):
        checkpoint.read(tmp_path / BEST)
    (tmp_path / BEST).write_bytes(content)
    state = torch.load(tmp_path / BEST, weights_only=True)
    state["state_dict"]["w"][3, 4] += 1
    torch.save(state, tmp_path / BEST)
    with pytest.raises(AutosegError, match=r"its content changed after it was written"):
        checkpoint.read(tmp_path / BEST)


def test_a_flipped_bit_in_a_checkpoint_without_a_hash_is_found(tmp_path):
    """As older releases wrote them."""
    path = tmp_path / BEST
    torch.save({"format": checkpoint.FORMAT, "identity": {}, "state_dict": weights()}, path)
    assert torch.equal(checkpoint.read(path)["state_dict"]["w"], weights()["w"])
    content = path.read_bytes()
    index = content.index(weights()["w"].numpy().tobytes()[:64]) + 5
    path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
    with pytest.raises(AutosegError, match=rf"{BEST} is damaged"):
        checkpoint.read(path)


def test_best_weights_of_another_run_are_told(tmp_path):
    checkpoint.save_best(tmp_path, {"training": "x"}, weights(), 3, 0.5)
    assert checkpoint.read_best(tmp_path, {"training": "x"})["epoch"] == 3
    with pytest.raises(AutosegError, match=rf"{BEST} holds the weights of another run"):
        checkpoint.read_best(tmp_path, {"training": "y"})
