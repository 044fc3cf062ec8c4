"""Which ways to train are proposed, in which order, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autoseg.models import registry
from autoseg.planning.planner import make_plan
from autoseg.planning.timed_plan import make_timed_plan
from autoseg.schema.plan import Plan
from autoseg.selection.candidates import Proposal, propose
from autoseg.selection.ladder import frozen_entrants
from autoseg.selection.trials import describe
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset
from tests.planning.test_time_budget import ScriptedTimer


def proposal(fake: FakeDataset, models: tuple[str, ...] = ("unet",), hours: float = 8.0, weights: bool = False) -> Proposal:
    timer = ScriptedTimer()

    def plan(model: str, settings: Mapping[str, str], *, timed: bool) -> Plan:
        options = {"protocol": "auto", "models": [model], "memory": 8 << 30, "device": "cpu", "settings": settings}
        if timed:
            return make_timed_plan(fake.fingerprint, fake.spec, timer=timer, hours=hours, **options)  # type: ignore[arg-type]
        return make_plan(fake.fingerprint, fake.spec, **options)  # type: ignore[arg-type]

    return propose(models, plan, timer, fake.fingerprint, lambda plan, model: weights)


def test_each_setting_is_changed_alone_then_together_with_the_learning_rate() -> None:
    given = proposal(FakeDataset(size=(900, 900)), hours=1000.0)
    own = [one.candidate for one in given.candidates]
    base, rates = own[0], given.candidates[0].plan.training.learning_rates
    assert base.changes == 0 and [one.changes for one in own] == sorted(one.changes for one in own)
    differ = [
        {name for name in ("variant", "geometry", "input_size", "learning_rate") if getattr(one, name) != getattr(base, name)}
        for one in own
        if one.changes == 1
    ]
    assert {"learning_rate"} in differ and {"variant"} in differ and {"input_size"} in differ and {"geometry"} in differ
    assert len({one.name for one in own}) == len(own) and len(own) % len(rates) == 0
    assert {one.learning_rate for one in own} == set(rates)
    for planned in given.candidates:
        one, plan = planned.candidate, planned.plan
        assert list(plan.models) == [one.model] and list(plan.preprocessing) == [planned.model_plan.preprocessing]
        assert planned.model_plan.learning_rate == one.learning_rate and planned.model_plan.variant == one.variant
        config = plan.preprocessing[planned.model_plan.preprocessing]
        assert (config.geometry, planned.model_plan.input_size) == (one.geometry, one.input_size)
        assert config.size in (None, one.input_size)
        assert ("patch" in one.name.split("-")) == (one.geometry == "patch")


def test_short_trainings_have_the_learning_rates_of_short_trainings() -> None:
    short = proposal(FakeDataset(), hours=0.05)
    assert {one.candidate.learning_rate for one in short.candidates} == {1e-3, 5e-4, 2e-4}
    assert {one.candidate.changes for one in short.candidates} == {0, 1, 2}


def test_cheap_ones_come_first_among_equals() -> None:
    own = [one.candidate for one in proposal(FakeDataset(), ("unet", "segformer")).candidates]
    for changes in (0, 1, 2):
        seconds = [one.step_seconds for one in own if one.changes == changes]
        assert seconds == sorted(seconds)
    base = {one.model: one for one in own if one.changes == 0}
    half = [one for one in own if one.changes == 1 and one.input_size[0] == base[one.model].input_size[0] // 2]
    assert {one.model for one in half} == {"unet", "segformer"}
    # A quarter of the pixels. (Attention over all of them gets cheaper still.)
    assert all(one.step_seconds == pytest.approx(base[one.model].step_seconds / 4, rel=0.25) for one in half)


def test_small_images_have_no_patches_and_thin_structures_have_whole_images_too() -> None:
    small = {one.candidate.geometry for one in proposal(FakeDataset(size=(200, 200))).candidates}
    thin = {one.candidate.geometry for one in proposal(FakeDataset(size=(600, 600), classes={"vessel": 2.0})).candidates}
    assert small == {"resize"} and thin == {"patch", "resize"}


def test_the_settings_make_the_same_plan_again() -> None:
    fake = FakeDataset(size=(900, 900))
    for planned in proposal(fake).candidates:
        plan = make_plan(
            fake.fingerprint, fake.spec, "auto", ["unet"], 8 << 30, "cpu", settings=planned.candidate.settings
        )
        fields = {"timing": None, "warmup_epochs": 0}
        again, first = replace(plan.models["unet"], **fields), replace(planned.model_plan, **fields)
        assert again == first, planned.candidate.name


def test_models_that_cannot_be_planned_are_named_and_the_others_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    original = registry.spec

    def spec(name: str) -> object:
        if name == "segformer":
            raise AutosegError("segformer needs a package", "install it")
        return original(name)

    monkeypatch.setattr(registry, "spec", spec)
    monkeypatch.setattr("autoseg.models.spec", spec, raising=False)
    given = proposal(FakeDataset(), ("unet", "segformer"))
    assert given.refused == {"segformer": "segformer needs a package"}
    assert {one.candidate.model for one in given.candidates} == {"unet"}
    with pytest.raises(AutosegError, match="none of the models can be planned: segformer: segformer needs a package"):
        proposal(FakeDataset(), ("segformer",))


def test_frozen_encoders_need_weights() -> None:
    assert not any(one.candidate.frozen for one in proposal(FakeDataset(), ("dinov2",)).candidates)
    frozen = [one for one in proposal(FakeDataset(), ("dinov2",), weights=True).candidates if one.candidate.frozen]
    assert frozen and all(one.model_plan.encoder_rate == 0 and one.model_plan.cached_views for one in frozen)
    assert [one.candidate.changes for one in frozen].count(1) == 1
    # A linear decoder costs next to nothing: with it encoders are compared.
    linear = [one for one in frozen if one.model_plan.options.get("decoder") == "linear"]
    assert linear and all(one.candidate.name.endswith("-frozen-linear") for one in linear)
    # (The scripted timer counts the encoder.)
    timed = [replace(one.candidate, step_seconds=0.1 if one in linear else 1.0) for one in frozen]
    several = [replace(one, model=f"model_{number}") for number in range(3) for one in timed]
    entrants = frozen_entrants(several)
    assert {one.model for one in entrants} == {"model_0", "model_1", "model_2"}
    assert {(one.name, one.changes) for one in entrants} == {(linear[0].candidate.name, 2)}
    assert "frozen encoder and linear decoder" in describe(entrants[0])
    assert frozen_entrants(several[: len(frozen)]) == []
