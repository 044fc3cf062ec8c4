import json

import numpy as np
import pytest

from autoseg import api
from autoseg.io import read_label, write_image, write_label
from autoseg.prediction.model_selection import find_best, read_best
from autoseg.schema.plan import Fold, Splits
from autoseg.schema.prediction import PostProcessing
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import Bright, picture, write_fold

SPLITS = Splits(folds=(Fold(("c", "d"), ("a", "b")), Fold(("a", "b"), ("c", "d"))), reason="by hand")


def scene(number):
    """A bright box, with a bright speck that is no part of it and a dark hole that is."""
    image, mask = picture((96, 96), (20, 22, 70, 60 + number))
    image[:, 4:7, 4:7] = 220
    image[:, 40:44, 40:44] = 40
    return image, mask


@pytest.fixture
def dataset(tmp_path, bright_is_registered):
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    for number, case in enumerate("abcd"):
        image, mask = scene(number)
        write_image(dataset.raw / "imagesTr" / f"{case}_0000.png", image)
        write_label(dataset.raw / "labelsTr" / f"{case}.png", mask)
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "bright": 1},
        "numTraining": 4,
        "file_ending": ".png",
    }
    dataset.description.write_text(json.dumps(description))
    return dataset


def trained(dataset, model, level, folds=(0, 1), splits=SPLITS):
    for fold in folds:
        write_fold(dataset.fold(model, fold), fold, Bright(level, 60.0), splits=splits, model=model, size=(96, 96))


def test_the_best_model_and_what_to_do_to_its_masks(dataset, tmp_path):
    trained(dataset, "good", 0.5)
    trained(dataset, "blind", 0.95)
    choice = find_best(dataset, device="cpu")
    assert choice.models == ("good",) and choice.folds == (0, 1) and choice.cases == 4
    assert {candidate.models for candidate in choice.candidates} == {("good",), ("blind",), ("blind", "good")}
    assert choice.candidates[0].dice == choice.dice_before > choice.candidates[-1].dice
    assert choice.postprocessing["bright"].fill_holes
    assert choice.dice == pytest.approx(1, abs=1e-4) and choice.dice > choice.dice_before
    assert read_best(dataset) == choice and "-m best" in choice.command
    assert repr(choice) == f"BestChoice(good on 4 cases of Dataset501_Tiny: Dice {choice.dice:.3f})"
    assert choice.to_frame()["dice"].tolist() == [candidate.dice for candidate in choice.candidates]
    report = api.predict(dataset.raw / "imagesTr", tmp_path / "out", 501, "best", device="cpu", root=dataset.root)
    assert report.record.models == ("good",) and report.record.folds == (0, 1) and "bright" in report.record.postprocessing
    assert np.array_equal(read_label(tmp_path / "out" / "b.png").array, scene(1)[1])


def test_several_models_are_taken_where_they_are_better_together(dataset):
    trained(dataset, "low", 0.1)  # finds everything
    trained(dataset, "middle", 0.75)
    trained(dataset, "high", 0.95)  # finds nothing
    choice = find_best(dataset, ["low", "middle", "high"], device="cpu")
    dice = {candidate.models: candidate.dice for candidate in choice.candidates}
    assert len(dice) == 7 and max(dice, key=dice.get) == choice.candidates[0].models
    assert choice.dice_before == max(dice.values())


def test_post_processing_that_does_not_help_is_not_done(dataset):
    for number, case in enumerate("abcd"):
        image, mask = picture((96, 96), (20, 22, 70, 60 + number))
        write_image(dataset.raw / "imagesTr" / f"{case}_0000.png", image)
        write_label(dataset.raw / "labelsTr" / f"{case}.png", mask)
    trained(dataset, "good", 0.5)
    choice = find_best(dataset, device="cpu")
    assert choice.postprocessing == {} and choice.dice == choice.dice_before == 1.0


def test_only_what_can_be_compared_is_compared(dataset):
    with pytest.raises(AutosegError, match="no model is trained"):
        find_best(dataset, device="cpu")
    trained(dataset, "good", 0.5)
    with pytest.raises(AutosegError, match="other has no trained fold"):
        find_best(dataset, ["good", "other"], device="cpu")
    trained(dataset, "other", 0.5, folds=(0,))
    assert find_best(dataset, device="cpu").folds == (0,)
    swapped = Splits(folds=(SPLITS.folds[1], SPLITS.folds[0]), reason="the other way")
    trained(dataset, "third", 0.5, splits=swapped)
    with pytest.raises(AutosegError, match="different splits"):
        find_best(dataset, device="cpu")


def test_a_choice_of_earlier_trainings_is_refused(dataset):
    with pytest.raises(AutosegError, match="autoseg_find_best 501"):
        read_best(dataset)
    trained(dataset, "good", 0.5)
    find_best(dataset, device="cpu")
    record = dataset.fold("good", 0) / "run.json"
    record.write_text(record.read_text().replace('"identity": "', '"identity": "another '))
    with pytest.raises(AutosegError, match="out of date"):
        read_best(dataset)


def test_words_of_a_choice():
    assert "holes filled" in str(PostProcessing(fill_holes=True))
