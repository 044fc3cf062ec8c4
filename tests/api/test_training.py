"""Training and planning through `autoseg.api`: mistakes are found early, and plans keep what the user decided."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg import api
from autoseg.api.training import _score_fold
from autoseg.cli import train
from autoseg.io.raw_dataset import RawDataset
from autoseg.schema.plan import Fold, Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Workspace
from tests import generated
from tests.schema.test_artefacts import SAMPLES

CASES = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one raw dataset, Lesion."""
    root = tmp_path_factory.mktemp("raw")
    images, masks = generated.write_folders(root / "photos", "lesion", CASES)
    api.convert_folders(images, masks, "Lesion", labels=("background", "lesion"), root=root)
    return root


@pytest.fixture(autouse=True)
def _known_step_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps take seconds, and only one test is about them."""
    if "measured_once" not in request.node.name:
        monkeypatch.setattr("autoseg.training.step_time._measure", lambda *arguments: 0.05)


def test_mistakes_are_found_before_a_dataset_is_planned(raw, tmp_path, monkeypatch):
    def plans(*arguments, **options):
        raise AssertionError("planned")

    monkeypatch.setattr("autoseg.api.training._prepare", plans)
    monkeypatch.setattr("autoseg.api.runner._plan", plans)
    for call in (
        lambda **options: api.train("Lesion", "unet", 0, root=raw, **options),
        lambda **options: api.run("Lesion", "unet", 0, root=raw, **options),
    ):
        with pytest.raises(AutosegError, match="there is no weights file"):
            call(pretrained=tmp_path / "missing.pt")
        with pytest.raises(AutosegError, match="there is no logger 'wanddb'"):
            call(log_to=["wanddb"])
        with monkeypatch.context() as without_libraries:
            without_libraries.setattr("importlib.util.find_spec", lambda name: None)
            with pytest.raises(AutosegError, match="wandb is not installed"):
                call(log_to=["wandb"])


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "quick"}, {"settings": {"seed": 1}}, {"pretrained": "none"}, {"restart": True}, {"replan": True},
        {"deterministic": True},
    ],
)  # fmt: skip
def test_extending_keeps_the_settings_of_the_run(raw, other):
    with pytest.raises(AutosegError, match="--extend trains a run on with its own settings"):
        api.train("Lesion", "unet", 0, extend=9, root=raw, **other)


def test_deterministic_reaches_search_and_training_and_an_extension_keeps_it(small_plan, monkeypatch):
    given = {}

    def search(data, plan, *arguments, **options):
        given["search"] = options["deterministic"]
        return plan, None

    def train_fold(*arguments, **options):
        given["training"] = options["deterministic"]
        raise Stopped

    monkeypatch.setattr("autoseg.api.training._prepare", lambda *arguments, **options: None)
    monkeypatch.setattr("autoseg.training.lr_search.with_searched_rate", search)
    monkeypatch.setattr("autoseg.training.train_fold.train_fold", train_fold)
    folder = Workspace.at(small_plan).dataset("Lesion").fold("unet", 0)
    record = read_artefact(SAMPLES / "run_v1.json", RunRecord)
    for asked in (True, False):
        with pytest.raises(Stopped):
            api.train("Lesion", "unet", 0, device="cpu", deterministic=asked, root=small_plan)
        assert given == {"search": asked, "training": asked}
        given.clear()
    for asked in (True, False):
        write_artefact(folder / "run.json", replace(record, deterministic=asked, status="finished"))
        write_artefact(folder / "plan.json", planned(small_plan))
        with pytest.raises(Stopped):
            api.train("Lesion", "unet", 0, device="cpu", extend=999, root=small_plan)
        assert given.pop("training") == asked


def test_the_prediction_that_is_scored_repeats_too(monkeypatch):
    record = replace(read_artefact(SAMPLES / "run_v1.json", RunRecord), deterministic=True)

    def predict(*arguments, **options):
        assert torch.are_deterministic_algorithms_enabled()
        raise Stopped

    monkeypatch.setattr("autoseg.api.training.check_runs", lambda *arguments: None)
    monkeypatch.setattr("autoseg.prediction.validation.predict_fold", predict)
    with pytest.raises(Stopped):
        _score_fold(Dataset(Path(), record.dataset), record, Splits(folds=(), reason=""), Path(), "cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def copy_of(raw: Path, root: Path) -> Path:
    shutil.copytree(raw / "raw", root / "raw")
    return root


def planned(root: Path) -> Plan:
    return read_artefact(Workspace.at(root).dataset("Lesion").plan, Plan)


@pytest.fixture
def small_plan(raw, tmp_path) -> Path:
    """A root with a plan of two models, a memory limit and a setting of the user."""
    root = copy_of(raw, tmp_path)
    api.plan_and_preprocess(
        "Lesion", protocol="quick", models=["unet", "nnunet"], memory="4G", settings={"training.epochs": 3, "side": 64},
        preprocess=False, root=root,
    )  # fmt: skip
    return root


@pytest.mark.parametrize("command", ["train", "run"])
def test_planning_for_another_protocol_keeps_models_memory_and_settings(small_plan, command, caplog, monkeypatch):
    if command == "train":
        monkeypatch.setattr("autoseg.training.lr_search.with_searched_rate", stop)
        call = api.train
    else:
        monkeypatch.setattr("autoseg.runner.scheduler.run_jobs", stop)
        call = api.run
    with caplog.at_level("INFO", "autoseg"), pytest.raises(Stopped):
        call("Lesion", "efficientnet_lite0_upernet", 0, protocol="benchmark", root=small_plan)
    plan = planned(small_plan)
    assert plan.protocol == "benchmark" and set(plan.models) == {"unet", "nnunet", "efficientnet_lite0_upernet"}
    assert plan.memory_budget == 4 << 30 and plan.training.epochs == 3
    assert plan.overrides == {"training.epochs": 3, "side": 64}
    assert "training.epochs=3" in caplog.text


class Stopped(Exception):
    pass


def stop(*arguments, **options):
    raise Stopped


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"training.epocs": 3}, "did you mean training.epochs"),
        ({"training.epochs": "many"}, "training.epochs cannot be 'many'"),
        ({"training.loss": "dise_ce"}, "did you mean dice_ce"),
        ({"models.unet.varint": "16"}, "did you mean models.unet.variant"),
        ({"models.unet.variant": "17"}, "choose one of: 16, 32, 64"),
        ({"models.segformer.variant": "b0"}, "models.segformer"),
    ],
)
def test_mistakes_in_settings_are_found_before_anything_is_measured(raw, tmp_path, monkeypatch, setting, says):
    def measures(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr("autoseg.fingerprint.measure.fingerprint_dataset", measures)
    root = copy_of(raw, tmp_path)
    for call in (
        lambda: api.plan_and_preprocess("Lesion", models="unet", settings=setting, root=root),
        lambda: api.train("Lesion", "unet", 0, settings=setting, root=root),
        lambda: api.run("Lesion", "unet", 0, settings=setting, root=root),
    ):
        with pytest.raises(AutosegError, match=says):
            call()


def test_unknown_models_are_named_before_anything_is_measured(raw, monkeypatch):
    def measures(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr("autoseg.fingerprint.measure.fingerprint_dataset", measures)
    for call in (
        lambda: api.plan_and_preprocess("Lesion", models="segfromer", root=raw),
        lambda: api.train("Lesion", "segfromer", 0, root=raw),
        lambda: api.run("Lesion", ["unet", "segfromer"], 0, root=raw),
    ):
        with pytest.raises(AutosegError, match="(?s)there is no model 'segfromer'.*did you mean segformer"):
            call()


@pytest.mark.parametrize("memory", ["8", 8, "16000", "0.5K"])
def test_memory_without_a_unit_is_refused(raw, memory):
    with pytest.raises(AutosegError, match="(?s)too little.*8G"):
        api.plan_and_preprocess("Lesion", models="unet", memory=memory, root=raw)


def test_what_a_new_plan_drops_is_said(small_plan, caplog):
    with caplog.at_level("INFO", "autoseg"):
        api.plan_and_preprocess("Lesion", protocol="quick", models=["unet"], preprocess=False, root=small_plan)
    assert "nnunet" in caplog.text and "training.epochs=3" in caplog.text and "4.0 GiB" in caplog.text
    assert planned(small_plan).overrides == {}


def splits_file(root: Path, validated: int) -> Path:
    """Two folds that validate the first cases only, as a hand-made file with held-back cases does."""
    names = [generated.case_name("lesion", index) for index in range(CASES)]
    folds = [{"train": names[validated:], "val": names[start:validated:2]} for start in (0, 1)]
    path = root / "my_folds.json"
    path.write_text(json.dumps(folds))
    return path


def test_the_benchmark_leaves_duplicates_out_of_its_splits(tmp_path, caplog):
    """And only there: going back to another protocol gives all cases back, with a warning each time."""
    images, masks = generated.write_folders(tmp_path / "photos", "lesion", CASES)
    first = sorted(images.iterdir())[0]
    shutil.copy(first, images / f"zz_copy{first.suffix}")
    shutil.copy(next(masks.glob(f"{first.stem}.*")), masks / f"zz_copy{next(masks.iterdir()).suffix}")
    api.convert_folders(images, masks, "Lesion", labels=("background", "lesion"), root=tmp_path)
    data, held_out = Workspace.at(tmp_path).dataset("Lesion"), []
    plan = {"models": "unet", "preprocess": False, "settings": {"side": 64}, "root": tmp_path}
    for protocol in ("quick", "benchmark", "benchmark", "quick"):
        caplog.clear()
        made = api.plan_and_preprocess("Lesion", protocol=protocol, **plan)
        splits = read_artefact(data.splits, Splits)
        held_out.append(sorted(case for fold in splits.folds for case in fold.validation))
        assert made.training.duplicates == ("removed" if protocol == "benchmark" else "grouped")
        changed = len(held_out) > 1 and held_out[-1] != held_out[-2]
        assert (f"the duplicates in the splits of {data.name} changed" in caplog.text) == changed
    names = [case.name for case in RawDataset.open(data).cases]
    assert held_out[0] == held_out[3] == names and held_out[1] == held_out[2] == [name for name in names if name != "zz_copy"]
    kept = api.plan_and_preprocess("Lesion", protocol="benchmark", **{**plan, "settings": {
        "side": 64, "training.duplicates": "grouped"}})  # fmt: skip
    (decision,) = [one for one in kept.decisions if one.subject == "training.duplicates"]
    assert decision.reason == "set by the user; planned was removed"
    assert len([case for fold in read_artefact(data.splits, Splits).folds for case in fold.validation]) == len(names)


def test_given_splits_stay_at_the_next_planning(raw, tmp_path, caplog):
    root = copy_of(raw, tmp_path)
    plan = {"protocol": "quick", "models": "unet", "preprocess": False, "root": root}
    api.plan_and_preprocess("Lesion", splits=splits_file(root, 4), **plan)
    splits = Workspace.at(root).dataset("Lesion").splits
    before = read_artefact(splits, Splits)
    with caplog.at_level("INFO", "autoseg"):
        second = api.plan_and_preprocess("Lesion", settings={"side": 64}, **plan)
    assert read_artefact(splits, Splits) == before and len(before.folds) == 2
    assert "changed" not in caplog.text and "my_folds.json" in caplog.text
    (folds,) = (one for one in second.decisions if one.subject == "training.folds")
    assert folds.value == "2" and "my_folds.json" in folds.reason
    # Splits of autoseg's own form count as given too.
    copy = root / "copy.json"
    copy.write_text(splits.read_text())
    splits.unlink()
    api.plan_and_preprocess("Lesion", splits=copy, **plan)
    api.plan_and_preprocess("Lesion", **plan)
    assert read_artefact(splits, Splits).folds == before.folds


def test_steps_and_folds_of_a_file_with_one_fold(raw, tmp_path):
    """Two training cases and two held-out ones, of twelve."""
    root = copy_of(raw, tmp_path)
    names = [generated.case_name("lesion", index) for index in range(CASES)]
    path = root / "one_fold.json"
    path.write_text(json.dumps([{"train": names[:2], "val": names[2:4]}]))
    api.plan_and_preprocess("Lesion", protocol="quick", models="unet", preprocess=False, root=root, splits=path)
    plan = planned(root)
    subjects = {decision.subject: decision for decision in plan.decisions}
    assert plan.training.folds == 1 and subjects["training.folds"].value == "1"
    assert plan.models["unet"].batch_size == 2 and "2 training images" in subjects["training.epochs"].reason
    # The next planning, without naming the file, counts the same.
    api.plan_and_preprocess("Lesion", protocol="quick", models="unet", preprocess=False, root=root)
    assert planned(root).training == plan.training


def test_given_splits_of_cases_that_are_gone_are_never_replaced_silently(raw, tmp_path):
    root = copy_of(raw, tmp_path)
    plan = {"protocol": "quick", "models": "unet", "preprocess": False, "root": root}
    path = splits_file(root, 4)
    api.plan_and_preprocess("Lesion", splits=path, **plan)
    splits = Workspace.at(root).dataset("Lesion").splits
    with pytest.raises(AutosegError, match=r"(?s)my_folds.json.*training.folds"):
        api.plan_and_preprocess("Lesion", settings={"training.folds": 3}, **plan)
    before = splits.read_text()
    name = generated.case_name("lesion", CASES - 1)
    for file in root.glob(f"raw/*/*/{name}*"):
        file.unlink()
    description = Workspace.at(root).dataset("Lesion").description
    spec = json.loads(description.read_text())
    description.write_text(json.dumps({**spec, "numTraining": CASES - 1}))
    with pytest.raises(AutosegError, match=rf"(?s)no case '{name}'.*--splits"):
        api.plan_and_preprocess("Lesion", **plan)
    assert splits.read_text() == before


def test_planned_times_are_measured_once_and_said_before_a_training(raw, tmp_path, monkeypatch, caplog):
    root = copy_of(raw, tmp_path)
    plan = {"protocol": "quick", "models": "unet", "settings": {"side": 64}, "preprocess": False, "root": root}
    first = api.plan_and_preprocess("Lesion", hours=0.01, **plan)
    timing = first.models["unet"].timing
    assert timing is not None and timing.steps == first.training.epochs * timing.steps_per_epoch
    assert 0 < timing.seconds_per_step < 60 and first.time_budget == 0.01
    assert first.models["unet"] == planned(root).models["unet"]

    def measures(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr("autoseg.training.step_time._measure", measures)
    assert api.plan_and_preprocess("Lesion", hours=0.01, **plan).models == first.models
    monkeypatch.setattr("autoseg.training.lr_search.with_searched_rate", stop)
    with caplog.at_level("INFO", "autoseg"), pytest.raises(Stopped):
        api.train("Lesion", "unet", settings={"training.epochs": 7}, root=root)
    assert "5 folds of 7 epochs (" in caplog.text and "measured on" in caplog.text
    with pytest.raises(AutosegError, match="cannot have a time limit"):
        api.plan_and_preprocess("Lesion", protocol="benchmark", hours=1, root=root)
    with pytest.raises(AutosegError, match="cannot be -1 hours"):
        api.plan_and_preprocess("Lesion", hours=-1, root=root)


def test_patients_in_names_are_told_until_confirmed_or_denied(tmp_path, caplog):
    images, masks = generated.write_folders(tmp_path / "photos", "heart", 12)
    labels = ("background", "right_ventricle", "myocardium", "left_ventricle")
    report = api.convert_folders(images, masks, "Heart", labels=labels, root=tmp_path)
    assert r"--groups '(patient\d+)'" in str(report) and "6 groups" in str(report)
    plan = {"protocol": "quick", "models": "unet", "preprocess": False, "settings": {"side": 64}, "root": tmp_path}

    def warned(**options: str) -> bool:
        caplog.clear()
        decisions = api.plan_and_preprocess("Heart", **plan, **options).decisions
        stands = any(one.subject == "groups" and r"(patient\d+)" in one.reason for one in decisions)
        assert stands == ("several images of one patient" in caplog.text)
        return stands

    data = Workspace.at(tmp_path).dataset("Heart")
    data.description.write_text(json.dumps({**json.loads(data.description.read_text()), "of_another_program": [1]}))
    assert warned() and warned()
    assert not warned(groups="none") and not warned()
    assert json.loads(data.description.read_text())["of_another_program"] == [1]
    with pytest.raises(AutosegError, match=r"(?s)finds no group.*patient000_slice0"):
        warned(groups=r"(subject\d+)")
    assert not warned(groups=r"(patient\d+)")
    stored = read_artefact(data.splits, Splits)
    assert stored.groups and {name: f"patient {name[:10]}" for name in stored.groups} == stored.groups
    for fold in stored.folds:
        assert not {name[:10] for name in fold.train} & {name[:10] for name in fold.validation}
    assert api.fingerprint("Heart", root=tmp_path).cases[0].group == "patient000"
    again = api.convert_folders(images, masks, "Denied", labels=labels, groups="none", root=tmp_path)
    assert "--groups" not in str(again) and again.spec.independent_cases


def test_a_trial_is_trained_by_the_plan_of_its_folder(raw, tmp_path, capsys):
    root = copy_of(raw, tmp_path)
    settings = {"training.epochs": "1", "models.unet.variant": "16", "models.unet.input_size": "64x64"}
    plan = api.plan_and_preprocess("Lesion", protocol="quick", models="unet", settings=settings, preprocess=False, root=root)
    data = Workspace.at(root).dataset("Lesion")
    folder = data.results / "selection" / "first" / "level_0"
    whole = read_artefact(data.splits, Splits).folds[0]
    few = Splits(folds=(Fold(whole.train[:4], whole.train[4:6]),), reason="for a trial")
    write_artefact(folder / "plan.json", plan)
    write_artefact(folder / "splits.json", few)
    arguments = ["Lesion", "unet", "0", "--trial", "selection/first/level_0", "--root", str(root), "--device", "cpu"]
    assert train.main(arguments) == 0 and "pooled Dice" in capsys.readouterr().out
    scores = read_artefact(folder / "fold_0" / "validation" / "scores.json", Scores)
    assert [case.case for case in scores.cases] == sorted(whole.train[4:6])
    assert not (data.results / "unet").exists()
    # Finished, and found again.
    (trained,) = api.training.train_trial("Lesion", "unet", 0, "selection/first/level_0", device="cpu", root=root)
    assert trained.folder == folder / "fold_0" and trained.record.status == "finished"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trial", "../elsewhere"], "no folder below"),
        (["--trial", "selection/none"], "plan.json is missing"),
        (["--trial", "selection/none", "--epochs", "3"], "leave out"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(raw, capsys, options, message):
    assert train.main(["Lesion", "unet", "0", "--root", str(raw), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
