"""What has to be read with the numbers, and the summary sentence that must not contradict it."""

import shutil
from dataclasses import replace

import pytest

from autoseg import api
from autoseg.comparison.headline import summary
from autoseg.schema.comparison import Conditions, Interval, PairTest
from autoseg.schema.prediction import PredictionRecord
from autoseg.schema.run import RunRecord
from autoseg.support.files import read_artefact, write_artefact
from tests.comparison.results import make


@pytest.fixture(scope="module")
def compared(experiment, tmp_path_factory):
    (dataset,) = api.compare(
        "Polyps", root=experiment.root, report=False, output=tmp_path_factory.mktemp("out")
    ).datasets
    return dataset


def changed_runs(experiment, tmp_path, changes):
    """A copy whose runs have other records. changes: model -> fields."""
    root = tmp_path / "root"
    shutil.copytree(experiment.root, root)
    for model, fields in changes.items():
        for path in (root / experiment.dataset.fold(model, 0).parent.relative_to(experiment.root)).glob("fold_*/run.json"):
            write_artefact(path, replace(read_artefact(path, RunRecord), **fields))
    (dataset,) = api.compare("Polyps", root=root, report=False).datasets
    return dataset


def test_lines_name_choices_seeds_budget_start_and_limits_of_tests(compared):
    found, lines = compared.conditions, compared.conditions.lines
    assert list(lines) == ["choices", "seeds", "budget", "start", "tests"]
    assert found.saw_scored_cases == ("epoch",) and found.seeds == (0,) and found.random and not found.published
    assert "the epoch was chosen on scored cases" in lines["choices"] and "the scored masks have none" in lines["choices"]
    assert "best of these 3 is a choice on the scored cases" in lines["choices"]
    assert "with seed 0" in lines["seeds"]
    budget = "Protocol quick: 4 epochs and 40 steps for each training, 4 min of training in all on cpu."
    assert lines["budget"].startswith(budget)
    assert lines["start"].startswith("All trainings started from random weights")
    for part in ("12 cases", "other seeds", "share training images", "names no groups", "fewer than 50 cases"):
        assert part in lines["tests"]


def test_summary_calls_no_case_held_out_that_chose_something(compared):
    assert "held-out" not in summary(compared) and "cases of Dataset501_Polyps, which also chose the epoch" in summary(compared)
    clean = replace(compared, conditions=replace(compared.conditions, saw_scored_cases=()))
    assert summary(clean).startswith("On 12 held-out cases of Dataset501_Polyps: of these trainings, segformer has the highest")
    several = replace(compared, conditions=replace(compared.conditions, saw_scored_cases=("epoch", "learning rate")))
    assert "which also chose the epoch and the learning rate" in summary(several)
    # Older files and masks of other programs: it is not known.
    assert "held-out" not in summary(replace(compared, conditions=Conditions()))
    assert "held-out" not in summary(replace(clean, conditions=replace(clean.conditions, unknown=("other",))))


def test_summary_calls_none_of_unequal_runs_the_best(compared):
    unequal = replace(compared, conditions=replace(compared.conditions, unequal=True))
    text = summary(unequal)
    assert "not equal, so none is called the best" in text and "(unet) to" in text and "significant" not in text


def test_summary_tells_the_direction_of_a_significant_difference(compared):
    def test_of(first, second, difference, p):
        return PairTest(first=first, second=second, units=12, difference=Interval(difference, 0, 0), p=p, p_adjusted=p)

    tests = (test_of("unet", "segformer", 0.1, 0.01), test_of("segformer", "segnext", 0.1, 0.2))
    text = summary(replace(compared, tests=tests))
    assert text.endswith("for these trainings only: significantly worse than unet; no significant difference from segnext.")
    # Lower distances are better.
    distances = summary(replace(compared, tests=tests, metric="hd95"))
    assert "significantly better than unet" in distances and "' HD95, for these trainings only" in distances


def test_several_seeds_early_ends_and_mixed_starts_are_said(experiment, tmp_path):
    dataset = changed_runs(experiment, tmp_path, {
        "unet": {"seed": 3, "epochs_done": 2, "steps": 20, "saw_scored_cases": ()},
        "segformer": {"pretrained": "ImageNet-1k", "saw_scored_cases": ()},
        "segnext": {"saw_scored_cases": ()},
    })  # fmt: skip
    lines = dataset.conditions.lines
    assert lines["seeds"].startswith("Seeds 0, 3,") and dataset.conditions.seeds == (0, 3)
    assert "2 to 4 epochs and 20 to 40 steps" in lines["budget"] and "2 of 6 trainings ended before" in lines["budget"]
    assert lines["start"].startswith("Random weights: segnext, unet. Published weights: segformer")
    text = summary(dataset)
    assert "segformer (published start) has the highest" in text and "segnext (random start) with" in text
    assert "no choice of the training saw the scored cases" in lines["choices"] and "12 held-out cases" in text


def test_masks_with_post_processing_are_not_called_held_out(experiment, tmp_path):
    """Whether its choice saw the scored cases is not recorded."""
    root = tmp_path / "root"
    shutil.copytree(experiment.root, root)
    for path in (root / experiment.dataset.results.relative_to(experiment.root)).glob("*/fold_*/run.json"):
        write_artefact(path, replace(read_artefact(path, RunRecord), saw_scored_cases=()))
    assert "held-out" in summary(api.compare("Polyps", root=root, report=False).datasets[0])
    path = root / experiment.dataset.fold("unet", 1).relative_to(experiment.root) / "validation" / "prediction.json"
    write_artefact(path, replace(read_artefact(path, PredictionRecord), postprocessing={"neoplastic": "holes filled"}))
    (dataset,) = api.compare("Polyps", root=root, report=False).datasets
    assert "the scored masks of unet have some" in dataset.conditions.lines["choices"]
    assert "held-out" not in summary(dataset)


def test_too_few_cases_for_any_significant_difference_are_named(tmp_path):
    make(tmp_path, cases=6, folds=2)
    (dataset,) = api.compare("Polyps", root=tmp_path, report=False).datasets
    # Three pairs: the smallest corrected p is 3 / 32.
    assert all(test.p_adjusted >= 3 / 32 for test in dataset.tests)
    assert "With 6 cases and 3 pairs no difference can be significant at 5 %" in dataset.conditions.lines["tests"]
    # "No significant difference" would be read as a result.
    assert summary(dataset).endswith("6 cases and 3 pairs are too few for paired tests to tell any difference.")
    enough = replace(dataset, tests=tuple(replace(test, units=20) for test in dataset.tests))
    assert "no significant difference from" in summary(enough)


def test_groups_are_what_tests_draw(tmp_path):
    make(tmp_path, kind="heart", cases=12, folds=2, models=("unet", "segformer"))
    (dataset,) = api.compare("Heart", root=tmp_path, report=False).datasets
    text = dataset.conditions.lines["tests"]
    assert f"draw {dataset.tests[0].units} groups" in text and "names no groups" not in text
    assert dataset.tests[0].units < 12


def test_masks_of_other_programs_have_unknown_conditions(experiment, tmp_path):
    masks = tmp_path / "masks"
    shutil.copytree(experiment.dataset.raw / "labelsTr", masks)
    api.evaluate(masks, experiment.dataset.raw / "labelsTr", output=masks)
    output = tmp_path / "out"
    (dataset,) = api.compare("Polyps", root=experiment.root, also={"other": masks}, output=output, report=False).datasets
    assert dataset.conditions.unknown == ("other",)
    assert dataset.conditions.lines["other programs"].startswith("other: which choices saw these cases")


def test_the_command_says_it_once(experiment, tmp_path, capsys):
    from autoseg.cli import compare

    compare.main(["Polyps", "--root", str(experiment.root), "--no-report", "-o", str(tmp_path)])
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("To be read with the numbers") == 1 and output.count("the epoch was chosen on scored cases") == 1
