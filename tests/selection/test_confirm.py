"""What is recommended, by paired tests on held-back cases."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.schema.comparison import PairTest
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.selection import UNDEFINED, Confirmed, Role
from autoseg.selection import confirm
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.selection.world import scores_of

SPEC = DatasetSpec(channel_names={"0": "g"}, labels={"background": 0, "lesion": 1}, numTraining=40, file_ending=".png")


def confirmed(name: str, roles: tuple[Role, ...], seconds: float = 1.0, failed: str = "") -> Confirmed:
    return Confirmed(
        name=name, run=f"{name}-3ep", roles=roles, folds=2, cases=40, value=UNDEFINED, dice=UNDEFINED, value_all=0.5,
        seconds=10.0, image_seconds=seconds, failed=failed,
    )  # fmt: skip


def pairs_of(tmp_path, dice: dict[str, np.ndarray], metric: str = "dice", cases: int = 40) -> tuple[PairTest, ...]:
    """Two folds; the second half of the cases is held back."""
    scores = {}
    for name, values in dice.items():
        named = {f"case_{index:02d}": float(value) for index, value in enumerate(values)}
        half = len(named) // 2
        items = list(named.items())
        scores[name] = {0: scores_of(dict(items[:half])), 1: scores_of(dict(items[half:]))}
    held_back = [f"case_{index:02d}" for index in range(80 - cases, 80)]
    return confirm.tests(confirm.paired(Dataset(tmp_path, "Dataset501_A"), SPEC, scores, metric, held_back))


def random_dice(gain: float, seed: int, noise: float = 0.02) -> np.ndarray:
    shared = np.random.default_rng(0).uniform(0.5, 0.8, 80)
    return shared + gain + np.random.default_rng(seed).normal(0, noise, 80)


def test_the_better_one_is_recommended_even_if_it_is_slower(tmp_path) -> None:
    both = [confirmed("a", ("winner",), 9.0), confirmed("b", ("default",), 1.0)]
    pairs = pairs_of(tmp_path, {"a": random_dice(0.1, 1), "b": random_dice(0.0, 2)})
    name, reason = confirm.recommend(both, pairs, "dice")
    assert name == "a" and "told apart" in reason and "differs by +0.09" in reason


def test_the_faster_one_is_recommended_if_they_cannot_be_told_apart(tmp_path) -> None:
    both = [confirmed("a", ("winner",), 9.0), confirmed("b", ("default",), 1.0)]
    pairs = pairs_of(tmp_path, {"a": random_dice(0.001, 1), "b": random_dice(0.0, 2)})
    name, reason = confirm.recommend(both, pairs, "dice")
    assert name == "b" and "Winner and default cannot be told apart" in reason and "the default, which trains fastest" in reason


def test_the_winner_stays_if_the_other_is_faster_by_chance_only(tmp_path) -> None:
    both = [confirmed("a", ("winner",), 1.05), confirmed("b", ("default",), 1.0)]
    pairs = pairs_of(tmp_path, {"a": random_dice(0.0, 1), "b": random_dice(0.0, 2)})
    name, reason = confirm.recommend(both, pairs, "dice")
    assert name == "a" and "the winner, which is not clearly slower" in reason


def test_a_winner_that_is_worse_on_held_back_cases_is_not_recommended(tmp_path) -> None:
    three = [confirmed("a", ("winner",), 1.0), confirmed("b", ("runner-up",), 5.0), confirmed("c", ("default",), 9.0)]
    dice = {"a": random_dice(0.0, 1), "b": random_dice(0.1, 2), "c": random_dice(0.1, 3)}
    assert confirm.recommend(three, pairs_of(tmp_path, dice), "dice")[0] == "b"


def test_distances_are_better_if_they_are_smaller(tmp_path) -> None:
    both = [confirmed("a", ("winner",), 1.0), confirmed("b", ("default",), 9.0)]
    pairs = pairs_of(tmp_path, {"a": random_dice(0.0, 1), "b": random_dice(0.1, 2)}, "hd95")
    assert confirm.recommend(both, pairs, "hd95")[0] == "b"


def test_cases_that_decided_do_not_count(tmp_path) -> None:
    """On the first half, a is far better; on the held-back half it is worse."""
    better = random_dice(0.0, 1)
    better[:40] += 0.15
    (test,) = pairs_of(tmp_path, {"a": better, "b": random_dice(0.05, 2)})
    assert test.units == 40 and test.difference.mean < -0.03


def test_few_cases_and_failures_are_said(tmp_path) -> None:
    both = [confirmed("a", ("winner",)), confirmed("b", ("default",), 0.1)]
    assert confirm.recommend(both, pairs_of(tmp_path, {"a": random_dice(0, 1), "b": random_dice(0, 2)}, cases=1), "dice") == (
        "a", "a won the rungs; the held-back cases are too few for a test",
    )  # fmt: skip
    one_failed = [both[0], confirmed("b", ("default",), failed="fold 1: it was killed")]
    assert "the others failed" in confirm.recommend(one_failed, (), "dice")[1]
    assert "default too" in confirm.recommend([confirmed("a", ("winner", "default"))], (), "dice")[1]
    with pytest.raises(AutosegError, match="b: fold 1: it was killed"):
        confirm.recommend([one_failed[1]], (), "dice")


def test_a_metric_that_no_case_has_is_refused(tmp_path) -> None:
    with pytest.raises(AutosegError, match="cldice is defined for no case"):
        pairs_of(tmp_path, {"a": random_dice(0, 1)}, "cldice")
