from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from autoseg.schema import plan, serde
from autoseg.schema.artefact import Artefact
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.faults import faults
from autoseg.schema.scores import MetricSummary


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
        preprocessing="resize_64x48",
        parameters=10,
        flops=20,
        memory=30,
        options={"a": 1},
    )
    preprocessing = plan.PreprocessingConfig(
        key="resize_64x48", geometry="resize", dtype="uint8", channels=3, size=(64, 48), spacing=None
    )
    training = plan.Training(epochs=5, loss="dice_ce", learning_rates=(1e-3, 1e-4), augmentation=plan.Augmentation(mirror=(1,)))
    return plan.Plan(
        dataset="Dataset501_X", protocol="quick", content_hash="abc", memory_budget=1 << 30, device="cpu", channels=3,
        training=training, preprocessing={"resize_64x48": preprocessing}, models={"unet": model},
        decisions=(plan.Decision("a", "b", "c"),), overrides={"training.epochs": "5"},
    )  # fmt: skip


def test_a_plan_comes_back_as_it_went() -> None:
    assert serde.from_json(serde.to_json(a_plan()), plan.Plan) == a_plan()


def test_not_a_number_survives() -> None:
    written = serde.to_line(MetricSummary(math.nan, 0.0, 0.5, 3))
    assert "NaN" not in written
    assert math.isnan(serde.from_dict(json.loads(written), MetricSummary).mean)


def test_pieces_are_the_text_of_all_fields_at_once() -> None:
    """Nested dataclasses, mappings whose keys are numbers, and numbers JSON has no word for."""

    @dataclasses.dataclass(frozen=True)
    class Inner:
        value: float
        names: tuple[str, ...] = ("ä", "b")

    @dataclasses.dataclass(frozen=True)
    class Outer(Artefact):
        NAME = "outer"
        VERSION = 1

        empty: tuple[Inner, ...]
        several: tuple[Inner, ...]
        by_number: dict[int, Inner]
        loose: dict[str, Any]
        nothing: None = None

    outer = Outer((), (Inner(1.5), Inner(-math.inf)), {3: Inner(math.nan, ())}, {"a": [1, (math.nan, True)], "b": {}})
    plain = json.loads(json.dumps(dataclasses.asdict(outer)), parse_constant=lambda word: None)
    text = json.dumps({"artefact": "outer", "schema_version": 1, **plain}, indent=1, ensure_ascii=False) + "\n"
    pieces = list(serde.json_pieces(outer))
    assert "".join(pieces) == serde.to_json(outer) == text
    assert max(map(len, pieces)) < 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object, found a list"),
        ("{}", "has no schema_version"),
        ('{"schema_version": "one"}', "schema_version: expected a whole number from 1 on, found 'one'"),
        ('{"schema_version": true}', "schema_version: expected a whole number"),
        ('{"schema_version": 0}', "schema_version: expected a whole number"),
    ],
)
def test_what_is_no_artefact_is_refused(text: str, says: str) -> None:
    with pytest.raises(serde.SchemaError, match=says):
        serde.from_json(text, plan.Splits)


def _with(path: str, value: object) -> dict[str, Any]:
    """A plan's content with one value changed, or taken out where it is None of the type itself."""
    content: dict[str, Any] = json.loads(serde.to_json(a_plan()))
    holder: Any = content
    *before, last = path.split(".")
    for key in before:
        holder = holder[int(key)] if isinstance(holder, list) else holder[key]
    if value is type(None):
        del holder[last]
    else:
        holder[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("modles", {}, "unknown field modles (did you mean models?)"),
        ("training.epohcs", 3, "unknown field training.epohcs (did you mean epochs?)"),
        ("decisions.0.valeu", "x", "unknown field decisions[0].valeu (did you mean value?)"),
        ("decisions.0.value", type(None), "decisions[0].value is missing"),
        ("models.unet.batch_size", "x", "models.unet.batch_size: expected a whole number, found 'x'"),
        ("models.unet.precision", "fp64", "models.unet.precision: expected one of fp32, bf16, fp16, found 'fp64'"),
        ("models.unet.input_size", [3], "models.unet.input_size: expected a list of 2, found [3]"),
        ("models.unet.input_size", 3, "models.unet.input_size: expected a list, found 3"),
        ("models.unet", 3, "models.unet: expected an object, found 3"),
        ("models", [], "models: expected an object, found []"),
        ("decisions", None, "decisions: expected a list, found null"),
        ("training.gradient_clip", "a", "training.gradient_clip: expected a number, found 'a'"),
        ("training.learning_rates", [1, "b"], "training.learning_rates[1]: expected a number, found 'b'"),
        ("dataset", 5, "dataset: expected text, found 5"),
    ],
)
def test_a_fault_names_the_field_and_what_is_expected_there(path: str, value: object, says: str) -> None:
    with pytest.raises(serde.SchemaError) as caught:
        serde.from_content(_with(path, value), plan.Plan)
    assert str(caught.value) == says


def test_several_faults_are_told_at_once() -> None:
    content = _with("dataset", 5)
    content["channels"] = "three"
    with pytest.raises(serde.SchemaError, match="dataset: expected text, found 5; channels: expected a whole number"):
        serde.from_content(content, plan.Plan)


@pytest.mark.parametrize(("value", "fits"), [(3, True), ((1, 2), True), (None, False), (2.5, False), (["a"], False)])
def test_alternatives(value: object, fits: bool) -> None:
    assert (not list(faults(value, int | tuple[int, ...], "labels.a"))) == fits


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
