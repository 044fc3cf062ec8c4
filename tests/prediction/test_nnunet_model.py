"""Models of nnU-Net v2: the masks are those that nnU-Net itself gave (stored; see tests/golden/nnunet_folder.py)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg import api
from autoseg.cli import predict
from autoseg.io import read_label
from autoseg.prediction.nnunet_plans import _configuration, build_network, read_model
from autoseg.prediction.nnunet_predictor import NNUNetPredictor
from autoseg.support.errors import AutosegError
from tests.golden.nnunet_folder import MASKS, MODELS, images, write_images, write_model


def model_in(folder: Path, name: str) -> Path:
    def build(plans: dict[str, Any], channels: int, outputs: int) -> torch.nn.Module:
        return build_network(_configuration(plans, "2d", channels), channels, outputs)

    write_model(name, folder, build)
    return folder


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    with np.load(MASKS) as stored:
        return dict(stored)


@pytest.mark.parametrize("name", MODELS)
def test_masks_are_those_of_nnunet(name: str, tmp_path: Path, masks: dict[str, np.ndarray]) -> None:
    """Crop, normalisation, resampling, tiles, mirrored views, folds and regions; an image smaller than a tile, an empty one."""
    folder = model_in(tmp_path / "model", name)
    write_images(name, tmp_path / "images")
    report = api.predict(tmp_path / "images", tmp_path / "out", nnunet=folder, device="cpu")
    assert not report.failed and report.record.models == ("nnunet",)
    ending = MODELS[name][1]["file_ending"]
    for case in images(name):
        predicted = read_label(tmp_path / "out" / f"{case}{ending}").array
        expected = masks[f"{name}/{case}"]
        assert predicted.shape == expected.shape
        different = int((predicted != expected).sum())
        assert different <= 0.002 * expected.size, f"{case}: {different} of {expected.size}"


def test_some_folds_and_the_record(tmp_path: Path) -> None:
    folder = model_in(tmp_path / "model", "colour")
    write_images("colour", tmp_path / "images")
    words = ["-i", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--nnunet", str(folder), "--device", "cpu"]
    assert predict.main([*words, "-f", "3"]) == 0
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert (record["dataset"], record["folds"], record["mirror"]) == ("Dataset901_Colour", [3], [0, 1])
    assert list(record["identities"]) == ["nnunet/fold_3"] and record["labels"] == {"background": 0, "lesion": 1, "scar": 2}
    one, both = NNUNetPredictor.read(folder, [3], "cpu"), NNUNetPredictor.read(folder, None, "cpu")
    assert both.folds == (0, 3)
    image = images("colour")["case_0"]
    assert (one(image) != both(image)).any()
    assert NNUNetPredictor.read(folder, [3], "cpu", tta=False).mirror == ()
    assert np.allclose(one.probabilities(image).sum(0), 1, atol=1e-5)
    assert one.predict_with_confidence(image).pixels.keys() == {"lesion", "scar"}
    assert predict.main([*words, "--bundle", "x.zip"]) == 2


def changed(folder: Path, change: Any) -> Path:
    plans = json.loads((folder / "plans.json").read_text())
    change(plans)
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def _architecture(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["2d"]["architecture"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plans: plans["configurations"].pop("2d"), "lacks what prediction needs"),
        (lambda plans: plans["configurations"]["2d"].update(patch_size=[8, 32, 48]), "is no 2d configuration"),
        (lambda plans: _architecture(plans).update(network_class_name="os.system"), "what is not known here.*system"),
        (lambda plans: _architecture(plans)["arch_kwargs"].update(conv_op="os.system"), "what is not known here: os.system"),
        (lambda plans: _architecture(plans)["arch_kwargs"].update(conv_op="torch.nn.Module"), "what is not known here"),
        (lambda plans: _architecture(plans)["arch_kwargs"].update(n_stages=9), "cannot be built"),
        (lambda plans: _architecture(plans)["arch_kwargs"].update(features_per_stage=[4, 4, 4]), "does not fit the network"),
        (lambda plans: plans["configurations"]["2d"].update(normalization_schemes=["Mine"] * 3), "not known here.*Mine"),
        (lambda plans: plans["configurations"]["2d"].update(resampling_fn_data="mine"), "not known here.*mine"),
        (lambda plans: plans.update(configurations=[]), "lacks what prediction needs"),
    ],
)
def test_plans_that_are_not_known_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = changed(model_in(tmp_path / "model", "colour"), change)
    with pytest.raises(AutosegError, match=message):
        read_model(folder)


def test_inherited_configurations_are_followed(tmp_path: Path) -> None:
    def inherit(plans: dict[str, Any]) -> None:
        plans["configurations"]["base"] = plans["configurations"]["2d"]
        plans["configurations"]["2d"] = {"inherits_from": "base", "patch_size": [24, 24]}

    model = read_model(changed(model_in(tmp_path / "model", "colour"), inherit))
    assert model.configuration.patch == (24, 24) and model.configuration.network == "PlainConvUNet"


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="has no plans.json"):
        read_model(tmp_path)
    folder = model_in(tmp_path / "model", "colour")
    with pytest.raises(AutosegError, match="in those folds"):
        read_model(folder, [1])
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"damaged")
    with pytest.raises(AutosegError, match="cannot be read as weights of nnU-Net"):
        read_model(folder)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_a_checkpoint_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = model_in(tmp_path / "model", "colour")
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "logging": Evil()}, path)
    with pytest.raises(AutosegError, match="cannot be read as weights of nnU-Net"):
        read_model(folder)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(AutosegError, match="cannot be read as weights of nnU-Net"):
        read_model(folder)
    assert not (tmp_path / "executed").exists()
