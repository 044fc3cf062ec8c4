"""How the plan trains networks whose encoder starts from published weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg import models
from autoseg.models.base import LIKE_ANY_OTHER
from autoseg.planning.initial_weights import WeightsPolicy
from autoseg.planning.planner import make_plan
from autoseg.schema.plan import ModelPlan, Plan, Protocol
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset

TIMM = "timm:vit_tiny_patch16_224.augreg_in21k"


def plan(*names: str, protocol: Protocol = "auto", folder: Path | None = None, **settings: str) -> Plan:
    fake = FakeDataset()
    changes = {path.replace("__", "."): text for path, text in settings.items()}
    return make_plan(
        fake.fingerprint, fake.spec, protocol, names, 64 << 30, "cpu", {"side": "128", **changes}, weights=WeightsPolicy(folder)
    )


def of(made: Plan, name: str) -> ModelPlan:
    return made.models[name]


def reasons(made: Plan, name: str) -> dict[str, str]:
    prefix = f"models.{name}."
    return {one.subject.removeprefix(prefix): one.reason for one in made.decisions if one.subject.startswith(prefix)}


def test_values_by_family_have_their_source() -> None:
    made = plan("dinov2", "dinov3_convnext", "efficientnet_lite0_upernet", TIMM)
    vit, pyramid, light, tiny = (of(made, name) for name in made.models)
    assert (vit.encoder_rate, vit.layer_decay, vit.weight_decay, vit.warmup_share) == (1.0, 0.8, 0.05, 0.05)
    assert vit.options == {"drop_path": 0.2} and tiny.layer_decay == 0.8
    assert (pyramid.encoder_rate, pyramid.layer_decay, pyramid.options) == (0.1, 1.0, {})
    assert (light.encoder_rate, light.layer_decay, light.weight_decay, light.warmup_share, light.options) == (1, 1, None, 0, {})
    assert "EoMT" in reasons(made, "dinov2")["layer_decay"] and "EoMT" in reasons(made, "dinov3_convnext")["encoder_rate"]
    assert "encoder_rate" not in reasons(made, "efficientnet_lite0_upernet")


def test_the_benchmark_trains_all_parts_alike() -> None:
    made = plan("dinov2", protocol="benchmark")
    assert (of(made, "dinov2").encoder_rate, of(made, "dinov2").layer_decay, of(made, "dinov2").options) == (1.0, 1.0, {})
    assert of(made, "dinov2").weight_decay is None and of(made, "dinov2").warmup_share == 0.0
    assert "the study's protocol" in reasons(made, "dinov2")["layer_decay"]


def test_random_weights_and_few_steps_need_less() -> None:
    random = plan("dinov2", models__dinov2__pretrained="none")
    assert of(random, "dinov2").layer_decay == 1.0 and "nothing to keep" in reasons(random, "dinov2")["layer_decay"]
    quick = plan("dinov2", protocol="quick")
    assert of(quick, "dinov2").layer_decay == 0.8 and of(quick, "dinov2").options == {}
    assert "too few" in reasons(quick, "dinov2")["options.drop_path"]


def test_any_of_it_can_be_set_also_for_names_with_dots() -> None:
    fields = {"layer_decay": "0.9", "options.decoder": "dpt", "weight_decay": "none"}
    settings = {f"models.{TIMM}.{field}": text for field, text in fields.items()}
    made = plan(TIMM, **settings)
    one = of(made, TIMM)
    assert (one.layer_decay, one.options["decoder"], one.weight_decay) == (0.9, "dpt", None)
    assert made.overrides[f"models.{TIMM}.layer_decay"] == 0.9
    everywhere = plan("dinov2", training__weight_decay="0.2", models__dinov2__warmup_share="0.1")
    assert of(everywhere, "dinov2").weight_decay is None and everywhere.training.weight_decay == 0.2
    assert "training.weight_decay was set by the user" in reasons(everywhere, "dinov2")["weight_decay"]
    both = plan("dinov2", training__weight_decay="0.2", models__dinov2__weight_decay="0.1")
    assert of(both, "dinov2").weight_decay == 0.1


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("models.dinov2.encoder_rate", "-1", "expected a number from 0"),
        ("models.dinov2.layer_decay", "0", "above 0 and up to 1"),
        ("models.dinov2.layer_decay", "1.5", "above 0 and up to 1"),
        ("models.dinov2.warmup_share", "2", "from 0 to 1"),
        ("models.dinov2.decay", "2", "weight_decay"),
        (f"models.{TIMM}.layers", "2", "did you mean"),
        ("models.timm:vit_tiny.layer_decay", "0.5", "a plan has no field"),
    ],
)
def test_wrong_values_and_fields_are_named(path: str, text: str, message: str) -> None:
    with pytest.raises(AutosegError) as caught:
        plan("dinov2", TIMM, **{path: text})
    assert message in f"{caught.value.problem} {caught.value.remedy}"


def test_a_frozen_encoder_takes_less_memory() -> None:
    tuned, frozen = plan("dinov2"), plan("dinov2", models__dinov2__encoder_rate="0")
    assert of(frozen, "dinov2").memory < 0.5 * of(tuned, "dinov2").memory
    assert of(frozen, "dinov2").parameters < 0.1 * of(tuned, "dinov2").parameters
    assert of(frozen, "dinov2").flops == of(tuned, "dinov2").flops


def test_only_networks_from_large_pretraining_are_trained_differently() -> None:
    other = {name for name in models.names() if models.spec(name).transfer != LIKE_ANY_OTHER}
    assert other == {"dinov2", "sam2_hiera", "pe_spatial", "dinov3_vit", "dinov3_convnext"}
    assert other == {name for name in models.names() if models.spec(name).family == "foundation"}
