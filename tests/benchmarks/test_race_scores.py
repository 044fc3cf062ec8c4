"""What the race makes of predictions: the scorer, means and tests by patient, the page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from autoseg.metrics.surface import surface_score
from benchmarks.race import page, run, scorer
from benchmarks.race.arms import ARMS, find
from benchmarks.race.jobs import Job, Store
from benchmarks.race.results import by_patient, comparisons, heats, summary
from tests.benchmarks.race_records import job, record
from tests.test_architecture import REPOSITORY

# --- scorer


def disc(row: int, column: int, radius: int, shape: tuple[int, int] = (60, 80)) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def line(row: int, width: int = 1) -> NDArray[np.bool_]:
    mask = np.zeros((60, 80), bool)
    mask[row : row + width, 5:70] = True
    return mask


EMPTY = np.zeros((60, 80), bool)
RANDOM = np.random.default_rng(0).random((2, 60, 80)) > 0.6
MASKS = {
    "equal discs": (disc(30, 40, 12), disc(30, 40, 12)),
    "moved": (disc(30, 40, 12), disc(33, 45, 12)),
    "larger": (disc(30, 40, 20), disc(30, 40, 12)),
    "apart": (disc(12, 12, 6), disc(45, 66, 9)),
    "at the edge": (disc(0, 0, 20), disc(2, 79, 15)),
    "two objects": (disc(15, 15, 8) | disc(45, 60, 5), disc(15, 15, 8)),
    "a hole": (disc(30, 40, 15) & ~disc(30, 40, 5), disc(30, 40, 15)),
    "one pixel": (disc(30, 40, 0), disc(30, 43, 0)),
    "vessel": (line(20), line(22)),
    "wide vessel": (line(20, 2), line(21, 3)),
    "noise": (RANDOM[0], RANDOM[1]),
    "everything": (~EMPTY, disc(30, 40, 12)),
    "nothing found": (EMPTY, disc(30, 40, 12)),
    "found in nothing": (disc(30, 40, 12), EMPTY),
}


@pytest.mark.parametrize("name", MASKS)
def test_scorer_agrees_with_autosegs_metrics(name: str) -> None:
    prediction, reference = MASKS[name]
    scores = scorer.score_class(prediction, reference)
    assert scores is not None
    expected = surface_score(prediction, reference, tolerance=scorer.TOLERANCE)
    overlap = 2 * np.count_nonzero(prediction & reference) / (np.count_nonzero(prediction) + np.count_nonzero(reference))
    assert scores == pytest.approx({"dice": overlap, "hd95": expected.hd95_diagonal, "nsd": expected.nsd}, abs=1e-9)


def test_scores_by_hand() -> None:
    assert scorer.score_class(*MASKS["equal discs"]) == {"dice": 1.0, "hd95": 0.0, "nsd": 1.0}
    assert scorer.score_class(*MASKS["one pixel"]) == {"dice": 0.0, "hd95": 3.0, "nsd": 0.0}
    assert scorer.score_class(*MASKS["vessel"]) == {"dice": 0.0, "hd95": 2.0, "nsd": 1.0}
    assert scorer.score_class(*MASKS["nothing found"]) == {"dice": 0.0, "hd95": 100.0, "nsd": 0.0}
    assert scorer.score_class(EMPTY, EMPTY) is None
    with pytest.raises(ValueError, match="shape"):
        scorer.score_class(EMPTY, EMPTY[:-1])


def test_classes_in_neither_mask_do_not_count() -> None:
    scores = {"a": {"dice": 0.5, "hd95": 1.0, "nsd": 0.0}, "b": None, "c": {"dice": 1.0, "hd95": 0.0, "nsd": 1.0}}
    assert scorer.case_mean(scores, "dice") == 0.75 and scorer.case_mean({"b": None}, "dice") is None


# --- statistics and page


def test_means_are_by_patient_and_over_seeds() -> None:
    patients = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    both = [
        record({"a1": 0.2, "a2": 0.6, "b1": 1.0, "c1": None}, patients),
        record({"a1": 0.4, "a2": 0.6, "b1": 0.8, "c1": None}, patients, seed=1),
    ]
    assert by_patient(both, "dice") == pytest.approx({"a": 0.45, "b": 0.9})
    assert by_patient(both, "hd95") == pytest.approx({"a": 5.5, "b": 1.0})
    found = summary(list(by_patient(both, "dice").values()))
    assert found.mean == pytest.approx(0.675) and (found.low, found.high) == pytest.approx((0.45, 0.9)) and found.patients == 2


def test_arms_are_compared_on_the_trainings_that_both_have() -> None:
    cases = [f"case{number:02d}" for number in range(24)]
    steady, better = dict.fromkeys(cases, 0.6), {case: 0.65 + 0.001 * place for place, case in enumerate(cases)}
    arms = {
        "nnunet": [record(steady, arm="nnunet"), record(dict.fromkeys(cases, 0.0), arm="nnunet", seed=1)],
        "autoseg": [record(better), record(dict.fromkeys(cases, 0.0), seed=2), record({"other": 0.0}, fold=1)],
        "autoseg-nnunet": [record(steady, arm="autoseg-nnunet")],
    }
    better_than, equal = comparisons(arms)
    assert (better_than.first, better_than.second) == ("autoseg", "nnunet")
    assert better_than.difference.mean == pytest.approx(0.0615) and better_than.difference.patients == 24
    assert better_than.difference.low > 0.05 and better_than.p < 0.001
    assert (equal.first, equal.p, equal.difference.mean) == ("autoseg-nnunet", 1.0, 0.0)
    alone = comparisons({arm: arms[arm] for arm in ("nnunet", "autoseg")})
    assert better_than.p == pytest.approx(2 * alone[0].p)  # Holm, two pairs.


def test_an_arm_with_other_settings_is_compared_with_its_base() -> None:
    name = "autoseg+side=512+geometry=resize"
    varied = find(name)
    assert varied.options["settings"] == {"side": "512", "geometry": "resize"} and not varied.leading
    assert varied.options["models"] == ARMS["autoseg"].options["models"]
    for wrong in ("autoseg+side", "nnunet+side=512", "nobody+side=512", "autoseg+"):
        with pytest.raises(KeyError):
            find(wrong)
    dice = {f"p{number}": 0.5 + number / 40 for number in range(10)}
    better = {case: value + 0.1 for case, value in dice.items()}
    found = heats([record(better, arm=name), record(dice, arm="nnunet"), record(dice), record(dice, arm="plain")])
    (arms,) = found.values()
    assert list(arms) == ["nnunet", "autoseg", name, "plain"]
    pairs = {(one.first, one.second): one.difference.mean for one in comparisons(arms)}
    assert pairs[name, "autoseg"] == pytest.approx(0.1) and pairs["autoseg", "nnunet"] == 0 and ("autoseg", name) not in pairs
    text = page.page([record(better, arm=name), record(dice)])
    assert f"| {ARMS['autoseg'].title}; side=512, geometry=resize |" in text and "| +0.100 (" in text


RECORDS = [
    record({"a": 0.8, "b": 0.9}), record({"c": 0.7}, fold=1), record({"a": 0.6, "b": 0.7}, arm="nnunet"),
    record({"a": 0.85, "b": 0.95}, minutes=20.0), record({"a": 0.8, "b": 0.9}, arm="nnunet", minutes=20.0),
    {**record({"a": 0.8, "b": 0.9}, arm="autoseg-choice", minutes=20.0), "tried": {"m": 0.4, "n": 0.3}},
    {"job": vars(job(set="lung", arm="plain")), "error": "no memory"},
]  # fmt: skip


def test_page_shows_what_is_stored_and_what_is_missing() -> None:
    assert list(heats(RECORDS)) == [("heart64", 5.0, "cpu"), ("heart64", 20.0, "cpu")]
    text = page.page(RECORDS, "pictures/race.png")
    assert "![Dice against minutes of training](pictures/race.png)" in text
    assert "| heart64, cpu | +0.200 (+0.200 to +0.200), p 0.500 | +0.050 (+0.050 to +0.050), p 0.500 |" in text
    titles = {arm: ARMS[arm].title for arm in ("autoseg", "nnunet", "autoseg-choice")}
    cells = "0.800 (0.700 to 0.900) | 2.0 | 0.800 | 2 x 1 (3 patients) | 7 x 2 | 8x8 fp32 | 290 | 1 |"
    assert f"| {titles['autoseg']} | {cells}" in text
    assert f"| {titles['autoseg-choice']} (1 x m) |" in text
    assert "| 2.00 | none |" in text and "Failed, and missing above: lung-5min-cpu-seed0-fold0-plain" in text
    seen = {**RECORDS[0], "saw": "the epoch was chosen on scored cases, so the scores are optimistic"}
    assert "| the epoch was chosen on scored cases" in page.page([seen])
    assert page.page(RECORDS[-1:]) == page.NOTHING


def test_results_go_between_the_marks_of_a_page_and_its_picture_beside_it(tmp_path: Path) -> None:
    file, store = tmp_path / "race.md", Store(tmp_path / "scores.jsonl")
    file.write_text(f"before\n{page.BEGIN}\nearlier results\n{page.END}\nafter\n")
    for one in RECORDS:
        store.add(Job(**one["job"]), **{key: value for key, value in one.items() if key != "job"})
    for _ in range(2):
        run.main(["--draw", "--scores", str(tmp_path / "scores.jsonl"), "--page", str(file)])
    text = file.read_text()
    assert text.startswith(f"before\n{page.BEGIN}\n![") and text.endswith(f"{page.END}\nafter\n") and "earlier" not in text
    picture = cv2.imread(str(tmp_path / "pictures" / "race.png"))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(ValueError, match="race: begin"):
        page.insert("a page without marks", "results")


def test_documentation_has_the_marks_and_names_every_arm() -> None:
    text = (REPOSITORY / "documentation" / "race.md").read_text(encoding="utf-8")
    assert page.insert(text, text.partition(page.BEGIN)[2].partition(page.END)[0].strip()) == text
    assert not [arm for arm in ARMS if f"`{arm}`" not in text]
