"""nnU-Net's results folder of a model next to the trained ones."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.comparison.external_masks import validation_folders
from autoseg.support.errors import SeveralProblems


@pytest.fixture
def nnunet(experiment, tmp_path: Path) -> Path:
    """What nnU-Net leaves: masks of each fold, its summary, probabilities, a stray file. The masks are those of segformer."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    for fold in range(2):
        target = folder / f"fold_{fold}" / "validation"
        target.mkdir(parents=True)
        for path in (experiment.dataset.fold("segformer", fold) / "validation").glob("*.png"):
            shutil.copy(path, target)
            (target / f"{path.stem}.npz").write_bytes(b"probabilities")
        (target / "summary.json").write_text("{}")
        (target / "Thumbs.db").write_bytes(b"left by a file browser")
        (folder / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"weights")
    (folder / "plans.json").write_text("{}")
    (folder / "crossval_results_folds_0_1_2_3_4").mkdir()
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_folds_are_gathered_and_scored(experiment, nnunet: Path, tmp_path: Path) -> None:
    before = listing(nnunet)
    (dataset,) = api.compare("Polyps", root=experiment.root, also={"nnunet": nnunet}, output=tmp_path / "out").datasets
    results = {result.model: result for result in dataset.models}
    other, same = results["nnunet"], results["segformer"]
    assert other.folds == (0, 1) and other.cases == same.cases == 12
    # No guess from the name: autoseg has a network of this name too.
    assert other.family == "external" and other.cost is None and other.title == "nnunet" and other.variant == ""
    assert other.overall["micro.dice"].mean == same.overall["micro.dice"].mean
    assert other.overall["micro.dice"].std == same.overall["micro.dice"].std > 0
    test = next(one for one in dataset.tests if {one.first, one.second} == {"segformer", "nnunet"})
    assert test.difference.mean == 0 and test.p == 1
    assert any("external" in (one.first, one.second) for one in dataset.family_tests)
    assert listing(nnunet) == before, "nothing is written into nnU-Net's folder"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "nnunet, Dice" in page, "its contours are in the gallery"


def test_some_folds_and_another_family(experiment, nnunet: Path, tmp_path: Path) -> None:
    options = {"root": experiment.root, "output": tmp_path / "out", "report": False}
    (dataset,) = api.compare("Polyps", also={"nnunet": nnunet}, family="U-Net", folds=[1], **options).datasets
    other = next(one for one in dataset.models if one.model == "nnunet")
    assert (other.folds, other.family, other.cases) == ((1,), "U-Net", 6)
    shutil.rmtree(nnunet / "fold_0")
    (dataset,) = api.compare("Polyps", also={"nnunet": nnunet}, **options).datasets
    other = next(one for one in dataset.models if one.model == "nnunet")
    assert (other.cases, dataset.cases) == (6, 12) and math.isnan(other.overall["micro.dice"].std)


def test_other_folds_are_refused(experiment, nnunet: Path, tmp_path: Path) -> None:
    first, second = (nnunet / f"fold_{fold}" / "validation" for fold in (0, 1))
    moved = min(first.glob("*.png"))
    moved.rename(second / moved.name)
    (nnunet / "fold_9" / "validation").mkdir(parents=True)
    with pytest.raises(SeveralProblems, match="nnunet held out other cases") as caught:
        api.compare("Polyps", root=experiment.root, also={"nnunet": nnunet}, output=tmp_path / "out", report=False)
    name = moved.stem
    assert list(caught.value.problems) == [
        f"fold 0: without {name}", f"fold 1: with {name}", "fold 9: the trained models have 2 folds",
    ]  # fmt: skip
    assert "splits_final.json" in caught.value.remedy and not (tmp_path / "out").exists()


def test_the_command_takes_the_folder(experiment, nnunet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Polyps", "--root", str(experiment.root), "--also", f"nnunet={nnunet}", "--family", "U-Net", "--no-report"]
    assert compare.main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "U-Net" in capsys.readouterr().out


def test_only_numbered_folders_are_folds(tmp_path: Path) -> None:
    for name in ("fold_0", "fold_all", "fold_12", "fold_x", "old_fold_1"):
        (tmp_path / name / "validation").mkdir(parents=True)
    (tmp_path / "fold_2").mkdir()
    assert list(validation_folders(tmp_path)) == [0, 12]
