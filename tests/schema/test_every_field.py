"""Every field of every stored file, given values that are wrong for it: the message names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoseg.io.raw_dataset import read_description
from autoseg.schema import serde
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Plan
from autoseg.support.errors import AutosegError
from autoseg.support.files import parse_artefact, read_artefact
from tests.schema.test_artefacts import ARTEFACTS, BY_NAME, SAMPLES, named, sample

# Free content: settings of the user, options of a model's builder.
FREE = {"options", "overrides"}
# Numbers that are undefined in some files: metrics without a denominator, statistics of nothing.
UNDEFINED = {
    "appearance": {"low", "median", "high"},
    "best": {"dice", "dice_before", "nested_dice", "mean_absolute_error"},
    "bundle": {"scores", "mean_absolute_error", "low", "median", "high"},
    "comparison": {
        "mean", "std", "folds", "low", "high", "epoch_seconds", "training_seconds", "latency", "calibration", "p", "p_adjusted",
        "mean_ranks", "first", "tau", "friedman_p", "critical_difference", "dice", "dice_std", "hd95", "hd95_std",
        "hd95_diagonal", "hd95_diagonal_std", "coverage", "risk", "aurc", "best", "random", "across", "mean_parameters",
        "mean_training_seconds", "mean_latency",
    },
    "explanation": {"inside", "ring", "outside"},
    "fingerprint": {
        "layering", "foreground_mean", "foreground_std", "foreground_percentiles", "mean", "std", "percentiles",
    },
    "grid": {"micro_dice"},
    "learning_rate": {"dice", "class_mean_dice", "micro_dice", "micro_iou"},
    "prediction": {
        "value", "expected_dice", "soft_dice", "agreement", "entropy", "classes", "mean_absolute_error",
    },
    "risk_coverage": {"aurc", "best", "random", "dice", "hd95", "hd95_diagonal"},
    "run": {"dice", "class_mean_dice", "micro_dice", "micro_iou"},
    "scores": {
        "dice", "iou", "precision", "recall", "hd95", "hd95_diagonal", "hd95_pooled", "asd", "nsd", "cldice", "added", "mean",
        "std", "median", "pooled", "overall", "ece", "confidence", "accuracy", "share",
    },
    "second_reader": {"confidence", "agreement"},
    "study": {"ours", "deviation", "published", "published_deviation"},
    "selection": {"value", "value_all", "mean", "low", "high", "p", "p_adjusted"},
}  # fmt: skip
# Numbers below zero that are right: values of images, differences, what stands for "not yet" and "all folds".
BELOW_ZERO = {
    "appearance": {"low", "median", "high"},
    "best": {"slope", "intercept", "empty_offset"},
    "bundle": {"slope", "intercept", "empty_offset", "low", "median", "high"},
    "comparison": {"mean", "std", "folds", "low", "high", "tau", "across"},
    "fingerprint": {
        "low", "high", "mean", "std", "percentiles", "foreground_mean", "foreground_std", "foreground_percentiles",
    },
    "grid": {"fold"},
    "onnx": {"mean", "lower", "upper"},
    "study": {"ours", "published"},
    "plan": {"mean", "lower", "upper"},
    "prediction": {"slope", "intercept", "empty_offset"},
    "run": {"best_epoch"},
    "runtime": {"mean", "lower", "upper"},
    "selection": {"value", "value_all", "mean", "low", "high"},
    "sources": {"modified", "changed"},
    "scores": {"mean", "median", "added", "pooled", "overall"},
}  # fmt: skip
# Fields that may be left empty.
EMPTY = {
    "bundle": {"appearance", "calibration"}, "best": {"calibration"},
    "comparison": {"cost", "ranking", "selection"},
    "dataset": {"regions_class_order"}, "fingerprint": {"spacing", "median_spacing"}, "onnx": {"size", "spacing"},
    "plan": {"size", "spacing", "timing", "weight_decay"}, "prediction": {"calibration", "confidence", "frame"},
    "run": {"search"}, "runtime": {"size", "spacing"},
    "scores": {"calibration"}, "sources": {"label"},
}  # fmt: skip
HUGE = 10**30


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value; of lists only the first, of metrics by name ("pooled.dice") too."""
    if path:
        yield path
    if path and path[-1] in FREE:
        return
    if isinstance(content, dict):
        named = [key for key in content if "." in key]
        for key in [*(key for key in content if key not in named), *named[:1]]:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list):
        for index in range(min(1, len(content))):
            yield from places(content[index], (*path, index))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return copy


def value_at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def wrong_values(kind: str, path: tuple[Any, ...], now: Any) -> Iterator[tuple[str, str]]:
    """Name and JSON text of values that are wrong at this place."""
    words = {part for part in path if isinstance(part, str)}
    is_number = isinstance(now, int | float) and not isinstance(now, bool)
    undefined = now is None and words & UNDEFINED.get(kind, set())
    if now is None and not undefined:
        return
    if not words & EMPTY.get(kind, set()) and not words & UNDEFINED.get(kind, set()):
        yield "null", "null"
        if is_number:
            yield "NaN", "NaN"
    elif is_number and not words & UNDEFINED.get(kind, set()) and isinstance(now, int):
        yield "NaN", "NaN"
    for name, text in {"text": '"x"', "true": "true", "object": '{"no": "such"}', "list": '[[]]', "number": "0.5"}.items():
        same = {"text": str, "true": bool, "object": dict, "list": list}.get(name)
        if (same is not None and isinstance(now, same)) or (name == "number" and (is_number or undefined)):
            continue
        if isinstance(now, dict) and name == "object":
            continue
        yield name, text
    if is_number:
        if not words & BELOW_ZERO.get(kind, set()):
            yield "negative", "-3"
        yield "huge", str(HUGE)
        yield "infinite", "1e999"
        if isinstance(now, int) and kind not in ("conversion",) and type(now) is int and _is_whole(kind, path):
            yield "fraction", "1.5"


def _is_whole(kind: str, path: tuple[Any, ...]) -> bool:
    """Whether the class has a whole number there: a sample may hold 1 where 0.5 is right too."""
    whole = {"fold", "epochs", "batch_size", "accumulate", "seed", "channels", "size", "input_size", "tp", "cases"}
    return path[-1] in whole or (len(path) > 1 and path[-2] in {"size", "input_size", "shape"})


def latest(kind: type) -> Path:
    return sample(kind, kind.VERSION)


@pytest.mark.parametrize("kind", ARTEFACTS, ids=named)
def test_a_wrong_value_in_any_field_is_told_with_file_and_field(kind: Any) -> None:
    content = json.loads(latest(kind).read_text())
    path = Path(latest(kind).name)
    tried, missed = 0, []
    for place in places({key: value for key, value in content.items() if key not in ("artefact", "schema_version")}):
        for name, text in wrong_values(kind.NAME, place, value_at(content, place)):
            damaged = json.dumps(changed(content, place, "@@")).replace('"@@"', text)
            tried += 1
            field = next(str(part) for part in reversed(place) if isinstance(part, str))
            try:
                parse_artefact(damaged, kind, str(path))
            except AutosegError as error:
                if path.name not in error.problem or field not in error.problem:
                    missed.append(f"{place} {name}: {error.problem}")
            else:
                missed.append(f"{place} {name}: accepted")
    assert not missed, "\n".join(missed[:20]) + f"\n{len(missed)} of {tried}"
    assert tried >= 5, tried


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_wrong_value_in_a_file_of_any_version_is_no_traceback(path: Path) -> None:
    """The steps between versions meet content that nobody has checked."""
    kind = BY_NAME[path.stem.rpartition("_v")[0]]
    content = json.loads(path.read_text())
    for place in places(content):
        for value in (None, 5, []):
            try:
                parse_artefact(json.dumps(changed(content, place, value)), kind, path.name)
            except AutosegError as error:
                assert path.name in error.problem


@pytest.mark.parametrize("text", ["", "null", "5", "[" * 100_000, '{"seed": ' + "9" * 5000 + "}", '{"a": 1', "\ufeff{}", "NaN"])
@pytest.mark.parametrize("kind", ARTEFACTS, ids=named)
def test_what_is_no_json_of_ours_is_told(kind: Any, text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text, encoding="utf-8")
    with pytest.raises(AutosegError, match=r"odd\.json"):
        read_artefact(tmp_path / "odd.json", kind)


@pytest.mark.parametrize("place", ["channel_names", "labels", "file_ending", "numTraining", "groups", "regions_class_order"])
@pytest.mark.parametrize("value", [None, 5, -1, "x", [], {}, [[]], True, {"a": None}, {"a": [None]}, {"a": -1}, {"a": 10**30}])
def test_a_wrong_value_in_a_raw_description_is_told(place: str, value: Any, tmp_path: Path) -> None:
    """nnU-Net's file, which people write by hand, has a reader of its own."""
    content = json.loads((SAMPLES / "dataset_v1.json").read_text())
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**content, place: value}))
    try:
        spec = read_description(path)
        spec.label_scheme()
    except AutosegError as error:
        assert "dataset.json" in error.problem
    except ValueError as error:
        assert "label" in str(error) or "regions" in str(error)
    else:
        assert (place, value) in [
            ("groups", {}), ("groups", {"a": None}), ("regions_class_order", None), ("regions_class_order", []),
            ("regions_class_order", 5), ("numTraining", 5), ("file_ending", ".png"), ("channel_names", {"a": -1}),
        ] or place == "channel_names", (place, value)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("models", "unet", "batch_size"), 0, "models.unet.batch_size: expected a whole number from 1"),
        (("models", "unet", "learning_rate"), None, "models.unet.learning_rate: expected a number above 0"),
        (("models", "unet", "learning_rate"), 0, "models.unet.learning_rate: expected a number above 0"),
        (("training", "epochs"), -3, "training.epochs: expected a whole number from 1"),
        (("models", "unet", "preprocessing"), "other", "models.unet.preprocessing: expected one of"),
        (("models", "unet", "model"), "nnunet", "models.unet.model: expected 'unet', found 'nnunet'"),
        (("models", "unet", "accumulate"), 3, "models.unet.accumulate: expected a divisor of the batch size 8"),
        (("preprocessing", "resize_64x48", "key"), "../../x", "preprocessing.resize_64x48.key: expected the name of a file"),
        (("preprocessing", "resize_64x48", "size"), None, "preprocessing.resize_64x48.size: expected a height and a width"),
        (("training", "augmentation", "scaling"), [2, 1], "training.augmentation.scaling: expected the smaller number first"),
        (("training", "learning_rates"), [], "training.learning_rates: expected at least one"),
        (("training", "augmentation", "p_noise"), 1.5, "training.augmentation.p_noise: expected a number from 0 to 1"),
    ],
)
def test_a_plan_out_of_range_is_told_in_words(path: tuple[str, ...], value: Any, says: str, tmp_path: Path) -> None:
    from tests.schema.test_serde import a_plan

    (tmp_path / "plan.json").write_text(json.dumps(changed(json.loads(serde.to_json(a_plan())), path, value)))
    with pytest.raises(AutosegError) as caught:
        read_artefact(tmp_path / "plan.json", Plan)
    assert "plan.json: " in caught.value.problem and says in caught.value.problem


def test_labels_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    """The copy in a results folder is read as any other file."""
    content = json.loads((SAMPLES / "dataset_v1.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "labels": {"background": 0, "a": 7}}))
    with pytest.raises(AutosegError, match=r"dataset\.json: labels: label values must be 0, 1, 2"):
        read_artefact(tmp_path / "dataset.json", DatasetSpec)
