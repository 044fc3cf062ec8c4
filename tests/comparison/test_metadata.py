"""Subgroups by columns of a CSV."""

import csv
import math

import numpy as np
import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.comparison.paired_scores import mean_over_classes
from autoseg.comparison.results import load_results
from autoseg.comparison.strata import FEWEST, stratify
from autoseg.io.metadata import NOT_GIVEN, numbers, read_metadata
from autoseg.support.errors import AutosegError, SeveralProblems
from tests.comparison.results import make


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def cases_of(experiment):
    return sorted(case for fold in experiment.splits.folds for case in fold.validation)


@pytest.fixture
def table(experiment, tmp_path):
    """site: A (7), B (3), none (2); age: 12 numbers; sex: two codes; secret: one value each."""
    cases = cases_of(experiment)
    lines = ["case;site;age;sex;secret"]
    for index, case in enumerate(cases):
        site = "A" if index < 7 else "B" if index < 10 else ""
        lines.append(f"{case}.png;{site};{30 + index};{index % 2};person{index}")
    return write(tmp_path / "cases.csv", "\n".join([*lines, "another;C;1;1;x"]), "utf-8-sig")


def dice(results, model, cases):
    return [mean_over_classes(results.models[model].cases[case], "dice") for case in cases]


def test_groups_have_n_means_and_intervals_of_their_cases(experiment, table):
    results = load_results(experiment.dataset)
    found = stratify(results, "site", 0.05, lambda: None, read_metadata(table))
    cases = cases_of(experiment)
    expected = {"A": cases[:7], "B": cases[7:10], NOT_GIVEN: cases[10:]}
    assert {one.name: list(one.cases) for one in found.strata} == expected
    for one in found.strata:
        for model, score in one.scores.items():
            values = dice(results, model, one.cases)
            assert score.dice == pytest.approx(np.mean(values))
            assert min(values) <= score.dice_low <= score.dice <= score.dice_high <= max(values)
    # Only one group has enough cases to be the worst.
    assert found.worst == {}


def test_the_worst_group_stands_beside_all_cases(experiment, table):
    results = load_results(experiment.dataset)
    found = stratify(results, "sex", 0.05, lambda: None, read_metadata(table))
    cases = cases_of(experiment)
    for model, worst in found.worst.items():
        means = {str(code): np.mean(dice(results, model, cases[code::2])) for code in (0, 1)}
        assert worst.group == min(means, key=means.get) and worst.dice.mean == pytest.approx(means[worst.group])
        assert worst.cases == 6 >= FEWEST and worst.groups == 2 and worst.all_cases == 12
        everyone = dice(results, model, cases)
        assert worst.all_dice.mean == pytest.approx(np.mean(everyone))
        # The interval of a mean of twelve: about two standard errors to either side.
        width = worst.all_dice.high - worst.all_dice.low
        assert width == pytest.approx(2 * 1.96 * np.std(everyone) / math.sqrt(12), rel=0.15)
    assert set(found.worst) == set(results.models)


def test_ages_are_cut_into_thirds_and_codes_are_not(experiment, table):
    results = load_results(experiment.dataset)
    found = stratify(results, "age", 0.05, lambda: None, read_metadata(table))
    assert [(one.name, len(one.cases)) for one in found.strata] == [("lower third", 4), ("middle third", 4), ("upper third", 4)]
    assert found.rule.startswith("age of cases.csv: up to 33.7, up to 37.3")
    assert numbers(["1", "2", "1", "2"]) is None and numbers([str(n) for n in range(7)] + ["a"]) is None
    assert numbers([str(n) for n in range(7)] + ["inf"]) is None
    assert numbers([*map(str, range(7)), NOT_GIVEN])[:7] == [0, 1, 2, 3, 4, 5, 6]


def test_patients_are_drawn_whole(tmp_path):
    experiment = make(tmp_path, kind="heart", cases=12, folds=2, models=("unet",))
    cases = cases_of(experiment)
    text = "\n".join(["case,site", *(f"{case},{'AB'[index % 2]}" for index, case in enumerate(cases))])
    metadata = read_metadata(write(tmp_path / "cases.csv", text))
    grouped = load_results(experiment.dataset)
    alone = type(grouped)(grouped.dataset, type(grouped.spec)(**{**vars(grouped.spec), "groups": {}}), grouped.models)
    wide, narrow = (stratify(one, "site", 0.05, lambda: None, metadata).worst["unet"].all_dice for one in (grouped, alone))
    assert wide.mean == narrow.mean and (wide.low, wide.high) != (narrow.low, narrow.high)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("name,site\na,b", "one of them 'case'; it has name, site"),
        ("case,site,site\na,b,c", "columns of different names"),
        ("case,,site\na,b,c", r"\(no name\)"),
        ("case,site\nx,1\nx,2\n,3\ny,1,2", "cannot be used"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, said):
    with pytest.raises(AutosegError, match=said):
        read_metadata(write(tmp_path / "cases.csv", text))


def test_all_wrong_lines_are_named_at_once_without_their_values(tmp_path):
    with pytest.raises(SeveralProblems) as caught:
        read_metadata(write(tmp_path / "cases.csv", "case,site\nx,secret\nx,secret\n,secret\ny,secret,secret"))
    assert list(caught.value.problems) == [
        "line 3: x is there twice", "line 4: no name of a case", "line 5 has 3 cells instead of 2",
    ]  # fmt: skip


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(AutosegError, match="does not exist"):
        read_metadata(tmp_path / "missing.csv")
    with pytest.raises(AutosegError, match="not UTF-8"):
        read_metadata(write(tmp_path / "latin.csv", "case,site\nä,b", "latin-1"))
    with pytest.raises(AutosegError, match="is not a CSV"):
        read_metadata(write(tmp_path / "long.csv", "case,site\na," + "x" * 200_000))


def test_columns_that_make_no_groups_are_refused(experiment, table, tmp_path):
    results, metadata = load_results(experiment.dataset), read_metadata(table)
    with pytest.raises(AutosegError, match="no site for any of the cases"):
        stratify(results, "site", 0.05, lambda: None, read_metadata(write(tmp_path / "other.csv", "case,site\nother,a")))
    with pytest.raises(AutosegError, match="of the CSV: site, age, sex, secret"):
        stratify(results, "scanner", 0.05, lambda: None, metadata)
    lines = ["case,site", *(f"{case},A" for case in cases_of(experiment))]
    same = read_metadata(write(tmp_path / "same.csv", "\n".join(lines)))
    with pytest.raises(AutosegError, match="does not tell the cases"):
        stratify(results, "site", 0.05, lambda: None, same)
    clash = read_metadata(write(tmp_path / "clash.csv", "case,unet\nx,a"))
    with pytest.raises(AutosegError, match="rename the column"):
        stratify(results, "unet", 0.05, lambda: None, clash)


def test_only_columns_asked_for_are_written(experiment, table, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["Polyps", "--root", str(experiment.root), "-o", str(output), "--metadata", str(table)]
    assert compare.main([*arguments, "--stratify-by", "sex", "--stratify-by", "site"]) == 0
    printed = capsys.readouterr().out
    assert "Worst groups on Dataset501_Polyps" in printed and NOT_GIVEN in printed
    for path in output.iterdir():
        assert "person" not in path.read_text(encoding="utf-8"), path
    rows = list(csv.DictReader((output / "comparison_worst_groups.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["by"] for row in rows} == {"sex"} and all(row["n"] == "12" and row["n of it"] == "6" for row in rows)
    assert all(float(row["difference"]) <= 0 for row in rows)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Worst groups on" in page and "by site" in page
    assert compare.main(arguments) == 2
    assert "add --stratify-by COLUMN; its columns: site, age, sex, secret" in " ".join(capsys.readouterr().err.split())


def test_easy_and_hard_cases_have_no_worst_group(experiment, tmp_path):
    (dataset,) = api.compare(
        "Polyps", root=experiment.root, stratify_by=["unet"], share=0.5, report=False, output=tmp_path
    ).datasets
    (easy,) = dataset.strata
    assert easy.worst == {} and all(len(one.cases) >= FEWEST for one in easy.strata)
