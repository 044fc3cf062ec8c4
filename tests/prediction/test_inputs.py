import numpy as np
import pytest

from autoseg.io import write_image
from autoseg.prediction.inputs import find_jobs
from autoseg.support.errors import AutosegError


def put(folder, *names, channels=1):
    for name in names:
        write_image(folder / name, np.zeros((channels, 4, 5), np.uint8))


def jobs_by_name(*arguments, **options):
    return {job.name: ([path.name for path in job.images], job.output) for job in find_jobs(*arguments, **options)}


def test_a_folder_of_pictures(tmp_path):
    put(tmp_path, "b.png", "a 1.TIF", "c.nii.gz")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    assert jobs_by_name(tmp_path, 1) == {
        "a 1": (["a 1.TIF"], "a 1.tif"),
        "b": (["b.png"], "b.png"),
        "c": (["c.nii.gz"], "c.nii.gz"),
    }


def test_masks_of_lossy_pictures_are_png(tmp_path):
    (tmp_path / "x.JPG").write_bytes(b"")
    assert jobs_by_name(tmp_path, 3) == {"x": (["x.JPG"], "x.png")}


def test_nnunet_names_lose_their_number(tmp_path):
    put(tmp_path, "a_0000.png", "b_0000.png", channels=3)
    assert jobs_by_name(tmp_path, 3) == {"a": (["a_0000.png"], "a.png"), "b": (["b_0000.png"], "b.png")}


def test_channel_files_are_one_case(tmp_path):
    put(tmp_path, "a_0000.png", "a_0001.png", "b_0001.png", "b_0000.png")
    assert jobs_by_name(tmp_path, 2) == {
        "a": (["a_0000.png", "a_0001.png"], "a.png"),
        "b": (["b_0000.png", "b_0001.png"], "b.png"),
    }


def test_numbered_frames_are_cases_of_their_own(tmp_path):
    put(tmp_path, "video_0000.png", "video_0001.png", "video_0002.png", "video_0003.png", channels=3)
    assert list(jobs_by_name(tmp_path, 3)) == ["video_0000", "video_0001", "video_0002", "video_0003"]
    put(tmp_path / "later", "scan_0001.png", "scan_0017.png", channels=3)
    assert list(jobs_by_name(tmp_path / "later", 3)) == ["scan_0001", "scan_0017"]


def test_one_file_and_lists(tmp_path):
    put(tmp_path, "a.png", "b.png")
    assert list(jobs_by_name(tmp_path / "b.png", 1)) == ["b"]
    assert list(jobs_by_name([tmp_path / "b.png", tmp_path / "a.png"], 1)) == ["a", "b"]


def test_masks_of_one_name_are_told_apart(tmp_path):
    put(tmp_path, "a.png", "a.bmp", "a_png.png")
    (tmp_path / "a.jpg").write_bytes(b"")
    outputs = [output for _, output in jobs_by_name(tmp_path, 1).values()]
    assert sorted(outputs) == ["a.bmp", "a_2.png", "a_jpg.png", "a_png.png"]
    put(tmp_path / "deep", "a.png")
    names = list(jobs_by_name([tmp_path / "a.png", tmp_path / "deep" / "a.png"], 1))
    assert len(set(names)) == 2


def test_subfolders_only_where_asked_for(tmp_path):
    put(tmp_path, "a.png", "x/a.png", "x/y/b_0000.png")
    assert list(jobs_by_name(tmp_path, 1)) == ["a"]
    assert {name: output for name, (_, output) in jobs_by_name(tmp_path, 1, recursive=True).items()} == {
        "a": "a.png",
        "x/a": "x/a.png",
        "x/y/b": "x/y/b.png",
    }


def test_masks_of_an_earlier_run_are_not_images(tmp_path):
    put(tmp_path, "a.png", "masks/a.png")
    assert list(jobs_by_name(tmp_path, 1, recursive=True, output=tmp_path / "masks")) == ["a"]


def test_no_mask_takes_the_place_of_an_image(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(AutosegError, match="would overwrite the image"):
        find_jobs(tmp_path, 1, output=tmp_path)
    put(tmp_path / "n", "b_0000.png")
    assert list(jobs_by_name(tmp_path / "n", 1, output=tmp_path / "n")) == ["b"]


def test_nothing_to_predict(tmp_path):
    with pytest.raises(AutosegError, match="does not exist"):
        find_jobs(tmp_path / "nowhere", 1)
    with pytest.raises(AutosegError, match="contains no images"):
        find_jobs(tmp_path, 1)
    with pytest.raises(AutosegError, match="no images were given"):
        find_jobs([], 1)
