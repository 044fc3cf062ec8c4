from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from autoseg.schema import plan, serde
from autoseg.schema.dataset import DatasetSpec


def a_plan() -> plan.Plan:
    model = plan.ModelPlan(
        model="unet",
        variant="16",
        input_size=(64, 48),
        batch_size=8,
        accumulate=2,
        precision="fp32",
        pretrained="auto",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=plan.Normalisation(scheme="image"),
        preparation="whole_64x48",
        parameters=10,
        flops=20,
        memory=30,
        options={"a": 1},
    )
    preparation = plan.Preparation(key="whole_64x48", geometry="whole", dtype="uint8", channels=3, size=(64, 48), spacing=None)
    training = plan.Training(epochs=5, loss="dice_ce", learning_rates=(1e-3, 1e-4), augmentation=plan.Augmentation(mirror=(1,)))
    return plan.Plan(
        dataset="Dataset501_X", protocol="quick", content_hash="abc", memory_budget=1 << 30, device="cpu", channels=3,
        training=training, preparations={"whole_64x48": preparation}, models={"unet": model},
        decisions=(plan.Decision("a", "b", "c"),), overrides={"training.epochs": "5"},
    )  # fmt: skip


def test_a_plan_comes_back_as_it_went() -> None:
    assert serde.from_json(serde.to_json(a_plan()), plan.Plan) == a_plan()


def test_not_a_number_survives() -> None:
    written = serde.to_json(plan.Normalisation(scheme="constant", mean=(math.nan,), std=(1.0,)))
    assert "NaN" not in written
    assert math.isnan(serde.from_json(written, plan.Normalisation).mean[0])


def test_pieces_are_the_text_of_all_fields_at_once() -> None:
    """Nested dataclasses, mappings whose keys are numbers, and numbers JSON has no word for."""

    @dataclasses.dataclass(frozen=True)
    class Inner:
        value: float
        names: tuple[str, ...] = ("ä", "b")

    @dataclasses.dataclass(frozen=True)
    class Outer:
        empty: tuple[Inner, ...]
        several: tuple[Inner, ...]
        by_number: dict[int, Inner]
        loose: dict[str, Any]
        nothing: None = None

    made = Outer((), (Inner(1.5), Inner(-math.inf)), {3: Inner(math.nan, ())}, {"a": [1, (math.nan, True)], "b": {}})
    plain = json.loads(json.dumps(dataclasses.asdict(made)), parse_constant=lambda word: None)
    text = json.dumps({"schema_version": 1, **plain}, indent=1, ensure_ascii=False) + "\n"
    pieces = list(serde.json_pieces(made))
    assert "".join(pieces) == serde.to_json(made) == text
    assert max(map(len, pieces)) < 30


def test_an_unknown_field_names_the_nearest() -> None:
    content = json.loads(serde.to_json(plan.Decision("a", "b", "c")))
    content["becuase"] = content.pop("because")
    with pytest.raises(serde.SchemaError, match=r"becuase \(did you mean because\?\)"):
        serde.from_json(json.dumps(content), plan.Decision)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not valid JSON"), ("[]", "expected an object"), ('{"schema_version": 99}', "schema version 99"), ("{}", "missing")],
)
def test_what_is_not_the_schema_is_refused(text: str, says: str) -> None:
    with pytest.raises(serde.SchemaError, match=says):
        serde.from_json(text, plan.Decision)


def test_a_wrong_type_names_its_field() -> None:
    with pytest.raises(serde.SchemaError, match="epochs"):
        serde.from_dict({"epochs": "many", "loss": "ce", "learning_rates": [1e-3]}, plan.Training)


def test_nnunets_description_is_read_as_it_is() -> None:
    text = json.dumps(
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
            "regions_class_order": [1, 2],
            "numTraining": 7,
            "file_ending": ".png",
        }
    )
    scheme = serde.from_json(text, DatasetSpec).label_scheme()
    assert scheme.regions and scheme.outputs == 2 and scheme.ignore == 3
    assert scheme.foreground == {"whole": (1, 2), "core": (2,)}
    assert scheme.values == (0, 1, 2, 3)
