from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.support.errors import AutosegError
from autoseg.training.csv_logger import NAME, MetricsLog


def rows(*epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": 1 / epoch, "class_mean_dice": 0.5, "dice_a, b": 0.25} for epoch in epochs]


def test_rows_after_the_checkpoint_are_dropped_on_resuming(tmp_path):
    log = MetricsLog(tmp_path, ["a, b"])
    log.begin(0)
    for row in rows(1, 2, 3):
        log.append(row)
    later = MetricsLog(tmp_path, ["a, b"])
    later.begin(2)
    later.append(rows(3)[0])
    lines = (tmp_path / NAME).read_text().splitlines()
    assert lines[0].startswith('epoch,loss,learning_rate,micro_dice,micro_iou,class_mean_dice,"dice_a, b",seconds')
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[2].split(",")[:7] == ["2", "0.5", "", "", "", "0.5", "0.25"]
    assert [row["epoch"] for row in later.rows] == [1, 2, 3] and later.rows[0] == rows(1)[0]


def test_truncated_line_is_dropped(tmp_path):
    log = MetricsLog(tmp_path, ["a"])
    log.begin(0)
    log.append({"epoch": 1, "loss": 2.0})
    with (tmp_path / NAME).open("a") as stream:
        stream.write("2,1.5e")
    later = MetricsLog(tmp_path, ["a"])
    later.begin(1)
    assert (tmp_path / NAME).read_text().count("\n") == 2 and len(later.rows) == 1


def test_new_run_starts_an_empty_log(tmp_path):
    log = MetricsLog(tmp_path, ["a"])
    log.begin(0)
    log.append({"epoch": 1, "loss": 2.0})
    again = MetricsLog(tmp_path, ["a"])
    again.begin(0)
    assert again.rows == [] and (tmp_path / NAME).read_text().count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_full_disk_is_reported(tmp_path):
    log = MetricsLog(tmp_path, ("a",))
    (tmp_path / NAME).symlink_to("/dev/full")
    with pytest.raises(AutosegError, match=r"cannot write .*metrics.csv: the disk is full\n.*free some space"):
        log.append({"epoch": 1.0})


def test_the_log_of_an_older_release_goes_on_with_its_class_means(tmp_path):
    (tmp_path / NAME).write_text("epoch,loss,learning_rate,dice,dice_a,seconds\n1,0.7,0.1,0.4,0.5,2\n2,0.6,0.1,0.45,0.5,2\n")
    log = MetricsLog(tmp_path, ["a"])
    log.begin(1)
    assert log.rows == [{"epoch": 1, "loss": 0.7, "learning_rate": 0.1, "class_mean_dice": 0.4, "dice_a": 0.5, "seconds": 2}]
