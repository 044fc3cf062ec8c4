import json

import pytest

from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.io import read_label, write_image, write_label
from autoseg.prediction.validation import predict_fold
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import picture, write_fold


@pytest.fixture
def dataset(tmp_path, bright_is_registered):
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    for number, case in enumerate("abcd"):
        image, mask = picture((60 + number, 70), (10, 12, 40, 50 + number))
        write_image(dataset.raw / "imagesTr" / f"{case}_0000.png", image)
        write_label(dataset.raw / "labelsTr" / f"{case}.png", mask)
    labels = {"background": 0, "bright": 1}
    names = {"0": "R", "1": "G", "2": "B"}
    spec = {"channel_names": names, "labels": labels, "numTraining": 4, "file_ending": ".png"}
    dataset.description.write_text(json.dumps(spec))
    splits = Splits(folds=(Fold(("c", "d"), ("a", "b")), Fold(("a", "b"), ("c", "d"))), reason="by hand")
    write_fold(dataset.fold("bright", 1), 1, splits=splits)
    return dataset


def test_the_cases_held_back_are_predicted_and_can_be_scored(dataset):
    folder = predict_fold(dataset, "bright", 1, device="cpu")
    assert folder == dataset.fold("bright", 1) / "validation"
    assert sorted(path.name for path in folder.glob("*.png")) == ["c.png", "d.png"]
    assert read_label(folder / "d.png").array.shape == (63, 70)
    assert (folder / "overlays" / "c.png").is_file()
    scores = evaluate_folders(folder, dataset.raw / "labelsTr", cases=["c", "d"])
    assert scores.overall["micro.dice"] > 0.97


def test_an_older_folder_is_replaced(dataset):
    stale = predict_fold(dataset, "bright", 1, device="cpu", overlays=1) / "a.png"
    write_label(stale, picture()[1])
    predict_fold(dataset, "bright", 1, device="cpu", overlays=0)
    assert not stale.exists() and not (stale.parent / "overlays").exists()


def test_only_so_many_overlays_are_drawn(dataset):
    folder = predict_fold(dataset, "bright", 1, device="cpu", overlays=1)
    assert [path.name for path in (folder / "overlays").iterdir()] == ["c.png"]


def test_faulty_cases_are_named_and_nothing_is_left(dataset):
    (dataset.raw / "imagesTr" / "c_0000.png").write_bytes(b"torn")
    with pytest.raises(SeveralProblems, match="c_0000.png"):
        predict_fold(dataset, "bright", 1, device="cpu")
    (dataset.raw / "imagesTr" / "c_0000.png").unlink()
    with pytest.raises(SeveralProblems, match="c: no image"):
        predict_fold(dataset, "bright", 1, device="cpu")
    assert sorted(path.name for path in dataset.fold("bright", 1).iterdir()) == [
        "best.pt",
        "dataset.json",
        "plan.json",
        "run.json",
        "splits.json",
    ]


def test_a_fold_that_is_not_trained(dataset):
    with pytest.raises(AutosegError, match="fold 0"):
        predict_fold(dataset, "bright", 0, device="cpu")
