from __future__ import annotations

from autoseg.study.scale import at_scale, mark, plan_settings, selected, without_weights
from tests.study.studies import study

SMALL = {"cases": 20, "side": 64, "steps": 40, "folds": 3, "worst_cases": 1, "settings": {"training.weight_decay": 0.1}}


def test_full_scale_changes_nothing() -> None:
    assert at_scale(study(), "full") == study() and mark(study(), "full") == ""


def test_small_scale_has_fewer_folds_and_heat_maps_and_says_what_it_is() -> None:
    one = study(small=SMALL, folds=5)
    assert at_scale(one, "small").folds == 3 and at_scale(one, "small").comparison.worst_cases == 1
    text = mark(one, "small")
    assert text.startswith("SMALL SCALE") and "Not comparable" in text
    assert all(word in text for word in ("20 images", "64 x 64", "40 steps"))


def settings(scale: str, seed: int = 0, **changes: object) -> dict[str, object]:
    one = study(small=SMALL, settings={"training.patience": 5}, **changes)
    models = {model.name: model for model in one.models}
    return dict(plan_settings(one, one.datasets[0], models, scale, seed, 16))  # type: ignore[arg-type]


def test_settings_of_study_dataset_model_and_seed() -> None:
    models = ["unet", {"name": "segformer", "variant": "b3", "pretrained": "auto", "settings": {"precision": "fp32"}}]
    assert settings("full", 2, models=models) == {
        "training.patience": 5, "training.seed": 2, "models.segformer.variant": "b3", "models.segformer.pretrained": "auto",
        "models.segformer.precision": "fp32",
    }  # fmt: skip


def test_small_settings_reach_the_steps_and_own_ones_win() -> None:
    made = settings("small")
    assert made["side"] == 64 and made["training.epochs"] == 20  # 40 steps of 8 images, 16 to train on
    assert made["training.search_epochs"] == 0 and made["training.patience"] == 0 and made["training.weight_decay"] == 0.1
    assert made["models.unet.batch_size"] == 8 and "training.seed" not in made


def test_random_weights_take_the_smallest_variant_at_the_small_scale_only() -> None:
    model = study().models[1]
    assert without_weights(model, "b0", "small").variant == "b0"
    full = without_weights(model, "b0", "full")
    assert full.variant == "" and full.pretrained == "none"


def test_selection_keeps_what_belongs_together() -> None:
    one = study(comparison={"external": [{"dataset": "A", "other": "B"}], "families": {"x": ["unet", "segformer"]}})
    fewer = selected(one, ["A"], ["segformer"])
    assert [dataset.name for dataset in fewer.datasets] == ["A"] and fewer.datasets[0].specialist == ""
    assert fewer.comparison.external == () and fewer.comparison.families == {"x": ("segformer",)}
    assert selected(one, None, None) == one
