"""Plans that fit a time: a scripted machine, on which every FLOP takes the same time, stands for the real one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autoseg.cli import plan_and_preprocess
from autoseg.models import registry
from autoseg.planning.initial_weights import WeightsPolicy
from autoseg.planning.sizing import ModelRequest, flops_of
from autoseg.planning.time_budget import expected_again, over_limit, show_time
from autoseg.planning.timed_plan import make_timed_plan
from autoseg.schema.plan import ModelPlan, Plan, Timing
from tests.planning.fingerprints import FakeDataset

GIGABYTE = 1 << 30
FAKE = FakeDataset(cases=60)


@dataclass
class ScriptedTimer:
    """flops_per_second: of the forward pass; a training step costs three. measured: the configurations that were asked for."""

    flops_per_second: float = 2e10
    machine: str = "scripted"
    measured: list[str] = field(default_factory=list)

    def seconds(self, plan: Plan, model: ModelPlan) -> float:
        self.measured.append(f"{model.model} {model.variant} {model.input_size[0]}")
        request = ModelRequest(
            spec=registry.spec(model.model), channels=plan.channels, outputs=2, precision="fp32", device="cpu",
            optimizer="adamw", budget=plan.memory_budget, batch=model.batch_size,
        )  # fmt: skip
        return 3 * model.batch_size * flops_of(request, model.variant, model.input_size) / self.flops_per_second


def timed(
    models: tuple[str, ...] = ("segformer",), hours: float | None = None, timer: ScriptedTimer | None = None, **options: object
) -> Plan:
    settings = {"protocol": "auto", "memory": 8 * GIGABYTE, "device": "cpu"} | options
    return make_timed_plan(FAKE.fingerprint, FAKE.spec, models=models, hours=hours, timer=timer or ScriptedTimer(), **settings)  # type: ignore[arg-type]


def timing(plan: Plan, model: str = "segformer") -> Timing:
    timing = plan.models[model].timing
    assert timing is not None
    return timing


def reason(plan: Plan, subject: str) -> str:
    return next(one.reason for one in plan.decisions if one.subject == subject)


@pytest.mark.parametrize("hours", [0.1, 0.5, 2.0, 8.0])
def test_the_plan_fits_the_time(hours: float) -> None:
    plan = timed(hours=hours)
    assert 0.7 * hours < timing(plan).hours <= hours or timing(plan).steps == 4000
    assert plan.time_budget == hours and reason(plan, "time_budget") == "set by the user"
    assert "a step on this machine" in reason(plan, "models.segformer.variant")
    assert str(timing(plan).steps) in reason(plan, "training.epochs")


def test_few_steps_get_the_rates_of_quick() -> None:
    short, long = timed(hours=0.1), timed(hours=100.0)
    assert timing(short).steps <= 1000 < timing(long).steps
    quick = timed(protocol="quick")
    assert short.training.learning_rates == quick.training.learning_rates
    assert short.models["segformer"].learning_rate == quick.models["segformer"].learning_rate == 2e-4
    assert long.models["segformer"].learning_rate == 1e-4


def test_fewer_than_100_steps_have_a_smaller_batch() -> None:
    """DRIVE in five minutes: 52 steps of 8 images reached a Dice of 0.729, 128 of 4 images 0.753."""
    slow = ScriptedTimer(flops_per_second=4e9)
    short, longer = timed(hours=0.1, timer=slow), timed(hours=0.3, timer=slow)
    assert (short.models["segformer"].batch_size, longer.models["segformer"].batch_size) == (4, 8)
    assert 50 < timing(short).steps < 200 and timing(short).hours <= 0.1 and timing(longer).steps >= 100
    assert timing(short).steps_per_epoch == 2 * timing(longer).steps_per_epoch
    assert "not even 100 steps" in reason(short, "batch")
    several = timed(("segformer", "unet"), hours=0.05, timer=slow)
    assert {model.batch_size for model in several.models.values()} == {4}


@pytest.mark.parametrize("setting", [{"models.segformer.batch_size": "8"}, {"training.epochs": "5"}])
def test_a_batch_that_the_user_set_stays_in_a_short_time(setting: dict[str, str]) -> None:
    plan = timed(hours=0.1, timer=ScriptedTimer(flops_per_second=4e9), settings=setting)
    assert plan.models["segformer"].batch_size == 8


@dataclass
class FrozenIsCheap(ScriptedTimer):
    """A step of a decoder on cached features costs a twentieth."""

    def seconds(self, plan: Plan, model: ModelPlan) -> float:
        return super().seconds(plan, model) / (20 if model.cached_views else 1)


def with_weights(folder: Path, name: str = "dinov2") -> WeightsPolicy:
    published, *_ = registry.spec(name).weights_for(registry.spec(name).default_variant)
    path = folder / published.places[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return WeightsPolicy(folder)


def test_a_plain_transformer_is_frozen_where_fewer_than_100_steps_fit(tmp_path: Path) -> None:
    """ACDC in three minutes: 40 steps of all of DINOv2 reached a Dice of 0.42, 160 steps of a decoder on frozen maps 0.81."""
    slow, weights = FrozenIsCheap(flops_per_second=2e10), with_weights(tmp_path)
    short = timed(("dinov2",), hours=0.2, timer=slow, weights=weights)
    planned = short.models["dinov2"]
    assert (planned.encoder_rate, planned.batch_size, planned.options) == (0.0, 8, {}) and 1 <= planned.cached_views <= 4
    assert timing(short, "dinov2").steps > 100
    assert "not even 100 steps of the whole network fit" in reason(short, "models.dinov2.encoder_rate")
    assert "the limit includes this time" in reason(short, "models.dinov2.cached_views")
    assert "EoMT" in reason(short, "models.dinov2.weight_decay")
    views = planned.cached_views * 48  # Of 60 images, in five folds.
    tuned = replace(planned, encoder_rate=1.0, cached_views=0)
    encoding = views * slow.seconds(short, tuned) / planned.batch_size / 3 / 3600
    assert encoding <= 0.1 and timing(short, "dinov2").hours <= 0.2 - encoding + 1e-9
    times = timing(short, "dinov2")
    whole = slow.seconds(short, tuned) * times.steps_per_epoch
    assert times.validation_seconds == pytest.approx(12 / 48 / 3 * whole), "validations compute the encoder"
    assert math.ceil(short.training.epochs / short.training.validate_every) <= 4
    longer = timed(("dinov2",), hours=2.0, timer=slow, weights=weights)
    assert (longer.models["dinov2"].encoder_rate, longer.models["dinov2"].cached_views) == (1.0, 0)


@pytest.mark.parametrize(
    "setting",
    [{"models.dinov2.encoder_rate": "1"}, {"models.dinov2.layer_decay": "0.9"}, {"models.dinov2.pretrained": "none"}],
)
def test_an_encoder_learns_in_a_short_time_if_the_user_says_so(setting: dict[str, str], tmp_path: Path) -> None:
    slow = FrozenIsCheap(flops_per_second=2e10)
    plan = timed(("dinov2",), hours=0.1, timer=slow, weights=with_weights(tmp_path), settings=setting)
    assert (plan.models["dinov2"].encoder_rate, plan.models["dinov2"].batch_size) == (1.0, 4)


def test_nothing_is_frozen_without_weights_or_time_to_encode(tmp_path: Path) -> None:
    slow, weights = FrozenIsCheap(flops_per_second=2e10), with_weights(tmp_path)
    assert timed(("dinov2",), hours=0.1, timer=slow).models["dinov2"].encoder_rate == 1.0
    too_short = timed(("dinov2",), hours=0.002, timer=slow, weights=weights).models["dinov2"]
    assert (too_short.encoder_rate, too_short.cached_views) == (1.0, 0)
    kept = timed(("dinov2",), hours=0.1, timer=slow, weights=weights, may_freeze=False).models["dinov2"]
    assert (kept.encoder_rate, kept.cached_views) == (1.0, 0)
    others = timed(("segformer", "dinov2"), hours=0.1, timer=slow, weights=weights)
    assert (others.models["segformer"].encoder_rate, others.models["dinov2"].encoder_rate) == (1.0, 0.0)
    assert 0.085 < timing(others).hours <= 0.1, "the slowest model encodes nothing, so it has the whole time"


def test_more_time_gives_a_larger_network_or_more_steps() -> None:
    plans = [timed(hours=hours) for hours in (0.1, 0.5, 2.0, 8.0, 100.0)]
    work = [timing(plan).steps * plan.models["segformer"].flops for plan in plans]
    assert work == sorted(work) and len(set(work)) == len(work)
    steps = [timing(plan).steps for plan in plans]
    assert steps == sorted(steps)


def test_without_a_limit_only_times_are_added() -> None:
    free = timed(hours=0)
    assert free.time_budget == 0 and timing(free).steps >= 4000 and timing(free).trial_steps > 0
    assert timing(free).hours > 24
    assert "3 rates" in reason(free, "training.search_epochs")
    assert "steps of trials" in reason(free, "models.segformer.time")


def test_an_hour_is_the_default_on_a_cpu_and_is_said() -> None:
    plan = timed()
    assert plan.time_budget == 1.0 and timing(plan).hours <= 1 and "--hours" in reason(plan, "time_budget")
    assert timed(protocol="quick").time_budget == 0
    assert timed(protocol="benchmark").time_budget == 0


def test_a_plan_that_fits_is_not_changed() -> None:
    fast = ScriptedTimer(flops_per_second=1e15)
    free, limited = timed(hours=0, timer=fast), timed(hours=4, timer=fast)
    assert limited.training == free.training and limited.models == free.models


def test_all_models_get_equal_steps_and_fit() -> None:
    plan = timed(("unet", "segformer", "efficientnet_lite0_upernet"), hours=1)
    assert len({timing(plan, name).steps for name in plan.models}) == 1
    assert all(timing(plan, name).hours <= 1 for name in plan.models)
    assert "slowest" in reason(plan, "training.epochs")


def test_a_model_that_no_steps_fit_is_told_and_does_not_take_them_from_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class OneIsSlow(ScriptedTimer):
        def seconds(self, plan: Plan, model: ModelPlan) -> float:
            return 60.0 if model.model == "unet" else super().seconds(plan, model)

    plan = timed(("unet", "segformer"), hours=1, timer=OneIsSlow())
    assert timing(plan).hours <= 1 < timing(plan, "unet").hours and timing(plan).steps >= 200
    assert "take more than 60 min" in reason(plan, "models.unet.variant")
    assert over_limit(plan) == ["unet"] and plan_and_preprocess._first(plan) == "segformer"
    plan_and_preprocess._show_times(plan)
    shown = " ".join(capsys.readouterr().out.split())
    assert "steps: unet; give more time, or plan only the others: --models segformer" in shown
    plan_and_preprocess._show_times(timed(hours=0.001))
    assert capsys.readouterr().out.rstrip().endswith("longer than the limit, with 24 steps: segformer; give more time")
    assert over_limit(timed(("unet", "segformer"), hours=1)) == over_limit(timed(hours=0)) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (90, "90 s"), (119, "119 s"), (120, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_times_are_not_rounded_by_much(seconds: float, text: str) -> None:
    assert show_time(seconds / 3600) == text


def test_what_the_user_set_stays() -> None:
    settings = {"models.segformer.variant": "b2", "training.epochs": "20"}
    plan = timed(hours=0.2, settings=settings)
    assert plan.models["segformer"].variant == "b2" and plan.training.epochs == 20
    assert reason(plan, "models.segformer.variant").startswith("set by the user")
    sized = timed(hours=0.2, settings={"models.segformer.input_size": "384x384"})
    assert sized.models["segformer"].input_size == (384, 384) and timing(sized).hours <= 0.2


def test_a_side_that_the_user_set_stays_in_a_short_time() -> None:
    """It was made smaller silently, and the decision on the geometry still named the one asked for."""
    plan = timed(("segformer", "efficientnet_lite0_upernet"), hours=0.05, settings={"side": "512"})
    assert all(model.input_size == (512, 512) for model in plan.models.values()), plan.models
    assert timed(hours=0.05).models["segformer"].input_size != (384, 384)


def test_trials_only_where_they_are_long_enough() -> None:
    short, long = timed(hours=0.5), timed(hours=6)
    assert short.training.search_epochs == 0 and timing(short).trial_steps == 0
    assert "no search" in reason(short, "training.search_epochs")
    assert long.training.search_epochs > 0 and timing(long).trial_steps > 0


def test_few_configurations_are_measured() -> None:
    timer = ScriptedTimer()
    timed(("segformer", "vwformer_mit"), hours=1, timer=timer)
    assert len(set(timer.measured)) <= 6


def test_times_follow_settings_of_a_training() -> None:
    plan = timed(hours=1)
    half = replace(plan, training=replace(plan.training, epochs=plan.training.epochs // 2))
    again = expected_again(half, "segformer")
    assert again is not None and again.steps < timing(plan).steps and again.hours < 0.6 * timing(plan).hours
    assert expected_again(plan, "segformer") == timing(plan)


def test_patches_fit_too() -> None:
    vessels = FakeDataset(cases=40, size=(584, 565), classes={"vessel": 2.0})
    plan = make_timed_plan(
        vessels.fingerprint, vessels.spec, "auto", ["unet"], 8 * GIGABYTE, "cpu", timer=ScriptedTimer(), hours=1
    )
    assert timing(plan, "unet").hours <= 1 and timing(plan, "unet").validation_seconds > 0
