"""The protocol `benchmark`: the first study's, item by item, with the certainty of each and the setting that does otherwise."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autoseg.planning.duplicates import duplicates_to_remove
from autoseg.planning.overrides import AT_PLANNING, apply_overrides
from autoseg.planning.planner import make_plan
from autoseg.planning.splits import make_splits
from autoseg.planning.study_protocol import HINT, MODEL_NOTES, REASONS, expected_cases
from autoseg.schema.fingerprint import Finding, Fingerprint
from autoseg.schema.plan import Plan
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset, case_name

POLYPS = FakeDataset(cases=100, size=(398, 512), classes={"neoplastic": 66.0, "rare": 42.0}, presence={"rare": 0.1})
SETTING = re.compile(r"--set ([\w.]+)=([\w.]*\w)")


def benchmark(fake: FakeDataset = POLYPS, models: tuple[str, ...] = ("unet",), **settings: str) -> Plan:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return make_plan(fake.fingerprint, fake.spec, "benchmark", models, 64 << 30, "cpu", settings=dotted)


def reasons(plan: Plan) -> dict[str, str]:
    return {decision.subject: decision.reason for decision in plan.decisions}


def test_what_the_study_and_the_hints_say() -> None:
    plan = benchmark()
    training, model = plan.training, plan.models["unet"]
    assert (training.epochs, training.search_epochs, training.learning_rates) == (150, 100, (1e-4, 5e-5, 1e-5))
    assert (training.loss, training.optimizer, training.schedule, model.batch_size) == ("ce", "adamw", "rex", 8)
    assert (training.monitor, training.patience, training.min_delta, training.validate_every) == ("micro.iou", 20, 0.001, 1)
    assert (training.gradient_clip, training.foreground_share, training.auxiliary_losses) == (0.0, 0.0, False)
    assert (training.selection, training.folds, training.duplicates, training.scored_size) == (
        "held_out", 5, "removed", "original"
    )  # fmt: skip
    assert (model.warmup_epochs, model.input_size, model.pretrained, model.variant) == (0, (512, 512), "study", "64")
    assert benchmark(FakeDataset()).training.loss == "bce"
    assert training.augmentation.mirror and not training.tta
    # Patches are the user's own: then their rule holds.
    assert benchmark(geometry="patch").training.foreground_share == 0.33


def test_no_model_has_warm_up_and_all_have_one_normalisation() -> None:
    models = ("segformer", "vwformer_convnext", "unet", "ukan", "hiformer")
    plan = benchmark(models=models)
    assert {model.warmup_epochs for model in plan.models.values()} == {0}
    (values,) = {model.normalisation for model in plan.models.values()}
    assert (values.scheme, values.mean, values.std, values.lower) == ("constant", (127.5,) * 3, (127.5,) * 3, ())
    assert {model.pretrained for name, model in plan.models.items() if name != "ukan"} == {"auto", "study"}
    assert plan.models["ukan"].pretrained == "none"
    text = reasons(plan)["models.unet.normalisation"]
    assert "as in the study" in text and HINT in text
    by_weights = benchmark(models=models, normalisation="weights")
    assert len({model.normalisation for model in by_weights.models.values()}) > 1


@pytest.mark.parametrize(
    "fake",
    [
        FakeDataset(channels=1, dtype="uint16", modality="mr", highs=(120.0, 300.0, 900.0)),
        FakeDataset(dtype="uint16"),
        FakeDataset(gray_as_rgb=True, modality="ultrasound"),
        FakeDataset(channels=1, dtype="float32", modality="ct"),
    ],
)
def test_other_values_have_one_normalisation_too(fake: FakeDataset) -> None:
    plan = benchmark(fake, ("segformer", "vwformer_convnext", "unet"))
    assert len({model.normalisation for model in plan.models.values()}) == 1
    assert (plan.models["unet"].normalisation.mean == (127.5,)) == fake.gray_as_rgb


@pytest.mark.parametrize("kind", ["dataset", "image", "half", "weights"])
def test_the_normalisation_can_be_set_in_every_protocol(kind: str) -> None:
    plan = make_plan(
        POLYPS.fingerprint, POLYPS.spec, "quick", ("segformer", "unet"), 64 << 30, "cpu", settings={"normalisation": kind}
    )
    first, second = (model.normalisation for model in plan.models.values())
    assert (first == second) == (kind != "weights") and plan.overrides == {"normalisation": kind}
    mean = second.mean[0] if second.mean else None
    assert {"dataset": 100.0, "half": 127.5, "image": None}.get(kind, mean) == mean
    assert reasons(plan)["models.unet.normalisation"].startswith(f"set by the user: {kind};")


@pytest.mark.parametrize(("name", "value"), [("normalisation", "weight"), ("augmentation", "afine"), ("geometry", "square")])
def test_other_values_of_short_names_are_refused(name: str, value: str) -> None:
    with pytest.raises(AutosegError, match=f"{name} cannot be '{value}'\n.*choose "):
        benchmark(**{name: value})


# Every setting that a reason names, of the dataset and of the models.
NAMED = sorted({match for text in (*REASONS.values(), *MODEL_NOTES.values()) for match in SETTING.findall(text)})
OTHERS = [("normalisation", "weights"), ("training.duplicates", "grouped"), ("models.unet.pretrained", "none"),
          ("models.missformer.pretrained", "none")]  # fmt: skip


def test_every_hint_names_its_alternative_and_says_that_it_is_one() -> None:
    plan = benchmark(models=("unet", "missformer", "vwformer_convnext"))
    assert len(NAMED) == 16
    texts = reasons(plan)
    for path, value in [*NAMED, *OTHERS]:
        (reason, *_) = [text for text in texts.values() if f"--set {path}={value}" in text]
        certain = ("training.foreground_share", "training.duplicates", "training.tta")
        assert ("hint" in reason or "notes of others" in reason) or path in certain, path


def shown_as(value: object) -> str:
    """As a user writes it: true, 1, 0.33."""
    return str(value).lower().removesuffix(".0")


@pytest.mark.parametrize(("path", "value"), [*NAMED, *OTHERS])
def test_every_alternative_is_one_setting_away(path: str, value: str) -> None:
    path = path.replace("models.NAME", "models.unet")
    keys = path.split(".")
    name = keys[1] if keys[0] == "models" else "unet"
    before = benchmark(models=(name,))
    if path in AT_PLANNING or path == "training.duplicates" or keys[0] == "models":
        after = benchmark(models=(name,), **{path.replace(".", "__"): value})
    else:
        after = apply_overrides(before, {path: value})
    assert shown_as(after.overrides[path]) == value and after != before
    old, new = before.models[name], after.models[name]
    shown = {
        "geometry": (old.preprocessing, new.preprocessing) == ("resize_512x512", "pad_512x512"),
        "augmentation": after.training.augmentation.shear == 17.5 and before.training.augmentation.shear == 0,
        "normalisation": old.normalisation != new.normalisation,
        "training.duplicates": (before.training.duplicates, after.training.duplicates) == ("removed", "grouped"),
    }
    if path in shown:
        assert shown[path]
    elif keys[0] == "training":
        old_text, new_text = (shown_as(getattr(one.training, keys[1])) for one in (before, after))
        assert old_text != value == new_text
    elif keys[2] == "options":
        assert old.options == {} and list(new.options) == [keys[3]]
    else:
        assert str(getattr(old, keys[2])) != value == str(getattr(new, keys[2]))
    assert not list(after.problems())


def test_affine_augmentation_is_what_the_hint_says() -> None:
    changes = benchmark(augmentation="affine").training.augmentation
    assert (changes.rotation, changes.shift, changes.shear, changes.scaling) == (180.0, 0.25, 17.5, (0.75, 1.25))
    assert changes.mirror == (0, 1) and changes.p_blur > 0 and changes.p_brightness > 0 and changes.p_noise == 0
    with pytest.raises(AutosegError, match="classic has no shear"):
        benchmark(augmentation="affine", training__augmentation__chain="classic")


def with_duplicates(fake: FakeDataset) -> Fingerprint:
    """Cases 0, 1 and 2 have the same pixels; 3 and 4 look alike; 5 and 6 do too, and are of one patient; 7 is like 6, of
    another one; 8 and 9 are only similar scenes."""
    fingerprint = fake.fingerprint
    cases = [
        replace(case, pixel_hash="same" if index < 3 else case.pixel_hash, group="one" if index in (5, 6) else "")
        for index, case in enumerate(fingerprint.cases)
    ]
    near = [Finding("near_duplicate", "", tuple(map(case_name, names))) for names in ((3, 4), (5, 6, 7))]
    scene = Finding("similar", "", (case_name(8), case_name(9)))
    clusters = tuple(tuple(map(case_name, names)) for names in ((0, 1, 2), (3, 4), (5, 6, 7), (8, 9)))
    return replace(fingerprint, cases=tuple(cases), findings=(*near, scene), duplicates=clusters)


def test_of_duplicates_one_stays_and_frames_of_one_patient_are_none() -> None:
    fingerprint = with_duplicates(POLYPS)
    removed = duplicates_to_remove(fingerprint, POLYPS.spec)
    assert removed == tuple(map(case_name, (1, 2, 4, 7)))
    splits = make_splits(fingerprint, POLYPS.spec, left_out=removed)
    held_out = [case for fold in splits.folds for case in fold.validation]
    assert sorted(held_out) == sorted({case_name(k) for k in range(100)} - set(removed)) and "4 duplicates" in splits.reason
    assert all(set(removed).isdisjoint((*fold.train, *fold.inner)) for fold in splits.folds)
    plan = make_plan(fingerprint, POLYPS.spec, "benchmark", ("unet",), 64 << 30, "cpu")
    text = reasons(plan)["training.duplicates"]
    assert text.startswith("4 of 100 cases are in no fold") and "76" not in text
    # 96 cases in five folds: 76 are trained on.
    assert "76 training images" in next(one.reason for one in make_plan(
        fingerprint, POLYPS.spec, "quick", ("unet",), 64 << 30, "cpu", settings={"training.duplicates": "removed"}
    ).decisions if one.subject == "training.epochs")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cases", "expected"),
    [
        ("Dataset501_NeoPolypSmall", 1000, "the study kept 945 of 1000 images of NeoPolyp, 51 fewer than here"),
        ("Dataset502_ISIC2018", 100, "the study kept 3565 of 3694 images of ISIC 2018;"),
        ("Dataset503_CAMUS", 2000, "the study kept 1996 of 2000 images of CAMUS;"),
        ("Dataset504_Kvasir", 1000, ""),
    ],
)
def test_the_counts_of_the_study_are_the_expectation(
    name: str, cases: int, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake = replace(POLYPS, cases=cases)
    fingerprint = replace(with_duplicates(fake), dataset=name)
    assert (expected_cases(fingerprint, fake.spec) is None) == (not expected)
    plan = make_plan(fingerprint, fake.spec, "benchmark", ("unet",), 64 << 30, "cpu")
    text = reasons(plan)["training.duplicates"]
    assert expected in text and ("the study kept" in text) == bool(expected)
    # Said aloud only where the whole set is there, and another number is left: 996 instead of 945.
    assert ("the study kept" in caplog.text) == ("fewer" in expected)
