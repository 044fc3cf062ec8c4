import json
import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.evaluation.case import Relabel, score_case
from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.io import write_label
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact

SPEC = DatasetSpec(
    channel_names={"0": "R"}, labels={"background": 0, "lesion": 1, "scar": 2, "ignore": 3}, numTraining=2, file_ending=".png"
)
REGIONS = DatasetSpec(
    channel_names={"0": "R"},
    labels={"background": 0, "whole": (1, 2), "core": (2,)},
    numTraining=2,
    file_ending=".png",
    regions_class_order=(1, 2),
)


def square(top, left, side=10, value=1, size=(40, 50)):
    label = np.zeros(size, np.uint8)
    label[top : top + side, left : left + side] = value
    return label


@pytest.fixture
def folders(tmp_path):
    """Two cases: `shift`, one class moved by two rows, and `none`, empty in both."""
    predictions, references = tmp_path / "pred", tmp_path / "ref"
    write_label(references / "shift.png", square(10, 10))
    write_label(predictions / "shift.png", square(12, 10))
    write_label(references / "none.png", square(0, 0, 0))
    write_label(predictions / "none.png", square(0, 0, 0))
    return predictions, references


def test_scores_by_hand(folders):
    scores = evaluate_folders(*folders, SPEC)
    shift = {case.case: case for case in scores.cases}["shift"].classes["lesion"]
    assert (shift.tp, shift.fp, shift.fn) == (80, 20, 20)
    assert (shift.dice, shift.iou, shift.precision, shift.recall) == (0.8, 80 / 120, 0.8, 0.8)
    assert shift.hd95 == 2
    assert (shift.object_tp, shift.object_fp, shift.object_fn) == (1, 0, 0) and shift.panoptic_quality == 80 / 120
    pooled = scores.classes["lesion"].pooled
    assert (pooled["object_f1"], pooled["object_sensitivity"], pooled["area_bias"]) == (1, 1, 0)
    assert list(scores.classes) == ["lesion", "scar"]
    assert scores.unit == "px"


def test_empty_masks_are_left_out_and_counted(folders):
    scores = evaluate_folders(*folders, SPEC)
    lesion, scar = scores.classes["lesion"], scores.classes["scar"]
    assert lesion.per_image["dice"].mean == 0.8 and lesion.per_image["dice"].undefined == 1
    assert lesion.pooled["dice"] == 0.8
    assert math.isnan(scar.pooled["dice"]) and scar.per_image["hd95"].undefined == 2
    assert scores.undefined == 16 * 1 + 16 * 2
    assert scores.overall["per_image.dice"] == 0.8
    assert "undefined" in scores.rule


def test_pooled_and_per_image_differ_where_sizes_do(folders):
    predictions, references = folders
    write_label(references / "small.png", square(0, 0, 2))
    write_label(predictions / "small.png", square(30, 30, 2))
    scores = evaluate_folders(predictions, references, SPEC)
    lesion = scores.classes["lesion"]
    assert lesion.per_image["dice"].mean == pytest.approx(0.4) and lesion.per_image["dice"].std == pytest.approx(0.4)
    assert lesion.pooled["dice"] == pytest.approx(2 * 80 / (2 * 80 + 24 + 24))
    assert scores.overall["micro.dice"] == lesion.pooled["dice"]


def test_files_are_written_and_read_back(folders, tmp_path):
    scores = evaluate_folders(*folders, SPEC, output=tmp_path / "out")
    again = read_artefact(tmp_path / "out" / "scores.json", Scores)
    assert [case.case for case in again.cases] == ["none", "shift"]
    assert again.classes["lesion"].per_image == scores.classes["lesion"].per_image
    rows = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert rows[0] == (
        "case,class,tp,fp,fn,dice,iou,precision,recall,hd95,hd95_diagonal,hd95_pooled,asd,nsd,cldice,"
        "boundary_iou,area_error,object_sensitivity,object_precision,object_f1,panoptic_quality,area_bias,"
        "object_tp,object_fp,object_fn,unit"
    )
    assert rows[1] == "none,lesion,0,0,0" + "," * 18 + "0,0,0,px"
    assert rows[3].startswith("shift,lesion,80,20,20,0.800000,0.666667,0.800000,0.800000,2.000000,2.000000,")
    assert rows[3].endswith(",0.000000,1.000000,1.000000,1.000000,0.666667,0.000000,1,0,0,px")
    assert len(rows) == 1 + 2 * 2
    assert not (folders[0] / "scores.json").exists()
    evaluate_folders(*folders, SPEC)
    assert (folders[0] / "scores.json").exists() and evaluate_folders(*folders, SPEC).undefined == scores.undefined


def test_ignored_pixels_are_not_counted(folders):
    predictions, references = folders
    label = square(10, 10)
    label[20:, :] = 3
    write_label(references / "shift.png", label)
    scores = evaluate_folders(predictions, references, SPEC)
    shift = {case.case: case for case in scores.cases}["shift"].classes["lesion"]
    assert (shift.tp, shift.fp, shift.fn, shift.hd95) == (80, 0, 20, 2)


def test_regions_are_unions(folders):
    predictions, references = folders
    both = square(10, 10, 10) + square(12, 12, 4)
    write_label(references / "shift.png", both)
    write_label(predictions / "shift.png", square(10, 10, 10))
    classes = {case.case: case for case in evaluate_folders(*folders, REGIONS).cases}["shift"].classes
    assert classes["whole"].dice == 1 and classes["whole"].hd95 == 0
    assert classes["core"].dice == 0 and classes["core"].fn == 16 and math.isnan(classes["core"].hd95)
    assert classes["core"].hd95_diagonal == pytest.approx(math.hypot(40, 50))


def test_labels_come_from_dataset_json_above_the_references(folders):
    predictions, references = folders
    labels = {"background": 0, "polyp": 1}
    description = {"channel_names": {"0": "R"}, "labels": labels, "numTraining": 2, "file_ending": ".png"}
    (references.parent / "dataset.json").write_text(json.dumps(description))
    assert list(evaluate_folders(predictions, references).classes) == ["polyp"]


def test_undeclared_labels_are_named_by_value(folders):
    predictions, references = folders
    write_label(references / "other.png", square(1, 1, value=12))
    write_label(predictions / "other.png", square(1, 1, value=2))
    scores = evaluate_folders(predictions, references)
    assert list(scores.classes) == ["1", "2", "12"]
    assert all(list(case.classes) == ["1", "2", "12"] for case in scores.cases)
    assert scores.classes["12"].pooled["recall"] == 0 and scores.classes["1"].pooled["dice"] == 0.8


def test_no_common_values_raises(folders):
    predictions, references = folders
    write_label(references / "shift.png", square(10, 10, value=2))
    with pytest.raises(AutosegError, match=r"\[1\].*\[2\].*none in common"):
        evaluate_folders(predictions, references)


def test_all_missing_predictions_are_named(folders):
    predictions, references = folders
    for name in ("a", "b"):
        write_label(references / f"{name}.png", square(0, 0))
    write_label(predictions / "a_0000.png", square(0, 0))
    with pytest.raises(SeveralProblems) as caught:
        evaluate_folders(predictions, references, SPEC)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["a", "b"]
    assert "a_0000" in caught.value.remedy
    assert not (predictions / "scores.json").exists()


def test_only_selected_cases_are_scored(folders):
    predictions, references = folders
    write_label(references / "a.png", square(0, 0))
    assert [case.case for case in evaluate_folders(predictions, references, SPEC, cases=["shift"]).cases] == ["shift"]
    with pytest.raises(SeveralProblems, match="nowhere: no reference"):
        evaluate_folders(predictions, references, SPEC, cases=["nowhere"])


def test_extra_predictions_are_logged_and_not_scored(folders, caplog):
    predictions, references = folders
    write_label(predictions / "stranger.png", square(0, 0))
    with caplog.at_level("INFO", logger="autoseg"):
        scores = evaluate_folders(predictions, references, SPEC)
    assert len(scores.cases) == 2
    assert "1 predictions have no reference and are not scored: stranger.png" in caplog.text


def test_faults_of_all_files_are_reported_together(folders):
    predictions, references = folders
    write_label(predictions / "shift.png", square(1, 1, size=(40, 51)))
    write_label(predictions / "none.png", square(1, 1, value=9))
    write_label(references / "torn.png", square(1, 1))
    (predictions / "torn.png").write_bytes(b"no picture")
    with pytest.raises(SeveralProblems) as caught:
        evaluate_folders(predictions, references, SPEC)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "40 x 51" in text and "40 x 50" in text and str(predictions / "shift.png") in text
    assert "none.png has the values 9; dataset.json declares 0, 1, 2, 3" in text
    assert "torn.png" in text


def test_missing_and_empty_folders_raise(folders, tmp_path):
    predictions, _ = folders
    with pytest.raises(AutosegError, match="is not a folder"):
        evaluate_folders(predictions, tmp_path / "nowhere", SPEC)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AutosegError, match="has no masks"):
        evaluate_folders(predictions, tmp_path / "empty", SPEC)


def write_nifti(path, array, spacing):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def test_suffixes_may_differ_and_spacing_is_of_the_reference(tmp_path):
    write_nifti(tmp_path / "ref" / "shift.nii.gz", square(10, 10), (0.25, 0.5))
    write_label(tmp_path / "pred" / "shift.png", square(12, 10))
    scores = evaluate_folders(tmp_path / "pred", tmp_path / "ref", SPEC)
    assert scores.unit == "mm"
    assert scores.classes["lesion"].per_image["hd95"].mean == pytest.approx(1.0)


def test_mixed_spacing_gives_pixels(tmp_path, folders, caplog):
    predictions, references = folders
    write_nifti(references / "medical.nii.gz", square(10, 10), (0.25, 0.5))
    write_label(predictions / "medical.png", square(12, 10))
    with caplog.at_level("WARNING", logger="autoseg"):
        scores = evaluate_folders(predictions, references, SPEC)
    assert scores.unit == "px" and "2 of 3 references have no spacing" in caplog.text
    assert {case.case: case for case in scores.cases}["medical"].classes["lesion"].hd95 == 2


def test_two_masks_of_one_case_raise(folders):
    predictions, references = folders
    write_nifti(predictions / "shift.nii.gz", square(10, 10), (1, 1))
    with pytest.raises(SeveralProblems, match=r"shift.nii.gz and shift.png"):
        evaluate_folders(predictions, references, SPEC)


def test_scores_do_not_depend_on_workers(folders):
    first, second = (evaluate_folders(*folders, SPEC, workers=workers) for workers in (1, 3))
    # Not-a-number is not equal to itself; its text is.
    assert repr(first) == repr(second)


def test_a_case_without_classes_has_no_scores():
    assert score_case(square(1, 1), square(1, 1), {}) == {}


def test_only_thin_classes_have_cldice(folders):
    predictions, references = folders
    for folder, shift in ((references, 0), (predictions, 1)):
        vessels = square(3, 3, side=20, size=(300, 300))
        vessels[100:102, 10:290] = 2
        vessels[200 + 5 * shift, 10:290] = 2
        write_label(folder / "vessels.png", vessels)
    scores = evaluate_folders(predictions, references, SPEC)
    assert scores.thin == ("scar",) and "cldice" not in scores.classes["lesion"].per_image
    # One of two lines is found, and one of the two predicted ones is right.
    assert scores.classes["scar"].per_image["cldice"].mean == pytest.approx(0.5, abs=0.01)
    assert scores.overall["per_image.cldice"] == scores.classes["scar"].per_image["cldice"].mean


def test_calibration_from_saved_probabilities(folders, tmp_path):
    predictions, references = folders
    maps = np.zeros((3, 40, 50), np.float32)
    maps[0] = 0.9
    maps[1] = 0.1
    np.savez_compressed(predictions / "shift.npz", probabilities=maps, names=np.array(["background", "lesion", "scar"]))
    scores = evaluate_folders(predictions, references, SPEC, output=tmp_path / "out")
    calibration = read_artefact(tmp_path / "out" / "scores.json", Scores).calibration
    # All 2000 pixels are called background with 0.9, which 100 of them are not.
    assert calibration.cases == 1 and calibration.ece == pytest.approx(abs(0.9 - 1900 / 2000), abs=1e-6)
    assert calibration.accuracy[13] == pytest.approx(0.95) and math.isnan(calibration.accuracy[0])
    assert scores.calibration.share[13] == 1
    # 0.1 off where it is right; of the lesion's pixels the truth is 0.9 off, background too.
    assert calibration.brier == pytest.approx((1900 * 0.01 + 100 * 0.81) / 2000)
    # The lesion and a pixel around it (the diagonal has 64): 12 x 12 pixels.
    assert calibration.near_brier == pytest.approx((44 * 0.01 + 100 * 0.81) / 144)
    assert calibration.near_ece == pytest.approx(0.9 - 44 / 144, abs=1e-6) and calibration.near_share[13] == 1
    np.savez_compressed(predictions / "shift.npz", probabilities=maps[:, :5], names=np.array(["a", "b", "c"]))
    with pytest.raises(SeveralProblems, match=r"shift.npz has probabilities of shape \(3, 5, 50\)"):
        evaluate_folders(predictions, references, SPEC)


def test_relabel_maps_values(folders):
    predictions, references = folders
    write_label(predictions / "shift.png", square(12, 10, value=2))
    binary = DatasetSpec(channel_names={"0": "R"}, labels={"background": 0, "lesion": 1}, numTraining=2, file_ending=".png")
    with pytest.raises(SeveralProblems, match="has the values 2; dataset.json declares 0, 1"):
        evaluate_folders(predictions, references, binary)
    scores = evaluate_folders(predictions, references, binary, relabel=Relabel(prediction={2: 1}))
    assert scores.classes["lesion"].pooled["dice"] == 0.8


def test_tolerance_is_used_and_checked(folders):
    loose, tight = (evaluate_folders(*folders, SPEC, tolerance=one).classes["lesion"].per_image["nsd"].mean for one in (2, 1))
    assert loose == 1 > tight
    with pytest.raises(AutosegError, match="cannot be -1"):
        evaluate_folders(*folders, SPEC, tolerance=-1)
