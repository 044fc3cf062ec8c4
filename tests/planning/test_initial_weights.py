"""Which weights the plan chooses: present or not, allowed or not, and with which normalisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoseg import models
from autoseg.models.published_weights import PublishedWeights
from autoseg.planning.initial_weights import InitialWeightsPlan, WeightsPolicy, decide_weights
from autoseg.planning.planner import make_plan
from autoseg.schema.plan import Plan
from autoseg.support.extensions import MODELS
from tests.planning.fingerprints import FakeDataset


def decide(model: str, folder: Path, choice: str = "auto", variant: str = "", commercial: bool = False) -> InitialWeightsPlan:
    spec = models.spec(model)
    return decide_weights(spec, variant or spec.default_variant, WeightsPolicy(folder, commercial), choice)


def test_the_plan_says_what_is_present_and_how_to_get_the_rest(tmp_path: Path) -> None:
    missing = decide("segformer", tmp_path)
    assert missing.choice == "auto" and missing.expected is not None
    assert "not present: ImageNet-1k classification (encoder), licence NVIDIA" in missing.decision.reason
    assert "autoseg_weights fetch segformer:b3" in missing.decision.reason
    (tmp_path / "mit_b3.pth").touch()
    present = decide("segformer", tmp_path)
    assert present.expected is not None and present.expected.file == "mit_b3.pth"
    assert present.decision.reason.startswith("present: ImageNet-1k classification (encoder) (mit_b3.pth), licence NVIDIA")
    (tmp_path / "resnet50-0676ba61.pth").touch()
    half = decide("hiformer", tmp_path).decision.reason
    assert half.startswith("present: ImageNet-1k classification (ResNet branch)")
    assert "not present: ImageNet-1k classification (Swin branch)" in half


def test_models_without_weights_and_with_those_of_the_study_only(tmp_path: Path) -> None:
    none, unet, study = decide("nnunet", tmp_path), decide("unet", tmp_path), decide("unet", tmp_path, "study")
    assert none.choice == unet.choice == "none" and none.expected is unet.expected is None
    assert "--set models.unet.pretrained=study" in unet.decision.reason
    assert study.choice == "study" and study.expected is not None and study.expected.file.startswith("vgg13_bn")
    assert decide("unet", tmp_path, "study", "32").choice == "none"
    assert decide("segformer", tmp_path, "none").expected is None


@pytest.mark.parametrize(
    ("model", "choice", "reason"),
    [
        ("segformer", "none", "does not allow it (NVIDIA Source Code License (non-commercial))"),
        ("vwformer_mit", "none", "does not allow it (NVIDIA Source Code License (non-commercial))"),
        ("hsnet", "auto", "licence Apache-2.0"),
        ("vwformer_convnext", "auto", "licence Apache-2.0"),
        ("unet", "none", "its authors published none"),
    ],
)
def test_weights_that_forbid_commercial_use_are_left_out_with_the_reason(
    tmp_path: Path, model: str, choice: str, reason: str
) -> None:
    (tmp_path / "mit_b3.pth").touch()
    decided = decide(model, tmp_path, commercial=True)
    assert decided.choice == choice and reason in decided.decision.reason


def plan(folder: Path, model: str = "efficientnet_lite0_upernet", commercial: bool = False, **settings: str) -> Plan:
    fake = FakeDataset()
    policy = WeightsPolicy(folder, commercial)
    return make_plan(fake.fingerprint, fake.spec, "quick", (model,), 8 << 30, "cpu", settings, weights=policy)


def test_the_normalisation_is_that_of_the_file_that_is_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MODELS.get("efficientnet_lite0_upernet")
    without_package = tuple(replace(one, package="") for one in module.SPEC.weights)
    monkeypatch.setattr(module, "SPEC", replace(module.SPEC, weights=without_package))

    def mean() -> float:
        (one,) = plan(tmp_path).models.values()
        return one.normalisation.mean[0]

    assert mean() == pytest.approx(0.498 * 255, abs=1e-3)
    timm: PublishedWeights = module.SPEC.weights[1]
    (tmp_path / timm.path).parent.mkdir(parents=True)
    (tmp_path / timm.path).touch()
    assert mean() == pytest.approx(0.5 * 255, abs=1e-3)


def test_what_the_user_sets_decides_normalisation_and_rate_too(tmp_path: Path) -> None:
    name = "efficientnet_lite0_upernet"
    (auto,) = plan(tmp_path).models.values()
    (none,) = plan(tmp_path, **{f"models.{name}.pretrained": "none"}).models.values()
    assert (auto.pretrained, none.pretrained) == ("auto", "none") and auto.normalisation != none.normalisation
    study = plan(tmp_path, "unet", **{"models.unet.pretrained": "study", "models.unet.variant": "64"})
    assert study.models["unet"].pretrained == "study" and study.models["unet"].normalisation.mean[0] == pytest.approx(123.675)


def test_the_licence_stays_with_the_plan(tmp_path: Path) -> None:
    result = plan(tmp_path, "segformer", commercial=True, **{"models.segformer.variant": "b0"})
    assert result.licence == "commercial" and result.models["segformer"].pretrained == "none"
    assert plan(tmp_path, "unet").licence == "any"
