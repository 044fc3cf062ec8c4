import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.prediction import calibration
from autoseg.prediction.calibration import calibrate, expected_dice_of_held_out, fit
from autoseg.prediction.confidence import agreement, assess, entropy, member_prediction, soft_dice
from autoseg.prediction.predictor import Predictor
from autoseg.schema.dataset import label_scheme
from autoseg.schema.plan import Fold, Splits
from autoseg.schema.prediction import Calibration, Confidence, PredictedCase, PredictionRecord
from autoseg.schema.scores import CaseScore, Scores
from autoseg.support.files import read_artefact, write_artefact
from tests.prediction.stand_in import SPEC, Bright, picture, trained
from tests.schema.test_artefacts import SAMPLES

TWO = label_scheme({"background": 0, "polyp": 1, "stone": 2}, None)
REGIONS = label_scheme({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))


def maps_of(label, sure=0.9, classes=3):
    """Probabilities (K, h, w): `sure` for the class of the label, the rest shared evenly."""
    maps = np.full((classes, *label.shape), (1 - sure) / (classes - 1), np.float32)
    for value in range(classes):
        maps[value][label == value] = sure
    return torch.from_numpy(maps)


def square(*boxes, size=(40, 40)):
    label = np.zeros(size, np.uint8)
    for value, (top, left, bottom, right) in enumerate(boxes, 1):
        label[top:bottom, left:right] = value
    return label


def test_sure_maps_expect_a_better_dice_than_unsure_ones():
    label = square((5, 5, 20, 20), (25, 25, 35, 35))
    surest, sure, unsure = (soft_dice(maps_of(label, value), TWO) for value in (1.0, 0.97, 0.6))
    assert surest == {"polyp": 1.0, "stone": 1.0}
    assert sure["polyp"] == pytest.approx(0.97 * 225 * 2 / (0.97 * 225 + 225), abs=1e-6)
    assert unsure["polyp"] < 0.7 and unsure["stone"] < sure["stone"]


def test_the_first_among_equals_wins_as_in_the_mask():
    steps = np.random.default_rng(0).integers(0, 4, (3, 30, 40)).astype(np.float32)
    maps = torch.from_numpy(steps / np.maximum(steps.sum(0), 1))
    result, label = soft_dice(maps, TWO), maps.argmax(0)
    for value, name in enumerate(TWO.names[1:], 1):
        mask = label == value
        expected = 2 * maps[value][mask].sum() / (maps[value].sum() + mask.sum())
        assert result[name] == pytest.approx(float(expected), rel=1e-5)


def test_a_class_that_wins_nowhere_is_judged_by_its_largest_probability():
    label = square((5, 5, 20, 20))
    result = soft_dice(maps_of(label, 0.9), TWO)
    assert result["stone"] == pytest.approx(0.95)


def test_regions_are_judged_one_by_one():
    maps = torch.zeros(2, 10, 10)
    maps[0, 2:8, 2:8], maps[1, 4:6, 4:6] = 1.0, 0.75
    assert soft_dice(maps, REGIONS) == {"whole": 1.0, "core": pytest.approx(2 * 3 / (3 + 4))}
    assert entropy(torch.full((2, 4, 4), 0.5), REGIONS) == pytest.approx(1)


def test_entropy_is_a_share_of_the_largest():
    assert entropy(torch.full((3, 4, 4), 1 / 3), TWO) == pytest.approx(1, abs=1e-6)
    assert entropy(maps_of(square((0, 0, 4, 4)), 1.0), TWO) == 0


def test_agreement_is_the_mean_dice_of_all_pairs():
    first, second, third = (square((0, 0, 10, end)) for end in (10, 20, 20))
    opinions = [member_prediction(maps_of(label), TWO) for label in (first, second, third)]
    result = agreement(opinions, TWO)
    assert result["polyp"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result["stone"] == 1.0
    assert agreement(opinions[:1], TWO) == {}


def test_large_maps_are_compared_thinned_out():
    maps = maps_of(square((0, 0, 1500, 3000), size=(3000, 3000)), classes=2)
    scheme = label_scheme({"background": 0, "polyp": 1}, None)
    result = member_prediction(maps, scheme).labels
    assert result.size <= 1 << 20 and result.mean() == pytest.approx(0.5, abs=0.01)


def test_one_member_has_no_agreement_and_several_are_held_against_each_other():
    label = square((5, 5, 20, 20), (25, 25, 35, 35))
    alone = assess(maps_of(label), [], TWO)
    assert math.isnan(alone.agreement) and math.isnan(alone.expected_dice) and alone.value == alone.soft_dice
    other = square((5, 5, 20, 9), (25, 25, 35, 35))
    both = [member_prediction(maps_of(one), TWO) for one in (label, other)]
    apart = assess(maps_of(label), both, TWO, Calibration(cases=20, slope=0.5, intercept=0.1, mean_absolute_error=0.05))
    assert apart.agreement < 1 and apart.classes["polyp"] < apart.classes["stone"]
    assert apart.expected_dice == pytest.approx(0.1 + 0.5 * apart.soft_dice, abs=1e-3)
    together = assess(
        maps_of(label), both, TWO, Calibration(cases=20, slope=0.5, intercept=0.1, mean_absolute_error=0.05, score="value")
    )
    assert together.expected_dice == pytest.approx(0.1 + 0.5 * apart.value, abs=1e-3)


def alone(cases):
    """Each case is its own group."""
    return [f"case {number}" for number in range(len(cases))]


def patients(count=12, images=6, seed=0):
    """Confidence, Dice and patient of images: a patient's images are alike, and confidence says little about the patient."""
    rng = np.random.default_rng(seed)
    confidence, dice = rng.uniform(0.5, 0.95, count), rng.uniform(0.3, 0.9, count)
    columns = [np.repeat(one, images) + rng.normal(0, 0.01, count * images) for one in (confidence, dice)]
    return *columns, [f"patient {number}" for number in np.repeat(np.arange(count), images)]


def test_calibration_follows_the_cases_and_says_how_well():
    confidence = np.linspace(0.3, 0.9, 20)
    some = np.zeros(20, bool)
    line = fit(confidence, 0.1 + 0.8 * confidence, some, alone(confidence))
    assert line.slope == pytest.approx(0.8) and line.intercept == pytest.approx(0.1) and line.mean_absolute_error < 1e-6
    assert line(2.0) == 1.0 and line(-1.0) == 0.0 and line.groups == line.cases == 20
    falling = fit(confidence, 1 - confidence, some, alone(confidence))
    assert falling.slope == 0 and falling(0.5) == pytest.approx(0.4)
    assert fit(confidence[:9], confidence[:9], some[:9], alone(confidence[:9])) is None
    assert calibrate([]) is None


def test_no_case_is_judged_by_a_line_that_has_seen_it_and_many_cases_take_no_line_each(monkeypatch):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 3000)
    dice = np.clip(confidence + rng.normal(0, 0.1, 3000), 0, 1)
    few = expected_dice_of_held_out(confidence[:50], dice[:50], np.zeros(50), alone(dice[:50]))
    for case in (0, 20, 49):
        others = np.arange(50) != case
        line = np.poly1d(np.polyfit(confidence[:50][others], dice[:50][others], 1))
        assert few[case] == pytest.approx(min(line(confidence[case]), 1))
    fitted = []
    monkeypatch.setattr(calibration, "_fit_line", lambda *columns: fitted.append(len(columns[0])) or (1.0, 0.0, 0.0))
    assert np.allclose(expected_dice_of_held_out(confidence, dice, np.zeros(3000), alone(confidence)), confidence)
    assert fitted == [2970] * 100
    assert len(expected_dice_of_held_out(*np.zeros((3, 0)), [])) == 0


def test_the_error_is_judged_on_patients_the_line_has_not_seen():
    confidence, dice, groups = patients()
    line = fit(confidence, dice, np.zeros(len(dice), bool), groups)
    errors = []
    for patient in set(groups):
        held_out = np.array([group == patient for group in groups])
        slope, intercept = np.polyfit(confidence[~held_out], dice[~held_out], 1)
        slope, intercept = (slope, intercept) if slope > 0 else (0.0, dice[~held_out].mean())
        errors += list(np.abs(np.clip(slope * confidence[held_out] + intercept, 0, 1) - dice[held_out]))
    assert line.mean_absolute_error == pytest.approx(np.mean(errors), abs=1e-4) and line.groups == 12
    on_fitted = np.abs([line(one) for one in confidence] - dice).mean()
    by_case = fit(confidence, dice, np.zeros(len(dice), bool), alone(dice)).mean_absolute_error
    assert line.mean_absolute_error > 1.08 * max(on_fitted, by_case)
    one = fit(confidence, dice, np.zeros(len(dice), bool), ["patient 0"] * len(dice))
    assert math.isnan(one.mean_absolute_error) and one.groups == 1


@pytest.mark.parametrize("known_from", ["splits.json", "dataset.json"])
def test_patients_and_near_duplicates_are_those_of_the_splits(tmp_path, known_from):
    """Splits of older releases have no groups: the patients of dataset.json count."""
    confidence, dice, groups = patients()
    names = [f"c{number:02}" for number in range(len(dice))]
    folder = tmp_path / "fold_0" / "validation"
    record = PredictionRecord(
        dataset="D", models=("m",), folds=(0,), identities={}, labels={}, mirror=(), device="cpu", precision="fp32",
        seconds=1.0,
        cases=tuple(
            PredictedCase(case=name, output=f"{name}.png", size=(4, 4), pixels={}, seconds={}, confidence=Confidence(
                value=one, expected_dice=math.nan, soft_dice=one, agreement=math.nan, entropy=0.1, classes={}))
            for name, one in zip(names, confidence, strict=True)
        ),
    )  # fmt: skip
    write_artefact(folder / "prediction.json", record)
    template = read_artefact(SAMPLES / "scores_v1.json", Scores)
    score = next(iter(template.cases[0].classes.values()))
    cases = tuple(CaseScore(name, {"a": replace(score, dice=one, tp=1)}) for name, one in zip(names, dice, strict=True))
    write_artefact(folder / "scores.json", replace(template, cases=cases))
    splits = Splits(folds=(Fold(("x",), tuple(names)),), reason="", groups=dict(zip(names, groups, strict=True)))
    spec = replace(SPEC, groups=splits.groups if known_from == "dataset.json" else {})
    write_artefact(folder.parent / "splits.json", splits if known_from == "splits.json" else replace(splits, groups={}))
    write_artefact(folder.parent / "dataset.json", spec)
    assert calibrate([folder]) == fit(confidence, dice, np.zeros(len(dice), bool), groups)


def test_a_class_that_was_not_found_says_nothing_of_the_one_that_was():
    result = assess(maps_of(square((5, 5, 20, 20)), 0.6), [], TWO)
    assert result.classes["stone"] > result.classes["polyp"] == result.value == result.soft_dice
    nothing = assess(maps_of(square(), 0.9), [], TWO)
    assert nothing.value == pytest.approx(0.95) and nothing.classes == {"polyp": 0.95, "stone": 0.95}


def test_where_every_image_shows_something_an_empty_mask_is_not_trusted_however_sure():
    confidence = np.concatenate([np.linspace(0.5, 0.9, 30), np.full(10, 0.99)])
    empty = confidence == 0.99
    dice = np.where(empty, 0.0, confidence)
    line = fit(confidence, dice, empty, alone(dice))
    assert line.empty_offset < 0 and line(0.99, True) < 0.25 < line(0.6) < line(0.9)
    rightly = fit(confidence, np.where(empty, 1.0, confidence), empty, alone(dice))
    assert rightly(0.99, True) > 0.95
    together = assess(maps_of(square(), 0.98), [], TWO, line)
    assert together.value > 0.98 and together.expected_dice == pytest.approx(line(together.soft_dice, True), abs=1e-3)


def test_folds_that_see_the_same_are_surer_than_folds_that_do_not():
    image, _ = picture(low=40, high=140)
    same = Predictor([trained(fold=0), trained(Bright(level=0.45), 1)]).predict_with_confidence(image)
    other = Predictor([trained(fold=0), trained(Bright(level=0.9), 1)]).predict_with_confidence(image)
    assert same.confidence.agreement == 1.0 and same.confidence.value > other.confidence.value
    assert other.confidence.agreement == 0.0
    assert same.confidence.note == "not calibrated: needs 10 out-of-fold cases" and not same.confidence.is_calibrated
    assert any("disagree" in warning for warning in other.warnings) and not same.warnings
    assert same.pixels == {"bright": pytest.approx(800, abs=60)}


def test_an_empty_mask_is_a_warning():
    predictor = Predictor([trained(Bright(level=0.99))])
    assert predictor.predict_with_confidence(picture(high=100)[0]).warnings == ("nothing was found",)


def test_a_number_is_called_confidence_only_after_calibration(capsys, tmp_path):
    from autoseg.cli.predict import _review_list
    from autoseg.prediction.files import PredictionReport

    def shown(confidence: Confidence, calibration: Calibration | None) -> tuple[str, dict[str, object], str]:
        case = PredictedCase(case="a", output="a.png", size=(4, 4), pixels={"bright": 3}, seconds={}, confidence=confidence)
        record = PredictionRecord(
            dataset="D", models=("m",), folds=(0,), identities={}, labels={}, mirror=(), device="cpu", precision="fp32",
            seconds=1.0, cases=(case,), calibration=calibration,
        )  # fmt: skip
        _review_list(PredictionReport(tmp_path, record))
        return capsys.readouterr().out, record.to_rows()[0], (tmp_path / "review.csv").read_text()

    numbers = {"value": 0.865, "soft_dice": 0.865, "agreement": math.nan, "entropy": 0.1, "classes": {"bright": 0.865}}
    note = "not calibrated: needs 10 out-of-fold cases"
    text, row, table = shown(Confidence(expected_dice=math.nan, note=note, **numbers), None)
    assert "confidence" not in text and "0.865" in text and note in " ".join(text.split())
    assert "confidence" not in row and row["score"] == 0.865 and row["calibration"] == note
    assert "confidence" not in table and note in table
    line = Calibration(cases=12, slope=1.0, intercept=0.0, mean_absolute_error=0.05, groups=4)
    text, row, table = shown(Confidence(expected_dice=0.61, **numbers), line)
    assert "confidence" in text and "0.610" in text and "not calibrated" not in text
    assert "fitted to 12 out-of-fold cases; its mean error on patients (groups) it was not fitted to is 0.050" in " ".join(
        text.split()
    )
    assert "of one patient" in str(replace(line, mean_absolute_error=math.nan, groups=1))
    assert "same patients is 0.050" in str(replace(line, groups=0))
    assert row["confidence"] == 0.865 and "calibrated" not in table
