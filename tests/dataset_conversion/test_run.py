"""All converters: idempotent, resumable, all or nothing, duplicates are reported, a contact sheet is drawn."""

import json
import shutil

import cv2
import numpy as np
import pytest

from autoseg.io import RawDataset
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion import storing, writer
from dataset_conversion.run import convert
from tests.dataset_conversion import official
from tests.dataset_conversion.official import blob, picture, save


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "root")


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_does_nothing(tmp_path, workspace):
    official.fives(tmp_path / "source")
    first = convert("fives", tmp_path / "source", workspace)
    before = times(first.dataset.raw)
    second = convert("fives", tmp_path / "source", workspace)
    assert second.unchanged and "nothing was done" in str(second) and times(first.dataset.raw) == before
    assert (second.record, second.spec, second.dataset) == (first.record, first.spec, first.dataset)
    save(tmp_path / "source" / "train" / "Original" / "1_A.png", picture(77))
    with pytest.raises(AutosegError, match="exists"):
        convert("fives", tmp_path / "source", workspace)
    assert times(first.dataset.raw) == before
    assert not convert("fives", tmp_path / "source", workspace, overwrite=True).unchanged
    assert len(workspace.datasets()) == 1


def test_other_options_are_another_conversion(tmp_path, workspace):
    official.busi(tmp_path / "source")
    convert("busi", tmp_path / "source", workspace)
    with pytest.raises(AutosegError, match="exists"):
        convert("busi", tmp_path / "source", workspace, options={"without_normal": True})


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def test_killed_run_is_resumed(tmp_path, workspace, monkeypatch):
    tree = official.glas(tmp_path / "source")
    whole = convert("glas", tmp_path / "source", Workspace(tmp_path / "whole"))
    written = []

    def interrupted_store(folder, case, spec, scheme):
        if len(written) == 3:
            raise Killed
        written.append(case.name)
        return storing.store_case(folder, case, spec, scheme)

    monkeypatch.setattr(writer, "store_case", interrupted_store)
    with pytest.raises(Killed):
        convert("glas", tmp_path / "source", workspace, workers=1)
    assert workspace.datasets() == [] and len(written) == 3
    (workspace.raw / ".Dataset501_GlaS.partial" / "imagesTr" / ".half.png").write_bytes(b"cut short")

    def counting_store(folder, case, spec, scheme):
        written.append(case.name)
        return storing.store_case(folder, case, spec, scheme)

    monkeypatch.setattr(writer, "store_case", counting_store)
    report = convert("glas", tmp_path / "source", workspace, workers=1)
    assert len(written) == len(set(written)) == len(tree.truth)
    assert (report.record, report.spec) == (whole.record, whole.spec)
    files = {path.relative_to(report.dataset.raw) for path in times(report.dataset.raw)}
    for path in files:
        assert (report.dataset.raw / path).read_bytes() == (whole.dataset.raw / path).read_bytes(), path
    assert files == {path.relative_to(whole.dataset.raw) for path in times(whole.dataset.raw)}
    assert [path.name for path in workspace.raw.iterdir()] == [report.dataset.name]


def test_interrupted_run_of_other_files_is_discarded(tmp_path, workspace, monkeypatch):
    official.glas(tmp_path / "source")

    def interrupted_store(folder, case, spec, scheme):
        if case.name == "train_2":
            raise Killed
        return storing.store_case(folder, case, spec, scheme)

    monkeypatch.setattr(writer, "store_case", interrupted_store)
    with pytest.raises(Killed):
        convert("glas", tmp_path / "source", workspace, workers=1)
    monkeypatch.setattr(writer, "store_case", storing.store_case)
    left = list(workspace.raw.iterdir())
    assert [path.name for path in left] == [".Dataset501_GlaS.partial"]
    shutil.rmtree(tmp_path / "source")
    tree = official.glas(tmp_path / "source")
    report = convert("glas", tmp_path / "source", workspace)
    assert len(RawDataset.open(report.dataset).cases) == len(tree.truth) - len(tree.test) and not left[0].exists()


def test_two_conversions_at_once_are_refused(tmp_path, workspace):
    fcntl = pytest.importorskip("fcntl")
    official.etis(tmp_path / "source")
    stage = workspace.raw / ".Dataset501_ETISLarib.partial"
    stage.mkdir(parents=True)
    with (stage / ".journal").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AutosegError, match="another process"):
            convert("etis", tmp_path / "source", workspace)
        assert (stage / ".journal").exists()
    assert convert("etis", tmp_path / "source", workspace).cases == 3


def test_a_dry_run_reads_everything_and_writes_nothing(tmp_path, workspace):
    official.acdc(tmp_path / "source")
    report = convert("acdc", tmp_path / "source", workspace, dry_run=True)
    assert not workspace.raw.exists() and "dry run" in str(report)
    again = convert("acdc", tmp_path / "source", workspace)
    assert again.record == report.record and again.spec == report.spec
    (next((tmp_path / "source").rglob("*_gt.nii.gz"))).write_bytes(b"damaged")
    with pytest.raises(SeveralProblems, match="cannot be read"):
        convert("acdc", tmp_path / "source", workspace, "Other", dry_run=True)


def test_duplicates_are_reported_across_the_split(tmp_path, workspace):
    official.fives(tmp_path / "source")
    for part, name, image in (
        ("train", "7_G", picture(0)),
        ("train", "8_D", cv2.convertScaleAbs(picture(1), alpha=0.9)),
        ("test", "9_A", picture(1)),
    ):
        save(tmp_path / "source" / part / "Original" / f"{name}.png", image)
        save(tmp_path / "source" / part / "Ground truth" / f"{name}.png", blob(3, 255))
    report = convert("fives", tmp_path / "source", workspace)
    assert {frozenset(names) for names in report.record.duplicates} == {
        frozenset({"train_1_A", "train_7_G"}),
        frozenset({"train_2_N", "test_9_A (test)"}),
    }
    assert any("train_8_D" in names for names in report.record.near_duplicates)
    assert "both sides of the test split" in str(report)
    record = json.loads((report.dataset.raw / "conversion.json").read_text())
    assert record["duplicates"] == [list(names) for names in report.record.duplicates]


def test_near_duplicates_of_one_patient_are_not_reported(tmp_path, workspace):
    tree = official.glas(tmp_path / "source")
    folder = next((tmp_path / "source").iterdir())
    save(folder / "train_2.bmp", cv2.convertScaleAbs(picture(0), alpha=0.9))
    report = convert("glas", tmp_path / "source", workspace)
    assert tree.groups["train_1"] == tree.groups["train_2"] and report.record.near_duplicates == ()


def test_the_contact_sheet_shows_masks_in_their_place(tmp_path, workspace):
    official.montgomery(tmp_path / "source")
    report = convert("montgomery", tmp_path / "source", workspace)
    sheet = cv2.imread(str(report.dataset.raw / "contact_sheet.png"))[..., ::-1].astype(int)
    # The first cell: 200 pixels for 64, the plain picture from x = 8 and the marked one from x = 216, both from y = 8.
    plain, marked = sheet[8:158, 8:208], sheet[8:158, 216:416]
    changed = (plain != marked).any(-1)
    expected = np.zeros((48, 64), bool)
    expected[10:40, 6:26] = expected[10:40, 36:58] = True
    inside = cv2.resize(expected.astype(np.uint8), (200, 150), interpolation=cv2.INTER_NEAREST) > 0
    assert (changed == inside).mean() > 0.97


def test_names_options_and_numbers(tmp_path, workspace):
    official.etis(tmp_path / "source")
    with pytest.raises(AutosegError, match="did you mean kvasir_seg"):
        convert("kvasir", tmp_path / "source", workspace)
    with pytest.raises(AutosegError, match="has no option"):
        convert("etis", tmp_path / "source", workspace, options={"observer": 2})
    with pytest.raises(AutosegError, match="one of 1, 2"):
        convert("drive", tmp_path / "source", workspace, options={"observer": 3})
    assert convert("etis", tmp_path / "source", workspace, "Polyps", 7).dataset.name == "Dataset007_Polyps"
    with pytest.raises(AutosegError, match="belongs to Dataset007_Polyps"):
        convert("etis", tmp_path / "source", workspace, "Other", 7)
