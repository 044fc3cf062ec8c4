"""A selection from candidates to a recommendation: what is tried, what decides, interruptions, more hours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg import api
from autoseg.cli import select
from autoseg.prediction.model_selection import read_best
from autoseg.schema.plan import ModelPlan, Plan, Splits
from autoseg.schema.runner import Job
from autoseg.schema.selection import ModelSelection
from autoseg.selection.search import read_selection
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from tests.selection.world import STEP, Jobs, copy, dataset, told_dice

MODELS = tuple(STEP)
HOURS = 0.2


def run(root: Path, hours: float = HOURS, **options: object) -> ModelSelection:
    options = {"models": MODELS} | options
    (selection,) = api.select("Lesion", hours=hours, device="cpu", root=root, **options)  # type: ignore[arg-type]
    return selection


def decisions(selection: ModelSelection) -> object:
    """Everything but times."""
    rungs = [[(one.name, one.value, one.eliminated) for one in rung.tried] for rung in selection.rungs]
    return selection.entered, rungs, [(one.name, one.value) for one in selection.confirmed], selection.recommended


def test_the_best_network_is_found_and_confirmed_beside_the_default(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    selection = run(root)
    assert selection.candidate(selection.recommended).model == "good_net"
    numbers = [len(rung.tried) for rung in selection.rungs]
    assert numbers[0] >= 5 and numbers[1:] == [3, 2]
    first = selection.first_seconds
    assert [rung.seconds for rung in selection.rungs] == pytest.approx([first, 3 * first, 9 * first])
    # The planner's own choice for the first of the models is confirmed too.
    default = selection.confirmed_as("default")
    assert default is not None and selection.candidate(default.name).changes == 0
    assert selection.candidate(default.name).model == "fast_net" and default.cases == len(selection.held_back) == 9
    winner = selection.confirmed_as("winner")
    assert winner is not None and winner.value.low <= winner.value.mean <= winner.value.high
    assert winner.value.mean > default.value.mean and "Winner against default: dice differs by +0.1" in selection.reason
    # The slow network cannot finish a training of the first rung.
    (slow,) = {one.left_out for one in selection.candidates if one.model == "slow_net" and one.changes == 0}
    assert slow.startswith("2 steps take 428 s, a training of the first rung has")
    assert read_selection(dataset(root)) == selection
    page = (dataset(root).results / "selection" / "selection.html").read_text()
    assert selection.recommended in page and "<svg" in page and slow in page


def test_no_rung_reads_a_held_back_case(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    selection = run(root)
    held_back, folds = set(selection.held_back), read_artefact(dataset(root).splits, Splits).folds
    rung_files = list((dataset(root).results / "selection").glob("*/level_*/splits.json"))
    assert len(rung_files) >= 5
    for path in rung_files:
        (fold,) = read_artefact(path, Splits).folds
        assert not held_back & {*fold.train, *fold.validation} and not set(fold.train) & set(fold.validation)
        assert set(fold.validation) == set(selection.deciding)
        training = read_artefact(path.with_name("plan.json"), Plan).training
        assert (training.selection, training.validate_every) == ("last", training.epochs)
    # The confirmed ones have the dataset's own folds.
    for one in selection.confirmed:
        assert read_artefact(dataset(root).model(one.run) / "splits.json", Splits).folds == folds
    # Whatever the held-back cases are like, the same candidates go on.
    jobs.dice = lambda job, plan, case: 0.1 if case in held_back else told_dice(job, plan, case)
    other = run(copy(planned, tmp_path / "other"))
    assert decisions(other)[1] == decisions(selection)[1]  # type: ignore[index]
    assert all(one.value.mean == pytest.approx(0.1) for one in other.confirmed)


@pytest.mark.parametrize("stop_after", [0, 2, 7, 11, 15])
def test_a_selection_that_was_interrupted_continues_to_the_same_result(
    planned: Path, jobs: Jobs, tmp_path: Path, stop_after: int
) -> None:
    whole = run(copy(planned, tmp_path / "whole"))
    every_job, jobs.ran, jobs.stop_after = jobs.trials, [], stop_after
    root = copy(planned, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    jobs.stop_after = None
    assert decisions(run(root)) == decisions(whole)
    assert jobs.trials == every_job
    # Once more: nothing is left to do, and nothing is forgotten.
    jobs.ran = []
    again = run(root)
    assert jobs.ran == [] and decisions(again) == decisions(whole) and again.overhead_seconds == whole.overhead_seconds
    assert again.overhead_seconds == 2 * len(every_job)


def test_more_hours_continue_from_what_is_there(planned: Path, jobs: Jobs, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="autoseg")
    root = copy(planned, tmp_path)
    first = run(root)
    done, jobs.ran = set(jobs.trials), []
    more = run(root, hours=6 * HOURS)
    assert more.level > first.level and set(first.entered) <= set(more.entered)
    assert not done & set(jobs.trials)
    rung = more.rungs[0]
    known = {f"selection/{one.name}/level_{rung.level}/0" for one in rung.tried} & done
    assert known, "trainings of the first call are rungs of the second"
    assert more.hours == 6 * HOURS and more.first_seconds == first.first_seconds
    # Less than it was given already: nothing to do.
    jobs.ran = []
    assert decisions(run(root, hours=HOURS)) == decisions(more) and jobs.ran == []
    assert "was already given 1.2 hours" in caplog.text


def test_the_same_seed_gives_the_same_decisions_and_another_is_refused(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    one, root = copy(planned, tmp_path / "one"), copy(planned, tmp_path / "other")
    first = run(one)
    assert decisions(run(root)) == decisions(first)
    with pytest.raises(AutosegError, match="is of other seed") as caught:
        run(root, seed=1)
    assert "give --seed 0" in caught.value.remedy
    other = run(copy(planned, tmp_path / "third"), seed=1)
    assert other.held_back != first.held_back
    seeds = {read_artefact(path, Plan).training.seed for path in (tmp_path / "third").rglob("level_0/plan.json")}
    assert seeds == {1}


def test_other_images_or_folds_are_refused(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    run(root)
    splits = read_artefact(dataset(root).splits, Splits)
    write_artefact(dataset(root).splits, replace(splits, folds=splits.folds[::-1]))
    with pytest.raises(AutosegError, match="is of other folds"):
        run(root)


def test_failed_trainings_fall_and_the_others_go_on(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    jobs.fail = lambda job: job.model == "good_net"
    selection = run(copy(planned, tmp_path))
    failed = [one for one in selection.rungs[0].tried if selection.candidate(one.name).model == "good_net"]
    assert failed and {one.eliminated for one in failed} == {"its training failed: it was killed"}
    assert selection.candidate(selection.recommended).model == "fast_net"
    jobs.fail = lambda job: True
    with pytest.raises(AutosegError, match="no candidate could be trained: .*it was killed"):
        run(copy(planned, tmp_path / "all"))


def test_folds_that_fail_are_named(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    jobs.fail = lambda job: job.fold == 1 and job.model == "fast_net" and not job.trial.startswith("selection/")
    selection = run(copy(planned, tmp_path))
    default = selection.confirmed_as("default")
    assert default is not None and default.failed == "fold 1: it was killed"
    assert selection.candidate(selection.recommended).model == "good_net"


def test_the_objective_decides(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    by_dice = run(root)
    ran, jobs.ran = len(jobs.ran), []
    by_distance = run(root, objective="hd95")
    assert not by_distance.higher_is_better and by_distance.recommended == by_dice.recommended
    assert [one.value for one in by_distance.rungs[0].tried] == sorted(one.value for one in by_distance.rungs[0].tried)
    # The same trainings are judged again.
    assert len(jobs.ran) < ran / 2
    with pytest.raises(AutosegError, match="there is no metric 'dicee'"):
        run(root, objective="dicee")


def test_predict_and_find_best_know_the_recommended_one(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    selection = run(root)
    chosen = next(one for one in selection.confirmed if one.name == selection.recommended)
    best = read_best(dataset(root))
    assert best.models == (chosen.run,) and best.held_back == 9 and best.folds == (0, 1, 2)
    assert best.nested_dice == pytest.approx(chosen.dice.mean) and best.command == selection.predict
    assert best.dice_notes()[1] == f"Dice {chosen.dice.mean:.3f} is the one to report: of 9 cases that no decision saw."
    assert all((dataset(root).fold(chosen.run, fold) / "run.json").is_file() for fold in range(3))


def test_frozen_encoders_have_a_round_of_their_own(planned: Path, jobs: Jobs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(STEP, "slow_net", 0.6)
    without = run(copy(planned, tmp_path / "without"))
    assert not any(one.frozen for one in without.candidates), "no weights, no frozen encoder"
    monkeypatch.setattr("autoseg.training.train_fold.starting_weights", lambda *arguments, **options: object())
    root = copy(planned, tmp_path)
    jobs.stop_after = len(jobs.ran) + 2
    with pytest.raises(KeyboardInterrupt):
        run(root)
    jobs.stop_after = None
    selection = run(root)
    first, *others = selection.rungs
    assert first.kind == "frozen" and {rung.kind for rung in others} == {"full"} and len(first.tried) == 3
    (eliminated,) = [one for one in first.tried if one.eliminated]
    model = selection.candidate(eliminated.name).model
    assert model == "fast_net" and not any(name.startswith(model) for name in selection.entered)
    reasons = {one.left_out for one in selection.candidates if one.model == model}
    assert reasons == {f"its frozen encoder was eliminated: {eliminated.eliminated}"}
    assert len(others[0].tried) >= 5
    plans = [read_artefact(path, Plan) for path in tmp_path.glob("root/results/*/selection/*frozen/level_0/plan.json")]
    assert {model.encoder_rate for plan in plans for model in plan.models.values()} == {0}
    assert all(model.cached_views for plan in plans for model in plan.models.values())
    # A model whose encoder cannot be frozen has no such candidate.
    refused = AutosegError("it has no encoder of its own", "")

    def seconds(self: object, plan: Plan, model: ModelPlan) -> float:
        if model.encoder_rate == 0:
            raise refused
        return 0.5

    monkeypatch.setattr("autoseg.training.step_time.MeasuredSteps.seconds", seconds)
    assert not any(one.frozen for one in run(copy(planned, tmp_path / "refused")).candidates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hours", "0"], "cannot take 0 hours"),
        (["--hours", "0.2", "--models", "fast_nett"], "there is no model 'fast_nett'"),
        (["--hours", "0.2", "--models", "slow_net"], "fewer than two candidates can take 2 steps"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(planned: Path, jobs: Jobs, tmp_path: Path, capsys, options, message):
    root = copy(planned, tmp_path)
    assert select.main(["Lesion", *options, "--root", str(root), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err and not jobs.ran
    assert not (dataset(root).results / "selection" / "selection.json").exists()


def test_several_datasets_give_a_table_of_families(planned: Path, jobs: Jobs, tmp_path: Path, capsys, monkeypatch) -> None:
    from tests.selection.world import make

    root = copy(planned, tmp_path)
    make(tmp_path, "heart")
    monkeypatch.setenv("COLUMNS", "100")
    jobs.dice = lambda job, plan, case: told_dice(job, plan, case) - 0.4 * (job.model == "good_net" and "Heart" in job.dataset)
    arguments = ["Lesion", "Heart", "--hours", "0.2", "--models", "fast_net,good_net", "--root", str(root), "--device", "cpu"]
    assert select.main(arguments) == 0
    shown = capsys.readouterr().out
    table = shown[shown.index("Which family wins where") :]
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if line.strip().startswith("Dataset")}
    assert rows == {"Dataset501_Lesion": ["generalist", "good_net"], "Dataset502_Heart": ["specialist", "fast_net"]}
    heart = read_selection(dataset(root, "Heart"))
    patients = [{case.split("_")[0] for case in part} for part in (heart.training, heart.deciding, heart.held_back)]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert f"autoseg_predict -i IMAGES -o MASKS -d 501 -m best --root {root}" in shown


def test_the_final_commands_set_what_was_selected(planned: Path, jobs: Jobs, tmp_path: Path) -> None:
    root = copy(planned, tmp_path)
    selection = run(root)
    chosen = selection.candidate(selection.recommended)
    plan_command, train_command = selection.train
    settings = dict(part.split("=", 1) for part in plan_command.split(" --set ")[1:])
    plan = api.plan_and_preprocess("Lesion", models=chosen.model, settings=settings, preprocess=False, device="cpu", root=root)
    planned_model = plan.models[chosen.model]
    assert (planned_model.variant, planned_model.input_size) == (chosen.variant, chosen.input_size)
    assert planned_model.learning_rate == chosen.learning_rate and train_command == f"autoseg_train 501 {chosen.model} all"
    assert json.loads((dataset(root).results / "selection" / "selection.json").read_text())["artefact"] == "selection"
    assert Job(dataset(root).name, chosen.model, 0, f"selection/{chosen.name}/level_0") in jobs.ran
