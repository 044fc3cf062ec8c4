from __future__ import annotations

from autoseg.study.deviations import Facts, deviations
from tests.study.studies import comparison, result, study


def lines(**facts: object) -> tuple[str, ...]:
    return deviations(study(deviations=["folds are ours"]), Facts(**facts))  # type: ignore[arg-type]


def test_what_is_known_beforehand_comes_first() -> None:
    assert lines() == ("folds are ours",)


def test_everything_that_differs_is_named() -> None:
    text = "\n".join(
        lines(
            mark="SMALL SCALE: tiny.", used={"A": "MyHearts"}, cases={"A": 7, "B": 5}, random=["unet"],
            variants={"segformer": "b0"}, failed=["fold 1: crashed"], mock=True, left_out=["model ukan"],
            comparisons=[comparison(result("unet", 0.5)), comparison(result("unet", 0.5))],
        )
    )  # fmt: skip
    for part in (
        "SMALL SCALE", "MyHearts in the place of A", "A: 7 images in the folds, the study had 10",
        "from random weights instead of published ones: unet", "other variants: segformer b0", "left out: model ukan",
        "without a result: fold 1: crashed", "stand-in", "Dataset501_A: the initial weights",
    ):  # fmt: skip
        assert text.count(part) == 1, part
    assert "B: 5 images" not in text


def test_the_same_number_of_images_is_no_deviation() -> None:
    assert lines(cases={"A": 10}) == ("folds are ours",)
