"""An encoder of timm goes through every stage under its name, which holds a colon and a dot."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from autoseg import api
from autoseg.cli import compare, convert, export, find_best, plan_and_preprocess, predict, train
from autoseg.io import read_label
from autoseg.runner.jobs import Job, is_done
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from tests import generated

MODEL, FOLDER = "timm:test_vit.r160_in1k", "timm+test_vit.r160_in1k"
SETTINGS = {
    "training.epochs": "4", "training.folds": "2", f"models.{MODEL}.input_size": "64x64", f"models.{MODEL}.batch_size": "4",
    f"models.{MODEL}.options.decoder": "dpt", f"models.{MODEL}.learning_rate": "0.002",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    images, masks = generated.write_folders(folder, "polyps", 12)
    root, labels = folder / "root", ",".join(generated.SPECIFICATION["polyps"].labels)
    at = ["--root", str(root)]
    sources = ["--images", str(images), "--masks", str(masks), "--name", "Polyps", "--labels", labels]
    assert convert.main([*at, "folders", *sources]) == 0
    changes = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    plan = ["501", *at, "--protocol", "quick", "--models", f"{MODEL},efficientnet_lite0_upernet", *changes]
    assert plan_and_preprocess.main(plan) == 0
    assert train.main(["501", MODEL, "all", *at]) == 0
    return root


def test_plan_results_and_record_have_the_name(root: Path) -> None:
    dataset = Workspace.at(root).dataset(501)
    plan = read_artefact(dataset.plan, Plan)
    assert plan.models[MODEL].input_size == (64, 64) and plan.models[MODEL].options["decoder"] == "dpt"
    record = read_artefact(dataset.results / FOLDER / "fold_0" / "run.json", RunRecord)
    assert record.model == MODEL and record.status == "finished"
    assert not list(root.rglob("*:*")), "no file system has to know a colon"


def test_predictions_bundle_and_onnx_agree(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    at, dataset = ["--root", str(root)], Workspace.at(root).dataset(501)
    images = dataset.raw / "imagesTr"
    assert predict.main(["-i", str(images), "-o", str(tmp_path / "a"), "-d", "501", "-m", MODEL, *at, "--device", "cpu"]) == 0
    assert export.main(["501", MODEL, "-o", str(tmp_path / "b.zip"), "--onnx", *at]) == 0
    assert (tmp_path / f"b.{FOLDER}.fold_0.onnx").is_file() and "of pixels have the same class" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert not [name for name in archive.namelist() if ":" in name]
        assert MODEL in archive.read("bundle.json").decode()
    bundle = ["--bundle", str(tmp_path / "b.zip"), "--device", "cpu"]
    assert predict.main(["-i", str(images), "-o", str(tmp_path / "c"), *bundle]) == 0
    masks = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert masks
    for name in masks:
        assert np.array_equal(read_label(tmp_path / "a" / name).array, read_label(tmp_path / "c" / name).array)
    assert api.Predictor.load("501", MODEL, root=root) is not None


def test_comparison_choice_and_grid_know_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--root", str(root)]
    assert compare.main(["501", "--no-report", *at]) == 0
    assert MODEL in capsys.readouterr().out
    assert find_best.main(["501", *at]) == 0
    assert is_done(root, Job("Dataset501_Polyps", MODEL, 0)), "the grid finds its run"
