"""Planning rules for channels, normalisation, geometry, augmentation and training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg import models
from autoseg.planning.augmentation import Kind, decide_augmentation, names_with_sides
from autoseg.planning.channels import decide_channels
from autoseg.planning.dataset_stats import DatasetStats, dataset_stats
from autoseg.planning.geometry import SpatialPlan, decide_geometry, dice_after_resizing, make_preprocessing, resize_shape
from autoseg.planning.normalisation import decide_normalisation
from autoseg.planning.planner import make_plan
from autoseg.planning.training_schedule import Budget, decide_budget, decide_learning_rate, decide_training
from autoseg.schema.plan import Augmentation, Normalisation, Protocol, Training
from tests.planning.fingerprints import FakeDataset

PRETRAINED = models.spec("efficientnet_lite0_upernet")
SCRATCH = models.spec("unet")
GIGABYTE = 1 << 30
VESSELS = FakeDataset(cases=40, size=(584, 565), classes={"vessel": 2.0}, share=0.087)
POLYPS = FakeDataset(cases=100, size=(398, 512), classes={"polyp": 66.0, "rare": 42.0}, presence={"rare": 0.2})
MR = FakeDataset(cases=60, channels=1, dtype="uint16", modality="mr", size=(256, 216), highs=(120.0, 300.0, 900.0))


def stats(fake: FakeDataset) -> DatasetStats:
    return dataset_stats(fake.fingerprint, fake.spec, 5)


def normalisation(fake: FakeDataset, model: str = "unet") -> tuple[Normalisation, str]:
    dataset = stats(fake)
    weights = next(iter(models.spec(model).weights_for(models.spec(model).default_variant)), None)
    result, decision = decide_normalisation(dataset, decide_channels(dataset)[0], model, weights)
    return result, decision.reason


def spatial_plan(
    fake: FakeDataset, protocol: Protocol = "quick", device: str = "cpu", budget: int = 8 * GIGABYTE
) -> tuple[SpatialPlan, str]:
    result, decisions = decide_geometry(stats(fake), protocol, device, budget)
    return result, decisions[0].reason


def budget(fake: FakeDataset, protocol: Protocol = "quick", device: str = "cpu", memory: int = 8 * GIGABYTE) -> Budget:
    return decide_budget(stats(fake), protocol, device, memory)[0]


def training(fake: FakeDataset, protocol: Protocol = "quick", device: str = "cpu") -> Training:
    dataset = stats(fake)
    return decide_training(
        dataset,
        spatial_plan(fake, protocol, device)[0],
        protocol=protocol,
        device=device,
        budget=budget(fake, protocol, device),
        folds=5,
        seed=0,
    )[0]


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        (FakeDataset(), (3, False, "uint8")),
        (FakeDataset(gray_as_rgb=True, modality="ultrasound"), (1, True, "uint8")),
        (MR, (1, False, "uint16")),
        (FakeDataset(channels=5, dtype="float32", modality="multichannel"), (5, False, "float32")),
    ],
)
def test_decide_channels(fake: FakeDataset, expected: tuple[int, bool, str]) -> None:
    result, decisions = decide_channels(stats(fake))
    assert (result.count, result.merge_gray, result.dtype) == expected
    assert [decision.subject for decision in decisions] == ["channels", "dtype"]


def test_mixed_dtypes_are_stored_with_the_largest() -> None:
    dataset = stats(FakeDataset())
    first, *others = dataset.fingerprint.cases
    mixed = replace(dataset, fingerprint=replace(dataset.fingerprint, cases=(replace(first, dtype="uint16"), *others)))
    assert decide_channels(mixed)[0].dtype == "uint16"


def test_imagenet_statistics_only_with_imagenet_weights() -> None:
    with_weights, because = normalisation(FakeDataset(), "efficientnet_lite0_upernet")
    assert with_weights.scheme == "constant"
    assert with_weights.mean == pytest.approx([255 * m for m in PRETRAINED.weights[0].mean], abs=0.01)
    assert with_weights.std == pytest.approx([255 * s for s in PRETRAINED.weights[0].std], abs=0.01)
    assert "ImageNet" in because
    without, _ = normalisation(FakeDataset(), "unet")
    assert without == Normalisation(scheme="constant", mean=(100.0,) * 3, std=(40.0,) * 3)


def test_gray_images_are_normalised_separately() -> None:
    for fake in (FakeDataset(channels=1, modality="ultrasound"), FakeDataset(gray_as_rgb=True, modality="xray"), MR):
        result, _ = normalisation(fake, "efficientnet_lite0_upernet")
        assert result == Normalisation(scheme="image")
    assert "120" in normalisation(MR)[1] and "900" in normalisation(MR)[1]


def test_comparable_values_are_clipped() -> None:
    result, because = normalisation(replace(MR, highs=(900.0, 1000.0, 1100.0)))
    assert result == Normalisation(scheme="image", lower=(2.0,), upper=(240.0,)) and "outliers" in because


def test_ct_values_are_clipped_to_foreground_percentiles() -> None:
    fake = FakeDataset(channels=1, dtype="float32", modality="ct")
    result, because = normalisation(fake)
    assert (
        result == Normalisation(scheme="constant", mean=(120.0,), std=(30.0,), lower=(20.0,), upper=(200.0,))
        and "20" in because
        and "200" in because
    )
    dataset = stats(fake)
    nothing = (0.0, 0.0, 0.0)
    blank = replace(dataset.fingerprint.channels[0], foreground_mean=0.0, foreground_std=0.0, foreground_percentiles=nothing)
    empty = replace(dataset, fingerprint=replace(dataset.fingerprint, channels=(blank,)))
    result, _ = decide_normalisation(empty, decide_channels(empty)[0], "unet", None)
    assert result == Normalisation(scheme="constant", mean=(100.0,), std=(40.0,), lower=(2.0,), upper=(240.0,)), (
        "no foreground: the whole image's"
    )


def test_constant_channel_is_divided_by_one() -> None:
    dataset = stats(FakeDataset())
    flat = replace(dataset.fingerprint.channels[0], std=0.0)
    dataset = replace(dataset, fingerprint=replace(dataset.fingerprint, channels=(flat,) * 3))
    result, _ = decide_normalisation(dataset, decide_channels(dataset)[0], "unet", None)
    assert result.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("protocol", "device"), [("quick", "cpu"), ("auto", "cpu"), ("auto", "cuda")])
def test_thin_classes_get_patches_and_thick_ones_resizing(protocol: Protocol, device: str) -> None:
    for budget in (4 * GIGABYTE, 80 * GIGABYTE):
        vessels, because = spatial_plan(VESSELS, protocol, device, budget)
        assert (vessels.kind, vessels.scale, vessels.spacing) == ("patch", 2.0 if protocol == "auto" else 1.0, None)
        assert "vessel" in because and "2.0 px" in because
        polyps, because = spatial_plan(POLYPS, protocol, device, budget)
        assert polyps.kind == "resize" and "rare" in because and "42.0 px" in because


def test_benchmark_resizes_and_reports_the_loss() -> None:
    result, because = spatial_plan(VESSELS, "benchmark")
    assert result.kind == "resize" and result.input_size(result.side) == (512, 512)
    assert "limits its Dice to about 0.9" in because
    assert "limits" not in spatial_plan(POLYPS, "benchmark")[1]


def test_thick_vessels_of_large_images_are_shrunk() -> None:
    result, _ = spatial_plan(FakeDataset(size=(2048, 2048), classes={"vessel": 12.0}))
    assert result.kind == "patch" and result.scale == 0.5


@pytest.mark.parametrize(("thickness", "scale"), [(1.0, 2.0), (2.0, 2.0), (2.5, 1.6), (2.9, 1.38), (3.5, 1.0), (6.0, 1.0)])
def test_patches_of_thin_classes_are_enlarged_to_four_pixels_in_auto(thickness: float, scale: float) -> None:
    fake = FakeDataset(size=(1200, 1200), classes={"vessel": thickness})
    assert spatial_plan(fake, "auto")[0].scale == scale
    assert spatial_plan(fake, "quick")[0].scale == 1.0, "predictions take longer by the square of the scale"
    decision = decide_geometry(stats(fake), "auto", "cpu", 8 * GIGABYTE)[1][0]
    assert decision.value == f"patches at {f'{scale:g} times ' if scale > 1 else ''}the original resolution"
    assert (f"enlarged {scale:.1f} times" in decision.reason) == (scale > 1)
    assert decide_geometry(stats(fake), "auto", "cpu", 8 * GIGABYTE, full_resolution=True)[0].scale == 1.0
    small = FakeDataset(size=(100, 100), classes={"vessel": 2.0})
    asked = decide_geometry(stats(small), "auto", "cpu", 8 * GIGABYTE, "patch")[0]
    assert asked.scale == 1.0, "what the user asks for is not enlarged"


def test_small_images_are_enlarged_slightly() -> None:
    assert spatial_plan(FakeDataset(size=(96, 96)))[0].side == 160
    assert spatial_plan(FakeDataset(size=(96, 96)), "auto", "cuda")[0].side == 160
    assert spatial_plan(FakeDataset(size=(300, 300)), "auto", "cuda")[0].side == 320


def test_larger_gpu_gets_larger_input() -> None:
    fake = FakeDataset(size=(1500, 1500), classes={"lesion": 300.0})
    sides = [spatial_plan(fake, "auto", "cuda", size * GIGABYTE)[0].side for size in (8, 24, 80)]
    assert sides == [512, 768, 1024]


def test_different_fields_of_view_get_one_pixel_size() -> None:
    fake = FakeDataset(channels=1, modality="mr", spacings=((0.8, 0.8), (1.2, 1.2), (2.0, 2.0)), classes={"organ": 40.0})
    result, because = spatial_plan(fake)
    assert result.kind == "patch" and result.spacing is not None and "fields of view differ" in because
    # The median image, 480 mm wide, is about as large as the network's input then.
    assert 480 / result.spacing[0] == pytest.approx(256, rel=0.05)
    assert spatial_plan(replace(fake, spacings=((1.2, 1.2),)))[0].kind == "resize"


def test_thin_classes_with_spacing_get_one_pixel_size() -> None:
    fake = FakeDataset(classes={"vessel": 2.0}, size=(600, 600), spacings=((0.4, 0.4), (0.5, 0.5), (0.6, 0.6)))
    for protocol, spacing in (("quick", (0.5, 0.5)), ("auto", (0.25, 0.25))):
        result, _ = spatial_plan(fake, protocol)  # type: ignore[arg-type]
        assert (result.kind, result.spacing) == ("patch", spacing)


def test_aspect_includes_anisotropic_spacing() -> None:
    result, _ = spatial_plan(FakeDataset(size=(300, 300), spacings=((1.0, 0.5),)))
    height, width = result.input_size(result.side)
    assert height / width == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("aspect", [0.3, 0.6, 0.75, 1.0, 1.19, 2.5])
@pytest.mark.parametrize("side", [64, 160, 256, 512])
def test_resize_shape_keeps_area_and_aspect(aspect: float, side: int) -> None:
    height, width = resize_shape(side, aspect)
    assert height % 32 == 0 and width % 32 == 0
    assert 0.75 < height * width / side**2 < 1.3
    assert side < 160 or 0.7 < height / width / aspect < 1.4


def test_dice_after_resizing_grows_with_thickness() -> None:
    dice_values = [dice_after_resizing(t) for t in (0.0, 0.5, 1.0, 3.0, 10.0, 100.0)]
    assert dice_values == sorted(dice_values) and dice_values[2] == pytest.approx(0.87) and dice_values[-1] < 1


def test_preprocessing_key_describes_the_arrays() -> None:
    channels, _ = decide_channels(stats(FakeDataset()))
    resized = make_preprocessing(SpatialPlan(kind="resize", side=256, native=(400, 400)), channels, (256, 224))
    assert (resized.key, resized.size, resized.channels, resized.dtype) == ("resize_256x224", (256, 224), 3, "uint8")
    keys = [
        make_preprocessing(
            SpatialPlan(kind="patch", side=256, native=(400, 400), scale=scale, spacing=spacing), channels, (256, 256)
        ).key
        for scale, spacing in ((1.0, None), (0.5, None), (1.0, (0.5, 0.25)))
    ]
    assert keys == ["patch_native", "patch_x0.5", "patch_0.5x0.25mm"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("right ventricle", "myocardium", "left ventricle"), ("right ventricle", "left ventricle")),
        (("LeftKidney", "spleen"), ("LeftKidney",)),
        (("LV", "RV", "MYO"), ("LV", "RV")),
        (("LV", "MYO"), ()),
        (("lesion", "cleft", "bright_spot"), ()),
        (("lung_L", "lung_R"), ("lung_L", "lung_R")),
    ],
)
def test_names_with_sides(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert names_with_sides(names) == expected


@pytest.mark.parametrize(
    ("fake", "axes"),
    [
        (FakeDataset(), (0, 1)),
        (FakeDataset(modality="mr", channels=1, classes={"left_ventricle": 30.0}), (0,)),
        (FakeDataset(modality="ultrasound", channels=1), (1,)),
        (FakeDataset(modality="ultrasound", channels=1, classes={"left_ventricle": 30.0}), ()),
        (FakeDataset(modality="xray", channels=1, classes={"left_lung": 30.0, "right_lung": 30.0}), ()),
    ],
)
def test_mirror_axes(fake: FakeDataset, axes: tuple[int, ...]) -> None:
    result, decisions = decide_augmentation(stats(fake), spatial_plan(fake)[0])
    assert result.mirror == axes and decisions[0].subject == "training.augmentation.mirror"
    for protocol in ("auto", "quick", "benchmark"):
        plan = make_plan(fake.fingerprint, fake.spec, protocol, ("unet",), 8 << 30, "cpu")
        assert plan.training.tta == (bool(axes) and protocol != "benchmark")
        assert [one.value for one in plan.decisions if one.subject == "training.tta"] == [str(plan.training.tta).lower()]


def augmentation(fake: FakeDataset, kind: Kind = "planned") -> tuple[Augmentation, dict[str, str]]:
    result, decisions = decide_augmentation(stats(fake), spatial_plan(fake)[0], kind)
    return result, {decision.subject.rpartition(".")[2]: decision.reason for decision in decisions}


def test_thin_classes_get_little_blur() -> None:
    thin, because = augmentation(VESSELS)
    thick, _ = augmentation(POLYPS)
    assert thin.p_low_resolution == 0 and thin.p_blur < thick.p_blur and "vessel is 2.0 px" in because["detail"]
    assert thick.p_low_resolution > 0


def test_intensity_augmentation_follows_modality() -> None:
    colour, _ = augmentation(FakeDataset(cases=500))
    ct, because = augmentation(FakeDataset(cases=500, channels=1, dtype="float32", modality="ct"))
    assert ct.brightness == ct.gamma == (0.9, 1.1) and "Hounsfield" in because["tones"]
    assert colour.p_brightness > ct.p_brightness and colour.brightness == (0.7, 1.3)
    assert augmentation(MR)[0].p_gamma > colour.p_gamma


def test_rotation_deformation_and_scaling() -> None:
    degrees = {kind: augmentation(FakeDataset(modality=kind, channels=1))[0].rotation for kind in ("microscopy", "mr", "xray")}
    assert degrees == {"microscopy": 180, "mr": 30, "xray": 15}
    assert augmentation(FakeDataset(modality="microscopy"))[0].p_elastic > 0 == augmentation(MR)[0].p_elastic
    assert augmentation(FakeDataset(spacings=((1.0, 1.0),)))[0].scaling == (0.85, 1.2) != augmentation(FakeDataset())[0].scaling


def test_shift_changes_appearance_more_and_keeps_the_geometry() -> None:
    for fake in (POLYPS, MR):
        planned, shift = augmentation(fake)[0], augmentation(fake, "shift")[0]
        assert planned.p_jpeg == planned.p_bias == planned.p_colour == planned.p_sharpen == 0
        assert min(shift.p_jpeg, shift.p_bias, shift.p_sharpen) > 0 and shift.p_gamma > planned.p_gamma
        assert shift.gamma[0] < planned.gamma[0] and shift.gamma[1] > planned.gamma[1]
        for name in ("mirror", "p_rotation", "rotation", "p_scaling", "scaling", "p_elastic"):
            assert getattr(shift, name) == getattr(planned, name)
    assert augmentation(POLYPS, "shift")[0].p_colour == 0.5 and augmentation(MR, "shift")[0].p_colour == 0
    because = augmentation(POLYPS, "shift")[1]
    assert "BigAug" in because["augmentation"] and "tones" not in because


def test_shift_spares_thin_classes_and_hounsfield_units() -> None:
    thin = augmentation(VESSELS, "shift")[0]
    assert thin.p_low_resolution == 0 and thin.blur == augmentation(VESSELS)[0].blur and thin.p_jpeg > 0
    ct = FakeDataset(cases=500, channels=1, dtype="float32", modality="ct")
    assert augmentation(ct, "shift")[0].gamma == (0.9, 1.1) and augmentation(ct, "shift")[0].p_bias == 0
    assert augmentation(ct, "shift")[0].p_sharpen > 0


def test_few_images_are_augmented_more_often() -> None:
    few, many = (augmentation(FakeDataset(cases=cases))[0] for cases in (30, 300))
    assert few.p_rotation == pytest.approx(1.5 * many.p_rotation) and few.rotation == many.rotation


def test_quick_has_the_same_steps_for_any_number_of_images() -> None:
    steps = []
    for cases in (12, 60, 100, 1000):
        result = budget(FakeDataset(cases=cases))
        assert result.batch == 8
        steps.append(training(FakeDataset(cases=cases)).epochs * result.steps)
    assert min(steps) > 0.9 * max(steps)


def test_batch_is_not_larger_than_the_training_set() -> None:
    assert budget(FakeDataset(cases=6)).batch == 4
    assert budget(FakeDataset(cases=2), "auto").batch == 2
    assert budget(FakeDataset(cases=6), "benchmark").batch == 8


def test_large_gpu_and_dataset_get_a_larger_batch_except_in_benchmark() -> None:
    large = 24 * GIGABYTE
    assert budget(FakeDataset(cases=1000), "auto", "cuda", large).batch == 16
    assert budget(FakeDataset(cases=100), "auto", "cuda", large).batch == 8
    assert (
        budget(FakeDataset(cases=1000), "auto", "cuda").batch
        == budget(FakeDataset(cases=1000), "auto", "cpu", large).batch
        == 8
    )
    assert budget(FakeDataset(cases=1000), "benchmark", "cuda", large).batch == 8


def test_benchmark_equals_the_published_study() -> None:
    one, several = training(FakeDataset(), "benchmark"), training(POLYPS, "benchmark")
    assert (one.epochs, one.optimizer, one.schedule, one.learning_rates) == (150, "adamw", "rex", (1e-4, 5e-5, 1e-5))
    assert (one.loss, several.loss) == ("bce", "ce")
    assert one.patience > 0 and one.validate_every == 1


def test_auto_budget_follows_device_and_images() -> None:
    assert training(FakeDataset(cases=100), "auto", "cuda").epochs > training(FakeDataset(cases=100), "auto", "cpu").epochs
    assert training(FakeDataset(cases=20_000), "auto", "cuda").epochs < training(FakeDataset(cases=1000), "auto", "cuda").epochs


def test_regions_get_sigmoid_losses() -> None:
    fake = FakeDataset(
        classes={"tumour": 30.0, "core": 12.0},
        labels={"background": 0, "tumour": (1, 2), "core": (2,)},
        regions_class_order=(1, 2),
    )
    assert (training(fake).loss, training(fake, "benchmark").loss) == ("dice_bce", "bce")
    assert training(FakeDataset()).loss == "dice_ce"


def test_rare_classes_and_sparse_foreground_are_sampled_more_often() -> None:
    assert training(POLYPS).foreground_share == 0.33
    assert training(FakeDataset()).foreground_share == 0.0
    assert training(VESSELS).foreground_share == 0.33
    assert training(replace(VESSELS, share=0.01)).foreground_share == 0.5


@pytest.mark.parametrize("fake", [VESSELS, POLYPS, FakeDataset(cases=3000), replace(VESSELS, size=(3000, 3000))])
def test_validation_happens_three_times_and_is_limited_in_time(fake: FakeDataset) -> None:
    for protocol in ("quick", "auto"):
        result = training(fake, protocol)  # type: ignore[arg-type]
        assert 1 <= result.validate_every <= max(1, result.epochs // 3)


def test_learning_rates_are_candidates() -> None:
    for protocol in ("quick", "auto", "benchmark"):
        rates = training(FakeDataset(), protocol).learning_rates  # type: ignore[arg-type]
        for model in models.names():
            rate, decision = decide_learning_rate(protocol, models.spec(model), rates, model == "hsnet")  # type: ignore[arg-type]
            assert rate in rates and decision.subject == f"models.{model}.learning_rate"
    assert decide_learning_rate("benchmark", PRETRAINED, (1e-4, 5e-5, 1e-5), True)[0] == 1e-4


@pytest.mark.parametrize(
    ("model", "pretrained", "few", "many"),
    [
        ("efficientnet_lite0_upernet", True, 1e-3, 3e-4), ("efficientnet_lite0_upernet", False, 1e-3, 1e-3),
        ("nnunet", False, 1e-3, 1e-3), ("hsnet", True, 5e-4, 1e-4), ("unet", False, 5e-4, 3e-4),
        ("segformer", True, 2e-4, 1e-4), ("segformer", False, 2e-4, 1e-4),
    ],
)  # fmt: skip
def test_rates_are_high_for_networks_that_were_measured_so(model: str, pretrained: bool, few: float, many: float) -> None:
    for protocol, steps, expected in (("quick", "few", few), ("auto", "many", many)):
        rates = training(FakeDataset(), protocol).learning_rates  # type: ignore[arg-type]
        rate, decision = decide_learning_rate(protocol, models.spec(model), rates, pretrained)  # type: ignore[arg-type]
        assert rate == expected, steps
        assert ("measured for this network" in decision.reason) == models.spec(model).high_rate
