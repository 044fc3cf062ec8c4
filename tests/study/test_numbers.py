"""Each published number next to the one of ours that is defined in the same way."""

from __future__ import annotations

import math

import pytest

from autoseg.schema.study import StudyNumber, StudyRecord
from autoseg.study.numbers import family_means, numbers
from tests.study.studies import comparison, result, score, study

OURS = {
    ("A", 0): comparison(
        result("unet", 0.7, 0.8, classes={"lesion": (0.5, 0.6)}), result("segformer", 0.9, 0.9),
    ),
    ("B", 0): comparison(result("unet", 0.6, math.nan)),
}  # fmt: skip
READERS = {
    ("A", 0): comparison(
        result("unet", 0.7, 0.8),
        strata={
            "easy": {"unet": score(0.95, 3.0), "omnimodel": score(0.6, 40.0)}, "hard": {"unet": score(0.1, 30.0)},
        },
    )
}  # fmt: skip


def found(**key: str) -> StudyNumber:
    (one,) = (
        one
        for one in numbers(study(), OURS, READERS)
        if all(getattr(one, name) == value for name, value in {"of": "", "stratum": "", **key}.items())
    )
    return one


def test_micro_averages_are_means_over_folds_in_percent() -> None:
    one = found(metric="mDSC", model="unet", dataset="A")
    assert (one.ours, one.published, one.published_deviation, one.values) == (pytest.approx(75), 80, 1.5, 2)
    assert one.deviation == pytest.approx(100 * 0.05 * math.sqrt(2)) and one.difference == pytest.approx(-5)
    assert found(metric="mDSC", model="segformer", dataset="A").title == "SegFormer"


def test_undefined_folds_are_left_out() -> None:
    one = found(metric="mDSC", model="unet", dataset="B")
    assert one.ours == pytest.approx(60) and one.values == 1 and math.isnan(one.deviation)


def test_a_class_has_the_dice_of_its_summed_counts() -> None:
    one = found(metric="Dice", model="unet", dataset="A", of="lesion")
    assert (one.ours, one.published) == (pytest.approx(55), 60)


def test_strata_are_of_the_readers_comparison_with_the_deviation_over_images() -> None:
    easy = found(metric="Dice", model="omnimodel", dataset="A", stratum="easy")
    assert (easy.ours, easy.published, easy.title) == (pytest.approx(60), 66, "Image model")
    assert easy.deviation == pytest.approx(2)
    hard = found(metric="HD95", model="unet", dataset="A", stratum="hard")
    assert (hard.ours, hard.unit, hard.difference) == (30, "pixels", 17.5)
    diagonal = found(metric="HD95_diagonal", model="unet", dataset="A", stratum="hard")
    assert (diagonal.ours, diagonal.published) == (60, 12.5)


def test_averages_without_a_published_number_are_shown_too_where_a_model_is_trained() -> None:
    all_numbers = numbers(study(), OURS, READERS)
    recall = [one for one in all_numbers if one.metric == "mRec"]
    assert {(one.model, one.dataset) for one in recall} == {("unet", "A"), ("unet", "B"), ("segformer", "A")}
    assert all(math.isnan(one.published) for one in recall)
    assert len([one for one in all_numbers if one.metric == "mDSC"]) == 3


def test_several_seeds_count_all_their_folds() -> None:
    two = study(seeds=[0, 1])
    ours = {**OURS, ("A", 1): comparison(result("unet", 0.9, 1.0))}
    one = next(one for one in numbers(two, ours, READERS) if (one.metric, one.model, one.dataset) == ("mDSC", "unet", "A"))
    assert one.values == 4 and one.ours == pytest.approx(85)


def test_another_variant_is_in_the_title() -> None:
    found = numbers(study(), OURS, READERS, {"segformer": "b0"})
    assert {one.title for one in found} == {"unet", "SegFormer (here b0)", "Image model"}


def test_without_results_the_published_numbers_stay() -> None:
    assert all(math.isnan(one.ours) for one in numbers(study(), {}, {}))
    assert sum(not math.isnan(one.published) for one in numbers(study(), {}, {})) == 8


def test_models_and_datasets_that_are_left_out_have_no_numbers() -> None:
    from autoseg.study.scale import selected

    fewer = selected(study(), ["A"], ["unet"])
    assert {(one.model, one.dataset) for one in numbers(fewer, OURS, READERS)} == {("unet", "A"), ("omnimodel", "A")}


def test_family_means() -> None:
    record = StudyRecord(
        study="", title="", source="", scale="full", mark="", datasets=("A", "B"), numbers=numbers(study(), OURS, {}),
        deviations=(), families={"specialist": ("unet",), "generalist": ("segformer",)},
    )  # fmt: skip
    means = family_means(record)
    rows = {(family, dataset): (ours, theirs) for family, dataset, ours, theirs in means}
    assert rows["specialist", "A"] == (pytest.approx(75), 80)
    assert rows["specialist", "all"] == (pytest.approx(67.5), 75)
    assert rows["generalist", "A"] == (pytest.approx(90), 85) and math.isnan(rows["generalist", "B"][0])
