"""An encoder with a rate of its own, layer by layer or frozen; what its plan says and what a training does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.schema.plan import ModelPlan, Normalisation, Plan, Training
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS
from autoseg.support.files import read_artefact
from autoseg.training import checkpoint
from autoseg.training.config_hash import config_hash
from autoseg.training.optim import learning_rate_at, learning_rate_of, make_optimizer, set_learning_rate
from autoseg.training.train_fold import train_fold
from tests.training import tiny, with_encoder
from tests.training.with_encoder import NAME, WithEncoder

TRAINING = Training(epochs=1, loss="ce", learning_rates=(0.1,), optimizer="sgd", weight_decay=0.5)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    MODELS.add(NAME, with_encoder.MODULE)  # type: ignore[arg-type]
    yield
    MODELS.remove(NAME)


def model_plan(**changes: Any) -> ModelPlan:
    plan = ModelPlan(
        model=NAME, variant="one", input_size=(32, 32), batch_size=4, accumulate=1, precision="fp32", pretrained="auto",
        learning_rate=0.1, warmup_epochs=0, normalisation=Normalisation(scheme="image"), preprocessing="k", parameters=0,
        flops=0, memory=0,
    )  # fmt: skip
    return replace(plan, **changes)


def rates(network: SegmentationNetwork, **changes: Any) -> dict[str, tuple[float, float]]:
    """Parameter -> learning rate and weight decay of its group, at a rate of 0.1."""
    optimizer = make_optimizer(network, TRAINING, 0.1, model_plan(**changes))
    set_learning_rate(optimizer, 0.1)
    assert learning_rate_of(optimizer) == pytest.approx(0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = optimizer.param_groups
    found = {names[id(one)]: (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    return found


def test_all_parts_learn_alike_by_default_in_the_same_two_groups() -> None:
    network = WithEncoder(1, 2)
    before, now = (make_optimizer(network, TRAINING, 0.1, plan).param_groups for plan in (None, model_plan()))
    assert [[id(one) for one in group["params"]] for group in before] == [[id(one) for one in group["params"]] for group in now]
    assert len(now) == 2 and not any("lr_scale" in group for group in now)


def test_the_encoder_and_its_layers_have_factors_and_the_decay_is_the_models() -> None:
    found = rates(WithEncoder(1, 2), encoder_rate=0.5, layer_decay=0.8, weight_decay=0.05)
    assert found["head.weight"] == (pytest.approx(0.1), 0.05) and found["head.bias"] == (pytest.approx(0.1), 0.0)
    assert found["encoder.3.weight"] == (pytest.approx(0.04), 0.05) and found["encoder.4.weight"] == (pytest.approx(0.04), 0.0)
    assert found["encoder.0.weight"] == (pytest.approx(0.032), 0.05)
    assert set(found) == {name for name, _ in WithEncoder(1, 2).named_parameters()}


def test_the_layers_of_a_transformer_are_its_blocks() -> None:
    """As in timm's `param_groups_layer_decay`: the decoder has the full rate, the last block and norm one factor less."""
    network = registry.build("timm:test_vit")
    depth = len(network.encoder.model.blocks)  # type: ignore[union-attr]
    found = rates(network, layer_decay=0.5)
    assert found["classify.weight"][0] == pytest.approx(0.1) == found["pyramid.neck.levels.1.weight"][0]
    assert found["encoder.model.norm.weight"][0] == pytest.approx(0.05)
    for block in range(depth):
        assert found[f"encoder.model.blocks.{block}.mlp.fc1.weight"][0] == pytest.approx(0.1 * 0.5 ** (depth - block))
    assert found["encoder.model.patch_embed.proj.weight"][0] == pytest.approx(0.1 * 0.5 ** (depth + 1))
    assert found["encoder.model.pos_embed"][0] == pytest.approx(0.1 * 0.5 ** (depth + 1))


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (lambda: tiny.Tiny(1, 2, 8), {"encoder_rate": 0.5}, "has no encoder of its own"),
        (lambda: tiny.Tiny(1, 2, 8), {"layer_decay": 0.5}, "has no encoder of its own"),
        (lambda: registry.build("segformer", "b0"), {"layer_decay": 0.5}, "not told apart"),
    ],
)
def test_a_rate_for_a_part_that_is_not_there_is_refused(network: Any, changes: dict[str, float], message: str) -> None:
    with pytest.raises(AutosegError, match=message):
        make_optimizer(network(), TRAINING, 0.1, model_plan(**changes))


def test_a_frozen_encoder_does_not_change_and_has_no_optimiser_state() -> None:
    torch.manual_seed(0)
    network = WithEncoder(1, 2)
    network.freeze_encoder()
    optimizer = make_optimizer(network.train(), TRAINING, 0.1, model_plan(encoder_rate=0.0))
    before = {name: one.clone() for name, one in network.state_dict().items()}
    images = torch.randn(4, 1, 32, 32)
    first, second = network(images).logits, network(images).logits
    assert torch.equal(first, second), "dropout in the encoder is off"
    first.square().mean().backward()
    optimizer.step()
    changed = {name for name, one in network.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert len(optimizer.state) == 2 and all(one.grad is None for one in network.encoder.parameters())
    assert not network.encoder.training and network.head.training and not network.eval().head.training


def test_networks_without_an_encoder_cannot_freeze_it() -> None:
    with pytest.raises(AutosegError, match="no encoder of its own that could be frozen"):
        tiny.Tiny(1, 2, 8).freeze_encoder()


@pytest.mark.parametrize(("epochs", "share", "expected"), [(0, 0.0, 0), (0, 0.05, 20), (3, 0.05, 30), (1, 0.1, 40)])
def test_the_longer_warm_up_counts(epochs: int, share: float, expected: int) -> None:
    plan = model_plan(warmup_epochs=epochs, warmup_share=share)
    assert plan.warmup_steps(10, 400) == expected
    assert expected == 0 or learning_rate_at(expected // 2, 400, 1.0, "poly", expected) < 1.0


def train(root: Path, pretrained: str | None = None, **changes: Any) -> RunRecord:
    dataset, plan, splits = with_encoder.prepare(root, **changes)
    return train_fold(dataset, plan, splits, NAME, 0, device="cpu", pretrained=pretrained)


def trained(root: Path) -> tuple[dict[str, torch.Tensor], Plan]:
    folder = root / "results" / "Dataset701_Discs" / NAME / "fold_0"
    return checkpoint.load_network(folder).network.state_dict(), read_artefact(folder / checkpoint.PLAN, Plan)


def test_a_frozen_training_keeps_the_published_encoder_with_its_statistics(tmp_path: Path) -> None:
    published = with_encoder.put_weights(tmp_path)
    assert train(tmp_path, encoder_rate=0.0).status == "finished"
    weights, plan = trained(tmp_path)
    assert all(torch.equal(weights[name], one) for name, one in published.items())
    assert plan.models[NAME].encoder_rate == 0.0


def test_a_slow_encoder_moves_less_than_a_fast_one(tmp_path: Path) -> None:
    distances = {}
    for rate in (1.0, 0.01):
        published = with_encoder.put_weights(tmp_path / str(rate))
        train(tmp_path / str(rate), encoder_rate=rate)
        weights, _ = trained(tmp_path / str(rate))
        distances[rate] = float((weights["encoder.0.weight"] - published["encoder.0.weight"]).norm())
    assert 0 < distances[0.01] < 0.1 * distances[1.0]


def test_from_random_weights_the_encoder_learns_at_the_full_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(tmp_path, encoder_rate=0.1, layer_decay=0.8)
    assert (trained(tmp_path)[1].models[NAME].encoder_rate, trained(tmp_path)[1].models[NAME].layer_decay) == (1.0, 1.0)
    assert "learns as fast as the rest" in caplog.text


def test_a_rate_that_was_set_stays_from_random_weights(tmp_path: Path) -> None:
    dataset, plan, splits = with_encoder.prepare(tmp_path, encoder_rate=0.1)
    plan = replace(plan, overrides={f"models.{NAME}.encoder_rate": 0.1})
    train_fold(dataset, plan, splits, NAME, 0, device="cpu", pretrained="none")
    assert trained(tmp_path)[1].models[NAME].encoder_rate == 0.1


def test_a_frozen_encoder_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"its encoder is frozen(.|\n)*autoseg_weights fetch with_encoder:one"):
        train(tmp_path, encoder_rate=0.0)
    assert not (tmp_path / "results" / "Dataset701_Discs" / NAME / "fold_0" / checkpoint.RECORD).exists()


def test_plans_of_older_releases_are_the_same_run(tmp_path: Path) -> None:
    """The new fields are part of a run's identity only where they are not what older releases did."""
    dataset, plan, splits = with_encoder.prepare(tmp_path)
    scheme, split, model = read_scheme(dataset), splits.folds[0], plan.models[NAME]
    old = config_hash(plan, model, scheme, split, "")
    assert not {"encoder_rate", "layer_decay", "weight_decay", "warmup_share"} & set(old["model"].replace('"', " ").split())
    for changes in ({"encoder_rate": 0.5}, {"layer_decay": 0.5}, {"weight_decay": 0.1}, {"warmup_share": 0.1}):
        assert config_hash(plan, replace(model, **changes), scheme, split, "") != old


def read_scheme(dataset: Any) -> Any:
    from autoseg.io.raw_dataset import read_description

    return read_description(dataset.description).label_scheme()
