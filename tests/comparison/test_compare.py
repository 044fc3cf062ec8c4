import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.comparison.micro_average import micro_intervals
from autoseg.comparison.paired_scores import case_values, pair_scores
from autoseg.comparison.results import ModelResults, load_results
from autoseg.comparison.tables import overall, ranking
from autoseg.evaluation.case import class_score
from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.evaluation.summary import summarise
from autoseg.io import read_label, write_label
from autoseg.metrics.overlap import Counts, total
from autoseg.metrics.surface import UNDEFINED_SURFACE
from autoseg.schema.comparison import Comparison
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.prediction import BestChoice
from autoseg.schema.run import RateSearch, RateTrial, RunRecord
from autoseg.schema.scores import CaseScore, ClassScore, Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from tests.comparison.results import make, plan_of, write_fold
from tests.schema.test_artefacts import SAMPLES


@pytest.fixture(scope="module")
def compared(experiment, tmp_path_factory):
    output = tmp_path_factory.mktemp("out")
    comparison = api.compare(
        "Polyps",
        root=experiment.root,
        output=output,
        stratify_by=["unet", "object_size", r"case=(\d)$"],
        share=0.25,
        report=False,
    )
    return comparison, output


def copied(experiment, tmp_path):
    shutil.copytree(experiment.root, tmp_path / "root")
    return tmp_path / "root"


def scores_of(experiment, model, fold):
    return read_artefact(experiment.dataset.fold(model, fold) / "validation" / "scores.json", Scores)


def test_frame_has_one_row_per_model(compared):
    comparison, _ = compared
    frame = comparison.to_frame()
    best = max(comparison.datasets[0].models, key=lambda model: model.overall["micro.dice"].mean)
    assert (
        list(frame["model"]) == ["segformer", "segnext", "unet"]
        and best.model in repr(comparison)
        and "3 models" in repr(comparison)
    )
    assert frame["micro_dice"].max() == best.overall["micro.dice"].mean
    for name in ("micro_dice", "tested_dice"):
        assert (frame[f"{name}_low"] <= frame[name]).all() and (frame[name] <= frame[f"{name}_high"]).all()
    assert (frame["micro_dice"] != frame["class_mean_dice"]).all() and (frame["micro_dice"] != frame["tested_dice"]).all()


def test_numbers_equal_the_score_files(experiment, compared):
    (dataset,) = compared[0].datasets
    assert [one.model for one in dataset.models] == ["segformer", "segnext", "unet"] and dataset.cases == 12
    for result in dataset.models:
        folds = [scores_of(experiment, result.model, fold) for fold in (0, 1)]
        for key in ("micro.dice", "class_mean.iou", "per_image.hd95", "per_image.nsd"):
            expected = [one.overall[key] for one in folds]
            assert result.overall[key].mean == pytest.approx(np.mean(expected))
            assert result.overall[key].std == pytest.approx(np.std(expected, ddof=1))
        one = [case.classes["neoplastic"] for case in folds[0].cases]
        counted = total(Counts(score.tp, score.fp, score.fn) for score in one).dice
        assert result.classes["neoplastic"]["pooled.dice"].folds["0"] == pytest.approx(counted)


def summed(cases) -> Counts:
    return total(Counts(one.tp, one.fp, one.fn) for case in cases for one in case.classes.values())


def test_mdsc_and_its_interval_are_of_the_summed_counts(experiment, compared):
    """The interval's middle is the number shown; its limits are those of samples drawn here in the plainest way."""
    (dataset,) = compared[0].datasets
    draw = np.random.default_rng(5)
    for result in dataset.models:
        folds = [scores_of(experiment, result.model, fold).cases for fold in (0, 1)]
        assert result.overall["micro.dice"].mean == pytest.approx(np.mean([summed(cases).dice for cases in folds]))
        drawn = [
            np.mean([summed([cases[index] for index in draw.integers(0, len(cases), len(cases))]).dice for cases in folds])
            for _ in range(1000)
        ]
        one = result.intervals["micro.dice"]
        assert one.mean == pytest.approx(result.overall["micro.dice"].mean)
        assert (one.low, one.high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.01)
        assert set(result.intervals) == {"micro.dice", "micro.iou", "micro.precision", "micro.recall"}


def case_with(name: str, tp: int, wrong: int) -> CaseScore:
    return CaseScore(name, {"a": class_score(Counts(tp, wrong, 0), UNDEFINED_SURFACE, {})})


def test_groups_are_drawn_whole_and_a_single_unit_gives_no_interval():
    """Ten images each of two patients, one easy and one hard: the mean of a sample is that of one of three mixtures."""
    cases = [case_with(f"{patient}{index}", tp, 10) for patient, tp in (("easy", 90), ("hard", 10)) for index in range(10)]
    scores = summarise(cases, "px")
    groups = {case.case: case.case[:4] for case in cases}
    model = ModelResults(model="unet", folds={}, scores={0: scores})
    by_case, by_group = (micro_intervals(model, one)["micro.precision"] for one in ({}, groups))
    assert by_case.mean == by_group.mean == scores.overall["micro.precision"] == pytest.approx(100 / 120)
    assert (by_group.low, by_group.high) == pytest.approx((0.5, 0.9))
    assert 0.7 < by_case.low < by_group.mean < by_case.high < 0.88
    alone = micro_intervals(model, dict.fromkeys(groups, "one patient"))["micro.dice"]
    assert alone.mean == scores.overall["micro.dice"] and math.isnan(alone.low) and math.isnan(alone.high)


def test_folds_are_drawn_independently():
    """With the same draws in every fold, the interval of the mean would be as wide as that of one fold."""
    cases = [case_with(str(index), 10 * index, 50) for index in range(20)]
    one, four = (
        micro_intervals(
            ModelResults(model="unet", folds={}, scores={fold: summarise(cases, "px") for fold in range(folds)}), {}
        )["micro.dice"]
        for folds in (1, 4)
    )
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.05)


def test_tables_show_each_interval_with_its_number(compared):
    (dataset,) = compared[0].datasets
    rows = {row[0]: dict(zip(overall(dataset).headings, row, strict=True)) for row in overall(dataset).rows}
    ranks = ranking(dataset, dataset.ranking)
    tested = {row[0]: dict(zip(ranks.headings, row, strict=True)) for row in ranks.rows}
    for result in dataset.models:
        one, row = result.intervals["micro.dice"], rows[result.model]
        assert row["mDSC"].startswith(f"{100 * one.mean:.1f} ±")
        assert row["95 % of mDSC"] == f"{100 * one.low:.1f} to {100 * one.high:.1f}"
        assert row["class mean of Dice"].startswith(f"{100 * result.overall['class_mean.dice'].mean:.1f} ±")
        mean = result.case_mean
        assert tested[result.model]["dice of cases"] == f"{100 * mean.mean:.1f}"
        assert tested[result.model]["95 % interval"] == f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
    assert [row[0] for row in overall(dataset).rows] == sorted(rows, key=lambda name: -float(rows[name]["mDSC"].split()[0]))


def test_statistics_use_cases_as_units(compared):
    (dataset,) = compared[0].datasets
    assert dataset.ranking.order[0] == "segformer" and dataset.ranking.order[-1] == "unet"
    assert len(dataset.tests) == 3 and all(test.units == 12 for test in dataset.tests)
    (test,) = dataset.family_tests
    assert test.difference.mean > 0 and (test.first, test.second) == ("generalist", "specialist")
    assert {one.family for one in dataset.families} == {"generalist", "specialist"}
    assert dataset.families[0].best == "segformer"
    assert {one.model for one in dataset.risk_coverage} == {"segformer", "segnext", "unet"}
    assert all(one.best <= one.aurc < one.random for one in dataset.risk_coverage)


def test_files_equal_the_returned_comparison(compared):
    comparison, output = compared
    again = read_artefact(output / "comparison.json", Comparison)
    assert again.datasets[0].ranking == comparison.datasets[0].ranking and again.across == comparison.across
    rows = list(csv.DictReader((output / "comparison.csv").read_text().splitlines()))
    unet_rows = [row for row in rows if (row["model"], row["class"], row["averaging"]) == ("unet", "all classes", "micro")]
    by_metric = {row["metric"]: float(row["mean"]) for row in unet_rows}
    unet = next(one for one in comparison.datasets[0].models if one.model == "unet")
    assert by_metric["dice"] == pytest.approx(unet.overall["micro.dice"].mean, abs=1e-6)
    limits = {row["metric"]: (float(row["low"]), float(row["high"])) for row in unet_rows}
    assert limits["iou"] == pytest.approx((unet.intervals["micro.iou"].low, unet.intervals["micro.iou"].high), abs=1e-6)
    (tested,) = [row for row in rows if row["model"] == "unet" and row["averaging"] == "tested"]
    assert [float(tested[name]) for name in ("mean", "low", "high")] == pytest.approx(
        [unet.case_mean.mean, unet.case_mean.low, unet.case_mean.high], abs=1e-6
    )
    # No interval of another number stands in a row.
    assert not any(row["low"] for row in rows if row["averaging"] not in ("micro", "tested"))
    assert {row["class"] for row in rows} == {"all classes", "neoplastic", "non_neoplastic"}


def test_easy_and_hard_cases_follow_the_reference_model(experiment, compared):
    by_model, by_size, by_pattern = compared[0].datasets[0].strata
    easy, hard = by_model.strata
    dice = {
        case.case: np.nanmean([one.dice for one in case.classes.values()])
        for fold in (0, 1)
        for case in scores_of(experiment, "unet", fold).cases
    }
    order = sorted(dice, key=dice.get)
    assert set(hard.cases) == set(order[:3]) and set(easy.cases) == set(order[-3:])
    assert hard.scores["unet"].dice == pytest.approx(np.mean([dice[case] for case in order[:3]]))
    assert set(easy.scores) == {"segformer", "segnext", "unet"}
    assert [len(one.cases) for one in by_size.strata] == [4, 4, 4]
    assert [one.name for one in by_pattern.strata] == list("0123456789")


@pytest.mark.parametrize("by", ["unett", "case=(", "image_colour", "dtype"])
def test_invalid_strata_raise(experiment, tmp_path, by):
    with pytest.raises(AutosegError):
        api.compare("Polyps", root=experiment.root, output=tmp_path, stratify_by=[by], report=False)
    with pytest.raises(AutosegError, match="fraction"):
        api.compare("Polyps", root=experiment.root, output=tmp_path, stratify_by=["unet"], share=0.7, report=False)
    assert not list(tmp_path.iterdir())


def test_unequal_runs_raise_with_their_names(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    folder = root / experiment.dataset.fold("unet", 1).relative_to(experiment.root)
    spec = read_artefact(folder / "dataset.json", DatasetSpec)
    moved = replace(experiment, root=root, dataset=replace(experiment.dataset, root=root))
    write_fold(moved, spec, "unet", 1, plan=plan_of(experiment.dataset, "unet", spec, epochs=9))
    with pytest.raises(SeveralProblems, match="not equal") as caught:
        api.compare("Polyps", root=root, report=False)
    assert list(caught.value.problems) == ["epochs: 4 for most, 9 for unet, fold 1"]
    assert not (root / "results" / "Dataset501_Polyps" / "comparison").exists()
    notes = api.compare("Polyps", root=root, allow_unequal=True, report=False).datasets[0].notes
    assert notes[0].startswith("the epoch was chosen on scored cases") and "epochs: 4 for most" in notes[1]
    assert len(api.compare("Polyps", root=root, models=["segformer", "segnext"], report=False).datasets[0].models) == 2


def with_size(plan, model, size, **training):
    """The plan at another input size; hiformer works at 224 only, and its variant must be a real one."""
    (config,) = plan.preprocessing.values()
    config = replace(config, key=f"resize_{size}x{size}", size=(size, size))
    variant = "S" if model == "hiformer" else plan.models[model].variant
    changed = replace(plan.models[model], input_size=(size, size), preprocessing=config.key, variant=variant)
    return replace(
        plan, preprocessing={config.key: config}, models={model: changed}, training=replace(plan.training, **training)
    )


def test_an_inner_size_is_no_difference_in_preprocessing(tmp_path):
    """What an architecture cannot choose is noted; what was chosen is unequal."""
    experiment = make(tmp_path, cases=8, folds=2, models=("unet", "segformer"))
    spec = read_artefact(experiment.dataset.fold("unet", 0) / "dataset.json", DatasetSpec)
    for fold in (0, 1):
        plan = with_size(plan_of(experiment.dataset, "hiformer", spec), "hiformer", 224)
        write_fold(experiment, spec, "hiformer", fold, plan=plan)
    notes = api.compare("Polyps", root=tmp_path, report=False).datasets[0].notes
    assert "hiformer work at 224 x 224 inside, so their input has this size; that of the others: 64 x 64" in notes
    for fold in (0, 1):
        plan = with_size(plan_of(experiment.dataset, "segformer", spec), "segformer", 224)
        write_fold(experiment, spec, "segformer", fold, plan=plan)
    with pytest.raises(SeveralProblems) as caught:
        api.compare("Polyps", root=tmp_path, report=False)
    assert [line.partition(":")[0] for line in caught.value.problems] == ["the input size"]


def test_searches_are_equal_by_what_was_asked_for(tmp_path):
    """A trial that diverged took no steps, and a rate that the plan's rule added is noted."""
    experiment = make(tmp_path, cases=8, folds=2, models=("unet", "segformer"))
    spec = read_artefact(experiment.dataset.fold("unet", 0) / "dataset.json", DatasetSpec)
    plan = plan_of(experiment.dataset, "unet", spec)
    trials = [RateTrial(rate=rate, class_mean_dice=0.5, dice={}, steps=40, seconds=1.0) for rate in (1e-3, 1e-4, 1e-2)]
    for model, tried, epochs in (("unet", 2, 5), ("segformer", 3, 5)):
        search = RateSearch(
            fold=0, epochs=epochs, identity="", tried=tuple(trials[:tried]), chosen=1e-3, steps=40 * tried, seconds=1.0
        )
        for fold in (0, 1):
            training = replace(plan.training, learning_rates=(1e-3, 1e-4))
            searched = replace(plan_of(experiment.dataset, model, spec), training=training)
            write_fold(experiment, spec, model, fold, plan=searched, search=search)
    notes = api.compare("Polyps", root=tmp_path, report=False).datasets[0].notes
    assert any(note.startswith("the learning rates tried: 0.001, 0.0001") and "0.01" in note for note in notes)
    record = experiment.dataset.fold("unet", 0) / "run.json"
    longer = read_artefact(record, RunRecord)
    write_artefact(record, replace(longer, search=replace(longer.search, epochs=9)))
    with pytest.raises(SeveralProblems) as caught:
        api.compare("Polyps", root=tmp_path, report=False)
    assert list(caught.value.problems) == ["the learning-rate search: 5 epochs for each of 2 rates for most, "
                                           "9 epochs for each of 2 rates for unet, fold 0"]  # fmt: skip


def test_an_extended_run_is_not_equal(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    path = root / experiment.dataset.fold("unet", 1).relative_to(experiment.root) / "run.json"
    write_artefact(path, replace(read_artefact(path, RunRecord), extended=(2,)))
    with pytest.raises(SeveralProblems, match="not equal") as caught:
        api.compare("Polyps", root=root, report=False)
    assert list(caught.value.problems) == ["trained on: never for most, after epoch 2 (--extend) for unet, fold 1"]


def test_the_first_note_says_which_choices_saw_the_scored_cases(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    for name in ("unet", "segformer", "segnext"):
        for fold in range(5):
            path = root / experiment.dataset.fold(name, fold).relative_to(experiment.root) / "run.json"
            if path.exists():
                saw = ("learning rate",) if (name, fold) == ("unet", 0) else ()
                write_artefact(path, replace(read_artefact(path, RunRecord), saw_scored_cases=saw))
    (comparison,) = api.compare("Polyps", root=root, report=False).datasets
    assert comparison.notes[0] == (
        "the learning rate was chosen on scored cases, so the scores are optimistic (the learning rate of unet, fold 0)"
    )


def test_precision_is_noted_and_memory_format_is_not(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    for fold in range(2):
        path = root / experiment.dataset.fold("unet", fold).relative_to(experiment.root) / "run.json"
        record = read_artefact(path, RunRecord)
        write_artefact(path, replace(record, precision="bf16", memory_format="channels_last"))
    (comparison,) = api.compare("Polyps", root=root, report=False).datasets
    (note,) = [note for note in comparison.notes if "bf16" in note]
    assert note.startswith("the precision: fp32 for most, bf16 for unet")
    assert not [note for note in comparison.notes if "channels_last" in note]


def test_different_splits_and_folds_raise(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    folder = root / experiment.dataset.fold("segnext", 0).relative_to(experiment.root)
    splits = json.loads((folder / "splits.json").read_text())
    splits["folds"][0]["train"].pop()
    (folder / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(SeveralProblems, match="the split of fold 0") as caught:
        api.compare("Polyps", root=root, report=False)
    assert "5 training" in caught.value.problems[0] and "segnext, fold 0" in caught.value.problems[0]
    shutil.rmtree(folder)
    with pytest.raises(SeveralProblems, match="segnext has 1; unet has 0, 1"):
        api.compare("Polyps", root=root, report=False)
    assert api.compare("Polyps", root=root, folds=[1], report=False).datasets[0].cases == 6


def test_unfinished_folds_are_left_out_and_damaged_ones_named(experiment, tmp_path, caplog):
    root = copied(experiment, tmp_path)
    folder = root / experiment.dataset.fold("segnext", 0).relative_to(experiment.root)
    record = read_artefact(folder / "run.json", RunRecord)
    write_artefact(folder / "run.json", replace(record, status="stopped", epochs_done=2))
    with caplog.at_level("WARNING", logger="autoseg"):
        api.compare("Polyps", root=root, allow_unequal=True, report=False)
    assert "stopped after 2 of 4 epochs" in caplog.text
    write_artefact(folder / "run.json", replace(record, identity="another"))
    (root / experiment.dataset.fold("unet", 1).relative_to(experiment.root) / "validation" / "scores.json").unlink()
    with pytest.raises(SeveralProblems) as caught:
        api.compare("Polyps", root=root, report=False)
    assert "masks of another run" in caught.value.problems[0] and "scores.json is missing" in caught.value.problems[1]


def test_unknown_models_and_metrics_raise(experiment, tmp_path):
    with pytest.raises(SeveralProblems, match="unett: no finished fold"):
        api.compare("Polyps", root=experiment.root, models=["unett"], output=tmp_path, report=False)
    with pytest.raises(AutosegError, match="no metric"):
        api.compare("Polyps", root=experiment.root, metric="dicee", output=tmp_path, report=False)


def test_external_masks_are_compared_with_trained_models(experiment, tmp_path):
    masks = tmp_path / "masks"
    for fold in (0, 1):
        shutil.copytree(experiment.dataset.fold("segformer", fold) / "validation", masks, dirs_exist_ok=True)
    evaluate_folders(masks, experiment.dataset.raw / "labelsTr", output=masks)
    comparison = api.compare(
        "Polyps", root=experiment.root, also={"other": masks}, stratify_by=["unet"], output=tmp_path / "o", report=False
    )
    other = next(one for one in comparison.datasets[0].models if one.model == "other")
    assert other.cost is None and other.family == "external" and other.cases == 12
    same = next(one for one in comparison.datasets[0].tests if {one.first, one.second} == {"segformer", "other"})
    assert same.p == 1 and same.difference.mean == 0
    assert "other" in comparison.datasets[0].strata[0].strata[0].scores


def test_false_positives_lower_dice_and_distances_need_all_models():
    def class_score(dice, hd95):
        diagonal = 100.0 if dice == 0 else hd95
        return ClassScore(
            tp=0, fp=0, fn=0, dice=dice, iou=dice, precision=dice, recall=dice, hd95=hd95, hd95_diagonal=diagonal
        )

    def score(dice, hd95):
        return CaseScore(
            "x",
            {
                "lesion": class_score(dice, hd95),
                "scar": class_score(math.nan, math.nan),
            },
        )

    right, wrong, half = score(math.nan, math.nan), score(0.0, math.nan), score(0.5, 3.0)
    assert case_values([right, wrong], "dice") == [1.0, 0.0]
    assert case_values([right, right], "dice") is None
    assert case_values([half, wrong], "dice") == [0.5, 0.0]
    assert case_values([half, wrong], "hd95") is None and case_values([half, half], "hd95") == [3.0, 3.0]
    # With the diagonal no case is left out, and a class that is rightly absent has the distance 0.
    assert case_values([half, wrong], "hd95_diagonal") == [3.0, 100.0]
    assert case_values([right, wrong], "hd95_diagonal") == [0.0, 100.0] and case_values([right, right], "hd95_diagonal") is None


def test_hd95_is_shown_both_ways_and_can_be_tested(experiment, tmp_path, capsys):
    """The masks of one model are emptied in half of the cases: left out, its distance does not change much."""
    root = copied(experiment, tmp_path)
    dataset = replace(experiment.dataset, root=root)
    for fold in (0, 1):
        masks = dataset.fold("segnext", fold) / "validation"
        for path in sorted(masks.glob("*.png"))[::2]:
            write_label(path, np.zeros_like(read_label(path).array))
        cases = experiment.splits.folds[fold].validation
        evaluate_folders(masks, dataset.raw / "labelsTr", cases=cases, workers=1)
    command = ["Polyps", "--root", str(root), "--no-report", "--metric", "hd95_diagonal", "--stratify-by", "segnext"]
    assert compare.main([*command, "--share", "0.4", "-o", str(tmp_path / "out")]) == 0
    comparison = read_artefact(tmp_path / "out" / "comparison.json", Comparison)
    (one,) = comparison.datasets
    emptied = next(model for model in one.models if model.model == "segnext").overall
    assert emptied["per_image.hd95"].mean < 20 < emptied["per_image.hd95_diagonal"].mean
    assert one.ranking.order[-1] == "segnext" and one.tests[0].units == 12
    hard = one.strata[0].strata[1].scores["segnext"]
    assert hard.undefined == 5 and math.isnan(hard.hd95) and hard.hd95_diagonal > 50 and hard.hd95_diagonal_std >= 0
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert {"hd95", "hd95_diagonal"} <= {row["metric"] for row in rows if row["averaging"] == "per_image"}
    out = capsys.readouterr().out
    assert "HD95, left out" in out and "HD95, diagonal" in out and "the image's diagonal" in out


def test_a_metric_that_an_older_release_did_not_score_is_refused_by_name(experiment, tmp_path):
    root = copied(experiment, tmp_path)
    path = replace(experiment.dataset, root=root).fold("unet", 0) / "validation" / "scores.json"
    content = json.loads(path.read_text())
    del content["overall"]["per_image.hd95_diagonal"]
    path.write_text(json.dumps(content))
    with pytest.raises(AutosegError, match=r"unet on .* scored without the metric 'hd95_diagonal'\n.*run autoseg_evaluate"):
        api.compare("Polyps", root=root, metric="hd95_diagonal", output=tmp_path / "out", report=False)
    with pytest.raises(AutosegError, match="thin classes only"):
        api.compare("Polyps", root=root, metric="cldice", output=tmp_path / "out", report=False)


def test_patients_count_once(tmp_path):
    experiment = make(tmp_path, "heart", cases=8, folds=2, models=("unet", "segformer"))
    dataset_results = load_results(experiment.dataset)
    scores = pair_scores(dataset_results, "dice")
    assert scores.matrix.shape == (2, 4) and set(scores.units) == {f"patient{index:03d}" for index in range(4)}
    assert api.compare("Heart", root=tmp_path, report=False).datasets[0].units == "group"


def test_three_families_are_tested_in_pairs_with_their_cost(tmp_path, capsys):
    """A timm encoder is compared under its own name, although its folder has another."""
    models = ("unet", "hiformer", "segformer", "timm:resnet18.a1_in1k", "dinov2")
    experiment = make(tmp_path, cases=12, folds=2, models=models)
    assert (experiment.dataset.results / "timm+resnet18.a1_in1k" / "fold_0" / "run.json").is_file()
    assert compare.main(["Polyps", "--root", str(tmp_path), "--no-report"]) == 0
    printed = capsys.readouterr().out
    (dataset,) = read_artefact(experiment.dataset.results / "comparison" / "comparison.json", Comparison).datasets
    families = {one.family: one for one in dataset.families}
    assert {name: set(one.models) for name, one in families.items()} == {
        "specialist": {"unet", "hiformer"}, "generalist": {"segformer", "timm:resnet18.a1_in1k"}, "foundation": {"dinov2"},
    }  # fmt: skip
    pairs = {(test.first, test.second): test for test in dataset.family_tests}
    assert set(pairs) == {("foundation", "generalist"), ("foundation", "specialist"), ("generalist", "specialist")}
    assert all(test.difference.mean > 0 and test.p <= test.p_adjusted for test in pairs.values())
    assert any(test.p < test.p_adjusted for test in pairs.values()), "corrected over the three pairs"
    costs = {one.model: one.cost for one in dataset.models}
    specialists = [costs["unet"], costs["hiformer"]]
    assert families["specialist"].mean_training_seconds == pytest.approx(sum(one.training_seconds for one in specialists) / 2)
    assert families["specialist"].mean_parameters == pytest.approx(sum(one.parameters for one in specialists) / 2)
    assert families["foundation"].mean_latency == pytest.approx(0.06)
    assert "Pairs of families" in printed and "foundation - specialist" in printed


def test_the_choice_of_models_stands_beside_them_with_both_dice(experiment, tmp_path, capsys):
    root = copied(experiment, tmp_path)
    results = root / experiment.dataset.results.relative_to(experiment.root)
    sample = read_artefact(SAMPLES / "best_v3.json", BestChoice)
    choice = replace(sample, models=("unet", "segnext"), dice=0.712, nested_dice=0.654, identities={
        f"{model}/fold_{fold}": read_artefact(results / model / f"fold_{fold}" / "run.json", RunRecord).identity
        for model in ("unet", "segnext") for fold in (0, 1)
    })  # fmt: skip
    write_artefact(results / "best.json", choice)
    assert compare.main(["Polyps", "--root", str(root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    (selection,) = (one.selection for one in read_artefact(results / "comparison" / "comparison.json", Comparison).datasets)
    assert (selection.models, selection.dice, selection.nested_dice) == (("unet", "segnext"), 0.712, 0.654)
    page = (results / "comparison" / "report.html").read_text()
    for text in (shown, page):
        assert "unet + segnext" in text and "71.2" in text and "65.4" in text
        assert "Dice 0.712 is of the cases the choice was made on" in text and "Dice 0.654 is the one to report" in text
    write_artefact(results / "best.json", replace(choice, identities={}))
    (comparison,) = api.compare("Polyps", root=root, report=False).datasets
    assert comparison.selection is None and "best.json is out of date" in comparison.notes[-1]


def test_energy_stands_in_the_cost_tables_only_where_it_is_known(experiment, tmp_path):
    from autoseg.comparison.tables import costs

    root = tmp_path / "root"
    shutil.copytree(experiment.root, root)
    compared = api.compare("Polyps", root=root, output=tmp_path / "before", report=False)
    assert "energy" not in (tmp_path / "before" / "comparison.md").read_text()
    assert not any("energy" in heading for heading in costs(compared.datasets[0]).headings)
    for fold in (0, 1):
        path = root / "results" / experiment.dataset.name / "unet" / f"fold_{fold}" / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "energy": {"processor": 3.6e6 * (1 + 2 * fold)}}))
    (dataset,) = api.compare("Polyps", root=root, output=tmp_path / "after", report=False).datasets
    table = costs(dataset)
    cells = {row[0]: row[table.headings.index("energy of a fold")] for row in table.rows}
    assert cells == {"unet": "2 kWh (processor)", "segnext": "–", "segformer": "–"}
    # Of all trainings it is not known.
    assert "kWh" not in dataset.conditions.lines["budget"]
    for name in ("comparison.md", "comparison.tex", "comparison_cost.csv"):
        assert "2 kWh (processor)" in (tmp_path / "after" / name).read_text(), name
    (alone,) = api.compare("Polyps", models="unet", root=root, output=tmp_path / "alone", report=False).datasets
    assert "4 kWh (processor)" in alone.conditions.lines["budget"]
