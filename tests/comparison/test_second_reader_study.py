from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.comparison import second_reader_study
from autoseg.comparison.paired_scores import easy_and_hard_cases
from autoseg.prediction.calibration import case_dice, expected_dice_of_held_out
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.scores import CaseScore
from autoseg.schema.second_reader import ReaderStudy
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from tests.comparison.results import make
from tests.generated import case_name


def test_hybrid_equals_the_reader_it_takes(experiment, tmp_path):
    root, name = experiment.dataset.root, experiment.dataset.name
    folders = experiment.dataset.results.iterdir()
    first, second = sorted(path.name for path in folders if (path / "fold_0").is_dir())[:2]
    never = api.study_readers(name, first=first, second=second, min_expected_dice=0.0, output=tmp_path, root=root)
    always = api.study_readers(name, first=first, second=second, min_expected_dice=1.01, output=tmp_path, root=root)
    assert not never.asked and len(always.asked) == 12
    assert len(always.to_frame()) == len(always.scores) and "12 cases" in repr(always)

    def dice(study: ReaderStudy, reader: str) -> float:
        return next(one.dice for one in study.scores if one.reader == reader and one.stratum == "all")

    assert dice(never, "hybrid: replace") == dice(never, first)
    assert dice(always, "hybrid: replace") == dice(always, second)
    assert all(one.best <= one.aurc for one in always.areas)
    with pytest.raises(AutosegError, match="no reader"):
        api.study_readers(name, first="nobody", output=tmp_path, root=root)


def test_aurc_equals_that_of_the_comparison(experiment, tmp_path):
    root, name = experiment.dataset.root, experiment.dataset.name
    study = api.study_readers(name, output=tmp_path, root=root)
    compared = api.compare([name], output=tmp_path / "comparison", report=False, root=root).datasets[0]
    study_aurc = {one.model: one.aurc for one in study.areas if one.score == "expected Dice"}
    assert study_aurc == {one.model: pytest.approx(one.aurc, abs=1e-4) for one in compared.risk_coverage}


def test_absent_classes_do_not_compensate_a_missed_object():
    def scored(*dice: float) -> CaseScore:
        return CaseScore("a", {str(index): SimpleNamespace(dice=value) for index, value in enumerate(dice)})

    assert case_dice(scored(0.0, math.nan)) == 0.0
    assert case_dice(scored(0.5, 1.0)) == 0.75
    assert case_dice(scored(math.nan, math.nan)) == 1.0


def test_ties_of_easy_and_hard_cases_are_reported():
    dice = {"a": 0.9, "b": 0.8, "c": 0.0, "d": 0.0, "e": 0.0, "f": 0.7}
    easy, hard, ties = easy_and_hard_cases(dice, 0.34)
    assert easy == ["a", "b"] and hard == ["d", "e"]
    assert ties == "3 cases have the lowest selected Dice of 0.000; the tie was broken by name"
    assert easy_and_hard_cases({"a": 0.9, "b": 0.8}, 0.05) == (["a"], ["b"], "")


def test_command_prints_and_writes_the_study(experiment, tmp_path, capsys):
    arguments = [experiment.dataset.name, "--risk-coverage", "--root", str(experiment.dataset.root), "-o", str(tmp_path)]
    assert compare.main(arguments) == 0
    shown = capsys.readouterr().out
    study = read_artefact(tmp_path / "risk_coverage.json", ReaderStudy)
    assert "AURC" in shown and study.first in shown and {one.stratum for one in study.scores} == {"all", "hard 5%", "easy 5%"}


def test_cases_are_judged_by_lines_of_other_patients(tmp_path, monkeypatch):
    experiment = make(tmp_path, "heart", cases=12, folds=2, models=("unet", "segformer"))
    seen = []

    def held_out(x, y, empty, groups):
        seen.append(groups)
        return expected_dice_of_held_out(x, y, empty, groups)

    monkeypatch.setattr(second_reader_study, "expected_dice_of_held_out", held_out)
    api.study_readers(501, root=tmp_path)
    assert len(seen[0]) == 12 and set(seen[0]) == {f"patient {case_name('heart', index).split('_')[0]}" for index in range(12)}
    for path in experiment.dataset.results.glob("*/fold_*/dataset.json"):
        spec = read_artefact(path, DatasetSpec)
        write_artefact(path, replace(spec, groups=dict.fromkeys(spec.groups, "one")))
    with pytest.raises(AutosegError, match="one group"):
        api.study_readers(501, root=tmp_path)
