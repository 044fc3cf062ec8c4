from __future__ import annotations

import pytest

from autoseg import models
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.sizing import ModelRequest, fit_model, fit_part

FRAME = SpatialPlan(kind="resize", side=384, native=(600, 600))
GIGABYTE = 1 << 30


def request(name: str = "unet", budget: float = 8.0, batch: int = 8) -> ModelRequest:
    return ModelRequest(
        spec=models.spec(name),
        channels=3,
        outputs=2,
        precision="fp32",
        device="cpu",
        optimizer="adamw",
        budget=int(budget * GIGABYTE),
        batch=batch,
    )


def test_the_batch_is_divided_into_equal_parts_that_fit() -> None:
    whole = fit_part(request(budget=100), "32", (256, 256))
    assert whole.accumulate == 1 and whole.fits
    halves = fit_part(request(budget=whole.memory / GIGABYTE), "32", (256, 256))
    assert halves.accumulate == 2 and halves.fits and halves.memory < 0.9 * whole.memory


def test_networks_with_batch_statistics_never_get_a_single_image() -> None:
    tiny = fit_part(request(budget=0.01), "16", (256, 256))
    assert tiny.accumulate == 4 and not tiny.fits
    assert fit_part(request("nnunet", budget=0.01), "small", (256, 256)).accumulate == 8


def test_an_odd_batch_has_only_the_parts_that_divide_it() -> None:
    assert fit_part(request(budget=0.01, batch=9), "16", (64, 64)).accumulate == 3
    assert fit_part(request(budget=0.01, batch=7), "16", (64, 64)).accumulate == 1


def test_more_memory_gives_more_images_at_once_then_larger_inputs_then_larger_variants() -> None:
    fits = [fit_model(request("unet", budget), FRAME, "auto")[0] for budget in (0.5, 2, 8, 80)]
    parts = [8 // fit.accumulate for fit in fits]
    areas = [fit.input_size[0] * fit.input_size[1] for fit in fits]
    assert all(fit.fits for fit in fits)
    assert parts[0] < 8 and areas == sorted(areas) and areas[-1] == 384 * 384 and areas[0] <= 256 * 256
    assert [fit.memory for fit in fits] == sorted(fit.memory for fit in fits)
    variants = [v.name for v in models.spec("unet").variants]
    assert variants.index(fits[0].variant) < variants.index(fits[-1].variant)


@pytest.mark.parametrize("name", ["unet", "segformer"])
def test_no_budget_gives_single_images_or_an_input_that_does_not_fit(name: str) -> None:
    sizes = []
    for budget in (0.5, 4, 24, 80):
        fit, decisions = fit_model(request(name, budget), SpatialPlan(kind="resize", side=1024, native=(1200, 1200)), "auto")
        assert fit.fits and 8 // fit.accumulate >= 2 and fit.memory <= budget * GIGABYTE
        assert all(decision.reason for decision in decisions)
        sizes.append(fit.input_size[0])
    assert sizes == sorted(sizes) and sizes[0] < 512 and sizes[-1] == 1024


def test_a_small_input_is_used_only_if_nothing_else_fits() -> None:
    fit, decisions = fit_model(request("swin_umamba", 1.6), FRAME, "auto")
    assert fit.fits and fit.input_size[0] < 256 and "no larger one fits" in decisions[1].reason


def test_a_larger_variant_than_the_default_needs_memory_for_the_whole_batch() -> None:
    frame = SpatialPlan(kind="resize", side=256, native=(600, 600))
    default = models.spec("efficientnet_lite0_upernet").default_variant
    assert fit_model(request("efficientnet_lite0_upernet", 1), frame, "auto")[0].variant == default
    assert fit_model(request("efficientnet_lite0_upernet", 80), frame, "auto")[0].variant == "wide"


def test_the_benchmark_protocol_keeps_variant_size_and_batch_and_reports_what_does_not_fit() -> None:
    fit, decisions = fit_model(
        request("unet", 6), SpatialPlan(kind="resize", side=512, native=(600, 600), square=True), "benchmark"
    )
    assert (fit.variant, fit.input_size) == (models.spec("unet").default_variant, (512, 512))
    assert fit.accumulate > 1 and fit.fits
    assert f"in {fit.accumulate} parts" in decisions[-1].reason
    fit, decisions = fit_model(
        request("unet", 0.5), SpatialPlan(kind="resize", side=512, native=(600, 600), square=True), "benchmark"
    )
    assert not fit.fits and "larger machine" in decisions[-1].reason


def test_quick_takes_a_small_variant_of_a_large_network() -> None:
    fit, decisions = fit_model(request("unet", 8), SpatialPlan(kind="resize", side=256, native=(600, 600)), "quick")
    assert fit.variant == "16" and "GFLOP" in decisions[0].reason
    fit, _ = fit_model(
        request("efficientnet_lite0_upernet", 8), SpatialPlan(kind="resize", side=256, native=(600, 600)), "quick"
    )
    assert fit.variant == "light"


@pytest.mark.skipif("hiformer" not in models.names(), reason="no network with a fixed size is registered")
def test_images_are_stored_at_a_fixed_size() -> None:
    assert models.spec("hiformer").fixed_size == 224
    assert fit_model(request("hiformer", 8), SpatialPlan(kind="resize", side=256, native=(600, 600)), "quick")[
        0
    ].input_size == (
        224,
        224,
    )
