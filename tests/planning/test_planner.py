from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.planning import hardware
from autoseg.planning.explain import explain
from autoseg.planning.overrides import apply_overrides
from autoseg.planning.planner import make_plan
from autoseg.schema import serde
from autoseg.schema.plan import PROTOCOLS, Plan, Protocol
from autoseg.support.errors import AutosegError
from autoseg.support.registry import Registry
from tests.planning.fingerprints import FakeDataset
from tests.support.packages import install

BOTH = ("nnunet", "unet")
GIGABYTE = 1 << 30
VESSELS = FakeDataset(cases=40, size=(584, 565), classes={"vessel": 2.0})


def plan(
    fake: FakeDataset | None = None, protocol: Protocol = "quick", models: tuple[str, ...] = BOTH, **settings: str
) -> Plan:
    fake = fake or FakeDataset()
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return make_plan(
        fake.fingerprint, fake.spec, protocol=protocol, models=models, memory=4 * GIGABYTE, device="cpu", settings=dotted
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fake", [FakeDataset(), VESSELS])
def test_plan_is_consistent_and_survives_json(protocol: Protocol, fake: FakeDataset) -> None:
    made_plan = plan(fake, protocol)
    assert set(made_plan.models) == set(BOTH)
    for name, model in made_plan.models.items():
        config = made_plan.preprocessing[model.preprocessing]
        assert model.model == name and model.batch_size % model.accumulate == 0
        assert config.geometry == "patch" or config.size == model.input_size
        assert config.channels == made_plan.channels == 3
        assert 0 < model.memory <= made_plan.memory_budget and model.flops > 0 and model.parameters > 0
    assert all(decision.reason and decision.value for decision in made_plan.decisions)
    subjects = [decision.subject for decision in made_plan.decisions]
    assert len(subjects) == len(set(subjects))
    assert serde.from_json(serde.to_json(made_plan), Plan) == made_plan
    assert plan(fake, protocol) == made_plan, "equal facts, equal plan"


def test_models_with_equal_preprocessing_share_arrays() -> None:
    assert len(plan().preprocessing) == 1
    assert list(plan(VESSELS).preprocessing) == ["patch_native"]


def test_gray_images_give_one_input_channel() -> None:
    gray = plan(FakeDataset(gray_as_rgb=True, modality="ultrasound"))
    assert gray.channels == 1 and all(p.merge_gray and p.channels == 1 for p in gray.preprocessing.values())
    colour = plan(FakeDataset())
    assert gray.models["nnunet"].parameters < colour.models["nnunet"].parameters


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (("nnunet", "unet"), "patch_native"), (("efficientnet_lite0_upernet",), "patch_x2"),
        (("nnunet", "efficientnet_lite0_upernet"), "patch_x2"),
    ],
)  # fmt: skip
def test_patches_of_thin_structures_are_enlarged_for_networks_that_end_at_a_lower_resolution(models, expected) -> None:
    """All models of a plan see the same patches."""
    assert list(plan(VESSELS, "auto", models).preprocessing) == [expected]


def test_geometry_and_side_can_be_set() -> None:
    whole = plan(VESSELS, geometry="resize", side="384")
    (config,) = whole.preprocessing.values()
    assert config.geometry == "resize" and config.size == (384, 384)
    assert whole.overrides == {"geometry": "resize", "side": 384}
    decisions = {decision.subject: decision for decision in whole.decisions}
    assert "set by the user; the planner would have chosen patch" in decisions["geometry"].reason
    assert "vessel" in decisions["geometry"].reason
    assert (decisions["side"].value, decisions["side"].source) == ("384", "median_size 584/565")
    assert "set by the user; planned was 256" in decisions["side"].reason
    for setting, value in (("geometry", "round"), ("side", "250"), ("side", "big")):
        with pytest.raises(AutosegError, match=setting):
            plan(**{setting: value})


def test_patches_against_the_rule_keep_original_resolution() -> None:
    (config,) = plan(geometry="patch").preprocessing.values()
    assert (config.geometry, config.scale) == ("patch", 1.0)


def test_benchmark_keeps_its_size_when_geometry_is_set() -> None:
    assert all(model.input_size == (512, 512) for model in plan(protocol="benchmark", geometry="resize").models.values())


def test_decisions_cite_the_fingerprint() -> None:
    decisions = {decision.subject: decision.source for decision in plan(VESSELS).decisions}
    assert "classes.vessel.thickness 2" in decisions["geometry"] and "median_size 584/565" in decisions["geometry"]
    assert decisions["training.epochs"] == "40 cases" and decisions["modality"] == "modality colour"
    assert "channels.c.mean 100" in decisions["models.unet.normalisation"]
    assert decisions["training.optimizer"] == "", "no measurement of the data speaks for an optimiser"


def test_variant_without_fixed_size_gets_the_planned_size() -> None:
    fake = FakeDataset(size=(300, 500))
    fixed, free = plan(fake, models=("missformer",)), plan(fake, models=("missformer",), models__missformer__variant="free")
    assert fixed.models["missformer"].input_size == (224, 224)
    model = free.models["missformer"]
    assert model.input_size == (192, 320) and free.preprocessing[model.preprocessing].size == (192, 320)
    assert set(free.overrides) == {"models.missformer.variant"}
    because = next(d.reason for d in free.decisions if d.subject == "models.missformer.input_size")
    assert "free" in because and "another size" in because
    set_too = {"models__missformer__variant": "free", "models__missformer__input_size": "96x96"}
    assert plan(fake, models=("missformer",), **set_too).models["missformer"].input_size == (96, 96)
    with pytest.raises(AutosegError, match="choose one of: 224, free"):
        plan(models=("missformer",), models__missformer__variant="large")


def test_plan_reports_which_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "processor_has_bf16", lambda: True)
    fake = FakeDataset()
    result = make_plan(fake.fingerprint, fake.spec, "benchmark", ("nnunet", "unet", "swin_umamba"), 5 * GIGABYTE, "cpu")
    decisions = next(decision for decision in result.decisions if decision.subject == "batches_held")
    assert decisions.value == "1 models at once, 2 in parts, 0 not at all"
    assert "unet 2 x 4" in decisions.reason and all(m.batch_size == 8 for m in result.models.values())
    small = make_plan(fake.fingerprint, fake.spec, "benchmark", ("unet",), GIGABYTE, "cpu")
    assert "unet (" in next(d.reason for d in small.decisions if d.subject == "batches_held")


def test_batch_of_one_with_batch_norm_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="autoseg"):
        plan(models=("unet",), models__unet__batch_size="1")
    assert "one image in each part" in caplog.text


def test_set_input_size_updates_preprocessing_memory_and_reason() -> None:
    before, after = plan(), plan(**{"models__unet__input_size": "64x96", "models__unet__batch_size": "6"})
    model = after.models["unet"]
    assert (model.input_size, model.batch_size, model.preprocessing) == ((64, 96), 6, "resize_64x96")
    assert after.preprocessing["resize_64x96"].size == (64, 96)
    assert model.memory < before.models["unet"].memory and model.flops < before.models["unet"].flops
    assert after.models["nnunet"] == before.models["nnunet"]
    assert after.overrides == {"models.unet.input_size": [64, 96], "models.unet.batch_size": 6}
    decision = next(d for d in after.decisions if d.subject == "models.unet.input_size")
    assert decision.value == "64, 96" and "set by the user; planned was 256, 256" in decision.reason


def test_set_variant_updates_parameters() -> None:
    after = plan(models=("unet",), models__unet__variant="32")
    assert after.models["unet"].variant == "32" and 7e6 < after.models["unet"].parameters < 8e6


def test_set_optimizer_updates_memory() -> None:
    before, after = (plan(models=("unet",), **more).models["unet"] for more in ({}, {"training__optimizer": "sgd"}))
    assert before.parameters == after.parameters
    assert before.memory - after.memory == 4 * before.parameters, "one number less for each weight"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("training.epochs", "50", 50),
        ("training.learning_rates", "1e-3,1e-4", (1e-3, 1e-4)),
        ("training.learning_rates", "[1]", (1.0,)),
        ("training.weight_decay", "0", 0.0),
        ("training.loss", "ce", "ce"),
        ("training.cldice", "0.5", 0.5),
        ("training.augmentation.chain", "classic", "classic"),
        ("training.augmentation.mirror", "[]", ()),
        ("training.augmentation.mirror", "1", (1,)),
        ("training.augmentation.scaling", "0.5, 2", (0.5, 2.0)),
        ("models.nnunet.learning_rate", "0.01", 0.01),
        ("models.nnunet.pretrained", "none", "none"),
        ("models.nnunet.precision", "fp32", "fp32"),
    ],
)
def test_any_field_can_be_set_from_text(path: str, text: str, expected: object) -> None:
    changed = apply_overrides(plan(), {path: text})
    result: object = changed
    for key in path.split("."):
        result = result[key] if isinstance(result, dict) else getattr(result, key)
    assert result == expected and type(result) is type(expected)
    assert path in changed.overrides
    assert serde.from_json(serde.to_json(changed), Plan) == changed


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("training.epoch", "50", "training.epochs"),
        ("models.nnunet.batchsize", "4", "models.nnunet.batch_size"),
        ("models.nnunett.batch_size", "4", "models.nnunet.batch_size"),
        ("epochs", "4", "training.epochs"),
        ("training.epochs.x", "4", "no field"),
        ("training", "4", "training.epochs"),
        ("training.epochs", "many", "cannot be 'many'"),
        ("training.epochs", "1.5", "cannot be '1.5'"),
        ("training.epochs", "true", "cannot be 'true'"),
        ("training.epochs", "0", "above zero"),
        ("training.loss", "huber", "cannot be 'huber'"),
        ("training.loss", "dice-ce", "did you mean dice_ce"),
        ("training.optimizer", "adam", "did you mean adamw"),
        ("training.schedule", "polynomial", "known: rex, poly"),
        ("training.augmentation.chain", "clasic", "did you mean classic"),
        ("training.augmentation.p_noise", "2", "from 0 to 1"),
        ("training.augmentation.mirror", "2", "axes"),
        ("training.folds", "1", "at least 2"),
        ("training.cldice", "-1", "0 (for none) or more"),
        ("models.nnunet.input_size", "64", "cannot be '64'"),
        ("models.nnunet.accumulate", "3", "divisor"),
        ("models.nnunet.memory", "3", "derived from"),
        ("memory_budget", "8000000000", "--memory"),
        ("device", "cuda", "--device"),
        ("channels", "1", "dataset.json"),
        ("geometry", "patch", "autoseg_plan_and_preprocess"),
    ],
)
def test_invalid_setting_names_the_remedy(path: str, text: str, message: str) -> None:
    with pytest.raises(AutosegError) as caught:
        apply_overrides(plan(), {path: text})
    assert message in str(caught.value)


def test_model_options_are_not_restricted() -> None:
    base = plan()
    base = replace(base, models={**base.models, "nnunet": replace(base.models["nnunet"], options={"depth": 3})})
    assert apply_overrides(base, {"models.nnunet.options.depth": "4"}).models["nnunet"].options == {"depth": 4}
    assert apply_overrides(base, {"models.nnunet.options.new": "word"}).models["nnunet"].options["new"] == "word"


def test_setting_twice_keeps_the_planned_value() -> None:
    first = apply_overrides(plan(), {"training.epochs": "50"})
    second = apply_overrides(first, {"training.epochs": "60"})
    decisions = [d for d in second.decisions if d.subject == "training.epochs"]
    assert len(decisions) == 1 and decisions[0].value == "60" and second.overrides["training.epochs"] == 60


@pytest.mark.parametrize(
    "settings",
    [
        {"training.patience": "5"},
        {"training.patience": "5", "training.selection": "inner"},
        {"training.selection": "inner", "training.patience": "5"},
    ],
)
def test_patience_can_be_set_and_chooses_on_inner_cases(settings: dict[str, str]) -> None:
    changed = apply_overrides(plan(), settings)
    assert (changed.training.patience, changed.training.selection) == (5, "inner")


@pytest.mark.parametrize("order", [1, -1])
def test_patience_and_last_weights_contradict(order: int) -> None:
    settings = [("training.patience", "5"), ("training.selection", "last")][::order]
    with pytest.raises(AutosegError, match="selection 'last' does not use"):
        apply_overrides(plan(), dict(settings))


def test_the_benchmark_can_give_the_last_weights_without_patience() -> None:
    changed = apply_overrides(plan(protocol="benchmark"), {"training.selection": "last", "training.patience": "0"})
    assert (changed.training.patience, changed.training.selection) == (0, "last")


def test_search_epochs_scale_with_epochs_unless_set() -> None:
    planned = plan(protocol="benchmark")
    assert (planned.training.epochs, planned.training.search_epochs) == (150, 100)
    assert apply_overrides(planned, {"training.epochs": "38"}).training.search_epochs == 25
    assert apply_overrides(planned, {"training.epochs": "1"}).training.search_epochs == 1
    given = apply_overrides(planned, {"training.search_epochs": "5", "training.epochs": "38"})
    assert given.training.search_epochs == 5
    assert apply_overrides(plan(protocol="quick"), {"training.epochs": "900"}).training.search_epochs == 0


def test_validations_scale_with_epochs_unless_set() -> None:
    planned = plan(protocol="auto")
    epochs, interval = planned.training.epochs, planned.training.validate_every
    assert interval > 4
    fewer = apply_overrides(planned, {"training.epochs": str(epochs // 4)}).training
    assert fewer.validate_every == interval * (epochs // 4) // epochs
    assert apply_overrides(planned, {"training.epochs": "2"}).training.validate_every == 1
    assert apply_overrides(planned, {"training.epochs": str(2 * epochs)}).training.validate_every == 2 * interval
    for order in (("training.validate_every", "training.epochs"), ("training.epochs", "training.validate_every")):
        values = {"training.validate_every": "7", "training.epochs": "20"}
        assert apply_overrides(planned, {path: values[path] for path in order}).training.validate_every == 7
    # Early stopping counts validations.
    assert apply_overrides(plan(protocol="benchmark"), {"training.epochs": "900"}).training.validate_every == 1


def test_warm_up_stays_a_tenth_of_fewer_epochs() -> None:
    planned = plan(protocol="auto")
    planned = replace(planned, models={"unet": replace(planned.models["unet"], warmup_epochs=5)})
    assert apply_overrides(planned, {"training.epochs": "20"}).models["unet"].warmup_epochs == 2
    assert apply_overrides(planned, {"training.epochs": "5"}).models["unet"].warmup_epochs == 0
    settings_kept = {"models.unet.warmup_epochs": "4", "training.epochs": "20"}
    assert apply_overrides(planned, settings_kept).models["unet"].warmup_epochs == 4


def test_smaller_batch_keeps_parts_that_fit() -> None:
    base = plan()
    base = replace(base, models={**base.models, "nnunet": replace(base.models["nnunet"], accumulate=4)})
    changed = apply_overrides(base, {"models.nnunet.batch_size": "6"})
    assert changed.models["nnunet"].accumulate == 6


def test_unknown_names_raise() -> None:
    with pytest.raises(AutosegError, match="did you mean nnunet"):
        plan(models=("nnunnet",))
    with pytest.raises(AutosegError, match="no model"):
        plan(models=())
    with pytest.raises(AutosegError, match="no protocol"):
        plan(protocol="fast")  # type: ignore[arg-type]


def test_too_little_memory_warns(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeDataset()
    with caplog.at_level("WARNING", logger="autoseg"):
        result = make_plan(fake.fingerprint, fake.spec, "benchmark", ("unet",), 1 << 28, "cpu")
    assert "unet takes" in caplog.text and result.models["unet"].memory > result.memory_budget


def test_explain_joins_models_with_equal_decisions() -> None:
    rows = explain(plan(models=(*BOTH, "efficientnet_lite0_upernet")))
    subjects = [row.subject for row in rows]
    assert "models.all.input_size" in subjects and "models.efficientnet_lite0_upernet.normalisation" in subjects
    assert "models.{nnunet, unet}.normalisation" in subjects
    assert subjects.index("geometry") < subjects.index("models.all.input_size")


_FOREIGN = """
import torch
from torch import nn
from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, Variant

SPEC = ModelSpec(
    name="foreign", title="F", family="specialist", citation="none", variants=(Variant("one", 56),), default_variant="one"
)


class Net(SegmentationNetwork):
    def __init__(self, channels, classes):
        super().__init__()
        self.head = nn.Conv2d(channels, classes, 3, padding=1)

    def segment(self, x):
        if {fails}:
            raise RuntimeError("no kernel for this type")
        return ModelOutput(self.head(x))


def build(variant, in_channels, num_classes, input_size=None):
    return Net(in_channels, num_classes)
"""


@pytest.mark.parametrize(
    ("name", "fails", "message"),
    [
        ("works", "False", ""),
        ("real", "type(x) is torch.Tensor and x.device.type == 'cpu'", "on real tensors. Found: RuntimeError: no kernel"),
        ("values", "x.mean().item() > 99", "measured without values. Found: "),
    ],
)
def test_foreign_network_is_checked_before_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fails: str, message: str
) -> None:
    module = f"foreign_{name}"
    install(
        monkeypatch,
        tmp_path,
        f"foreign-{name}",
        {module: _FOREIGN.format(fails=fails)},
        {"autoseg.models": {"foreign": module}},
    )
    registry = Registry("model", "autoseg.models", {}, needs=("SPEC", "build"))
    for user in ("autoseg.models.registry", "autoseg.planning.model_checks"):
        monkeypatch.setattr(f"{user}.MODELS", registry)
    if not message:
        assert plan(models=("foreign",)).models["foreign"].variant == "one"
        return
    with pytest.raises(AutosegError, match=f"'foreign' of foreign-{name} 1.0.*{message}") as caught:
        plan(models=("foreign",))
    assert "autoseg_check_model foreign" in str(caught.value)
