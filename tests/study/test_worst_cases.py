from __future__ import annotations

import math

from autoseg.schema.scores import CaseScore, ClassScore, Scores
from autoseg.study.worst_cases import worst_cases


def case(name: str, dice: float, reference: int = 10) -> CaseScore:
    one = ClassScore(
        tp=min(reference, 5), fp=0, fn=max(reference - 5, 0), dice=dice, iou=dice, precision=dice, recall=dice, hd95=math.nan
    )
    return CaseScore(name, {"lesion": one})


def test_the_worst_come_first_without_empty_references() -> None:
    cases = (case("a", 0.9), case("d", 0.2), case("b", 0.2), case("empty", 0.0, 0), case("nan", math.nan))
    scores = Scores(cases=cases, classes={}, overall={}, undefined=0, unit="px", rule="")
    assert worst_cases(scores, 2) == ["b", "d"] and worst_cases(scores, 9) == ["b", "d", "a"]
    assert worst_cases(scores, 0) == []
