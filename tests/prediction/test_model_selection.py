import json
import math
from dataclasses import replace

import numpy as np
import pytest

from autoseg import api
from autoseg.cli.find_best import main as find_best_command
from autoseg.io import read_label, write_image, write_label
from autoseg.prediction import model_selection
from autoseg.prediction.held_out import OPTIONS, dice_per_option, mean_dice
from autoseg.prediction.model_selection import best_options, case_dice, cases_to_choose_on, find_best, read_best
from autoseg.schema.dataset import label_scheme
from autoseg.schema.plan import Fold, Splits
from autoseg.schema.prediction import PostProcessing
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import Bright, picture, write_fold
from tests.schema.test_artefacts import SAMPLES

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
    assert choice.nested_dice == choice.dice and [one.fold for one in choice.nested] == [0, 1]
    assert all(one.models == ("good",) and one.postprocessing["bright"].fill_holes for one in choice.nested)
    said = "good, chosen on 4 cases of Dataset501_Tiny with Dice 1.000; on cases the choice did not see: 1.000"
    assert repr(choice) == f"BestChoice({said})"
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


@pytest.fixture
def lucky(dataset):
    """Two models that are right on one fold each, by chance: whoever chooses on a fold is wrong on the other."""
    for model, lucky_fold in (("first", 0), ("second", 1)):
        for fold in (0, 1):
            network = Bright(0.5 if fold == lucky_fold else 2.0, 10.0)
            write_fold(dataset.fold(model, fold), fold, network, splits=SPLITS, model=model, size=(96, 96))
            record = read_artefact(dataset.fold(model, fold) / "run.json", RunRecord)
            class_mean = (0.8 if model == "first" else 0.9) if fold == lucky_fold else 0.0
            write_artefact(dataset.fold(model, fold) / "run.json", replace(record, class_mean_dice=class_mean))
    return dataset


@pytest.mark.parametrize("most_models", [6, 1])
def test_the_best_of_lucky_models_is_optimistic_and_nested_folds_show_it(lucky, monkeypatch, capsys, most_models):
    """Which models are combined at all (`_MAX_MODELS`) is a choice too."""
    monkeypatch.setattr(model_selection, "_MAX_MODELS", most_models)
    monkeypatch.setattr(api.prediction, "check_runs", lambda *_: None)  # no fingerprint, so nothing to compare with
    assert find_best_command([lucky.name, "--device", "cpu", "--root", str(lucky.root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    choice = read_best(lucky)
    assert choice.models == ("second",) and choice.dice == pytest.approx(0.5, abs=0.01) and choice.nested_dice == 0
    assert [(one.fold, one.models, one.dice, one.cases) for one in choice.nested] == [
        (0, ("second",), 0.0, 2), (1, ("first",), 0.0, 2),
    ]  # fmt: skip
    assert f"Dice {choice.dice:.3f} is of the cases the choice was made on" in shown and "too high" in shown
    assert "Dice 0.000 is the one to report" in shown and "1 of 2 folds chose the same models" in shown
    assert choice.saw_scored_cases == ("epoch",) and "The epoch was chosen on scored cases" in shown


def test_models_are_combined_by_the_scores_of_their_held_out_cases(lucky, monkeypatch):
    """The Dice of a training may be of inner cases, which other folds are scored on."""
    monkeypatch.setattr(model_selection, "_MAX_MODELS", 1)
    template = read_artefact(SAMPLES / "scores_v1.json", Scores)
    for model, dice in (("first", 0.9), ("second", math.nan)):
        for fold in (0, 1):
            folder = lucky.fold(model, fold)
            write_artefact(folder / "validation" / "scores.json", replace(template, overall={"class_mean.dice": dice}))
            record = read_artefact(folder / "run.json", RunRecord)
            write_artefact(folder / "run.json", replace(record, saw_scored_cases=()))
    choice = find_best(lucky, device="cpu")
    assert choice.models == ("first",) and [one.models for one in choice.nested] == [("first",)] * 2
    assert choice.saw_scored_cases == () and "No choice of the training saw" in choice.dice_notes()[1]


def test_post_processing_is_not_scored_on_the_cases_it_was_chosen_on(dataset):
    """Of one fold the holes belong to the object, of the other one they do not."""
    for case, filled in zip("abcd", (True, True, False, False), strict=True):
        image, mask = picture((96, 96), (20, 22, 70, 60))
        hole = slice(30, 50) if filled else slice(30, 42)
        image[:, hole, hole] = 40
        if not filled:
            mask[hole, hole] = 0
        write_image(dataset.raw / "imagesTr" / f"{case}_0000.png", image)
        write_label(dataset.raw / "labelsTr" / f"{case}.png", mask)
    trained(dataset, "good", 0.5)
    choice = find_best(dataset, device="cpu")
    assert choice.postprocessing["bright"].fill_holes and choice.dice > choice.dice_before > choice.nested_dice
    assert [bool(one.postprocessing) for one in choice.nested] == [False, True]


def test_a_choice_sees_no_patient_of_the_fold_it_is_scored_on():
    """Folds of the user may hold out a patient twice."""
    folds, patients = np.array([0, 0, 1, 1]), ["one", "two", "two", "three"]
    assert cases_to_choose_on(0, folds, patients).tolist() == [False, False, False, True]
    assert cases_to_choose_on(1, folds, patients).tolist() == [True, False, False, False]
    assert cases_to_choose_on(-1, folds, patients).all()


def test_folds_with_the_same_cases_and_single_folds_have_no_nested_dice(dataset):
    same = Splits(folds=(SPLITS.folds[0], SPLITS.folds[0]), reason="twice the same")
    trained(dataset, "good", 0.5, splits=same)
    assert math.isnan(find_best(dataset, device="cpu").nested_dice)
    trained(dataset, "single", 0.5, folds=(0,))
    choice = find_best(dataset, ["single"], device="cpu")
    assert math.isnan(choice.nested_dice) and not choice.nested and "takes two folds" in " ".join(choice.dice_notes())


def test_dice_with_and_without_post_processing_leaves_out_the_same_classes():
    """A class in neither mask is undefined for both. It was 1 for one of them: a gain without any change."""
    scheme = label_scheme({"background": 0, "polyp": 1, "stone": 2}, None)
    reference = np.zeros((64, 64), np.uint8)
    reference[10:40, 10:40] = 1
    half = reference.copy()
    half[10:25] = 0
    with_speck = half.copy()
    with_speck[60, 60] = 2
    for labels in (half, with_speck):
        rows = dice_per_option(labels, reference, scheme)
        assert case_dice(rows[None], (0, 0))[0] == pytest.approx(mean_dice(labels, reference, scheme))
    rows = np.stack([dice_per_option(one, reference, scheme) for one in (half, with_speck)])
    speck_dropped = best_options(rows)
    assert speck_dropped[0] == 0 and OPTIONS[speck_dropped[1]].min_object_fraction > 0
    assert case_dice(rows, speck_dropped) == pytest.approx([2 / 3, 2 / 3])
    empty = dice_per_option(np.zeros_like(half), np.zeros_like(half), scheme)
    assert np.isnan(empty).all() and case_dice(empty[None], (0, 0)) == [1.0]


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
