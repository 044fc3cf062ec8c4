"""Features of a frozen encoder are computed once, shared by folds and trials, and never used for another encoder or image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autoseg.models import registry
from autoseg.preprocessing.array_dataset import ArrayDataset, array_writer
from autoseg.schema.features import FeatureIndex
from autoseg.schema.plan import Augmentation, Fold, Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import cached_features, checkpoint
from autoseg.training.cached_features import FOLDER, cached_loader
from autoseg.training.step import Step
from autoseg.training.train_fold import train_fold
from tests.training import tiny, with_encoder
from tests.training.with_encoder import NAME, WithEncoder

VIEWS = 3


class Counting(WithEncoder):
    """Counts the images that go through the encoder in evaluation mode, without gradients: those that are encoded once."""

    images = 0

    def encoder_maps(self, x: Tensor) -> list[Tensor]:
        Counting.images += len(x)
        return super().encoder_maps(x)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(with_encoder, "WithEncoder", Counting)
    Counting.images = 0
    MODELS.add(NAME, with_encoder.MODULE)  # type: ignore[arg-type]
    yield
    MODELS.remove(NAME)


def prepare(root: Path, **changes: Any) -> tuple[Dataset, Plan, Splits]:
    with_encoder.put_weights(root)
    return with_encoder.prepare(root, **{"encoder_rate": 0.0, "cached_views": VIEWS, **changes})


def train(dataset: Dataset, plan: Plan, splits: Splits, fold: int = 0, **options: Any) -> RunRecord:
    return train_fold(dataset, plan, splits, NAME, fold, device="cpu", **options)


def weights(dataset: Dataset, fold: int = 0) -> dict[str, Tensor]:
    return checkpoint.load_network(dataset.fold(NAME, fold)).network.state_dict()


def folders(dataset: Dataset) -> list[Path]:
    return sorted((dataset.preprocessed / FOLDER / NAME).iterdir())


def test_each_view_is_encoded_once_and_the_decoder_learns(tmp_path: Path) -> None:
    dataset, plan, splits = prepare(tmp_path, learning_rate=0.1)
    record = train(dataset, tiny.with_training(plan, epochs=30), splits)
    assert record.status == "finished" and record.micro_dice > 0.2
    # One more finds out the shapes.
    assert Counting.images == len(splits.folds[0].train) * VIEWS + 1
    (folder,) = folders(dataset)
    index = read_artefact(folder / "index.json", FeatureIndex)
    assert index.views == VIEWS and index.maps == ((8, 16, 16),) and index.image == (1, 32, 32)
    assert np.load(folder / "done.npy").sum() == len(splits.folds[0].train) * VIEWS
    assert np.load(folder / "maps_0.npy", mmap_mode="r").dtype == np.float16


def test_other_folds_encode_only_what_is_new_to_them(tmp_path: Path) -> None:
    dataset, plan, splits = prepare(tmp_path)
    other = replace(splits, folds=(*splits.folds, Fold(tiny.CASES[3:], tiny.CASES[:3])))
    train(dataset, plan, other)
    before = Counting.images
    train(dataset, plan, other, fold=1)
    assert Counting.images - before == 3 * VIEWS and len(folders(dataset)) == 1
    before = Counting.images
    train(dataset, tiny.with_training(plan, epochs=3), other, fold=1, restart=True)
    assert Counting.images == before, "a longer training sees the same views"


def brighten(dataset: Dataset, plan: Plan) -> None:
    """Make the arrays again, from other images."""
    (config,) = plan.preprocessing.values()
    store = ArrayDataset.open(dataset.array_folder(config.key))
    arrays = {case: (store.image(case) // 2, np.array(store.label(case)), store.original_size(case)) for case in store.cases}
    with array_writer(dataset.array_folder(config.key), config, "other") as writer:
        for case, parts in arrays.items():
            writer.add(case, *parts)


@pytest.mark.parametrize("what", ["weights", "augmentation", "views", "images", "normalisation"])
def test_features_of_anything_else_are_removed(tmp_path: Path, what: str) -> None:
    dataset, plan, splits = prepare(tmp_path)
    train(dataset, plan, splits)
    (old,) = folders(dataset)
    (dataset.preprocessed / FOLDER / NAME / "notes").mkdir()
    if what == "weights":
        path = tmp_path / "weights" / with_encoder.WEIGHTS.path
        torch.save({key: one * 1.01 if one.is_floating_point() else one for key, one in torch.load(path).items()}, path)
    elif what == "augmentation":
        plan = tiny.with_training(plan, augmentation=Augmentation(p_noise=1.0))
    elif what == "images":
        brighten(dataset, plan)
        plan = replace(plan, content_hash="other")
    elif what == "views":
        plan = replace(plan, models={NAME: replace(plan.models[NAME], cached_views=2)})
    else:
        normal = replace(plan.models[NAME].normalisation, mean=(90.0,))
        plan = replace(plan, models={NAME: replace(plan.models[NAME], normalisation=normal)})
    before = Counting.images
    train(dataset, plan, splits, restart=True)
    assert Counting.images > before and not old.exists()
    assert len([one for one in folders(dataset) if one.name != "notes"]) == 1
    assert (dataset.preprocessed / FOLDER / NAME / "notes").is_dir(), "what autoseg did not write stays"


def test_without_augmentation_the_decoder_learns_what_it_learns_without_a_cache(tmp_path: Path) -> None:
    """Up to the rounding of half precision."""
    still = Augmentation(
        mirror=(), p_rotation=0, p_scaling=0, p_noise=0, p_blur=0, p_brightness=0, p_contrast=0, p_low_resolution=0, p_gamma=0
    )
    learned = []
    for views in (0, 1):
        dataset, plan, splits = prepare(tmp_path / str(views), cached_views=views)
        train(dataset, tiny.with_training(plan, augmentation=still), splits)
        learned.append(weights(dataset))
    for name, one in learned[0].items():
        torch.testing.assert_close(one, learned[1][name], rtol=2e-2, atol=2e-3)
    assert not torch.equal(learned[0]["head.weight"], learned[1]["head.weight"])


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, plan, splits = prepare(tmp_path / "unbroken")
    train(dataset, tiny.with_training(plan, epochs=4), splits)
    whole = weights(dataset)
    dataset, plan, splits = prepare(tmp_path / "resumed")
    original, calls = Step.__call__, iter(range(100))

    def stop_in_the_second_epoch(self: Step, *arguments: Any) -> float | None:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Step, "__call__", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tiny.with_training(plan, epochs=4), splits)
    monkeypatch.undo()
    monkeypatch.setattr(with_encoder, "WithEncoder", Counting)
    before = Counting.images
    train(dataset, tiny.with_training(plan, epochs=4), splits)
    assert Counting.images == before, "the encoder of a resumed run is the same"
    assert all(torch.equal(one, whole[name]) for name, one in weights(dataset).items())


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    dataset, plan, splits = prepare(tmp_path)
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loader(dataset, plan, splits).prepare(interrupt)
    done = Counting.images
    again = loader(dataset, plan, splits)
    again.prepare()
    assert 1 < done < 1 + len(splits.folds[0].train) * VIEWS
    assert Counting.images == 1 + len(splits.folds[0].train) * VIEWS


def loader(dataset: Dataset, plan: Plan, splits: Splits) -> Any:
    torch.manual_seed(0)
    network, model = registry.build(NAME, None, 1, 3), plan.models[NAME]
    store, scheme = ArrayDataset.open(dataset.array_folder(model.preprocessing)), tiny_scheme(dataset)
    return cached_loader(
        store, network, splits.folds[0].train, model, plan.training, scheme, device=torch.device("cpu")
    )


def tiny_scheme(dataset: Dataset) -> Any:
    from autoseg.io.raw_dataset import read_description

    return read_description(dataset.description).label_scheme()


def test_batches_are_those_of_the_encoder(tmp_path: Path) -> None:
    dataset, plan, splits = prepare(tmp_path)
    cached = loader(dataset, plan, splits)
    cached.prepare()
    torch.manual_seed(0)
    network = registry.build(NAME, None, 1, 3).eval()
    batches = list(cached.epoch(0))
    assert len(batches) == cached.steps_per_epoch
    assert [one.cases for one in cached.epoch(0, 1)] == [one.cases for one in batches[1:]]
    for batch in batches:
        inputs = (batch.images.float() - 100.0) / 60.0
        with torch.no_grad():
            torch.testing.assert_close(batch.maps[0].float(), network.encoder_maps(inputs)[0], rtol=2e-3, atol=2e-3)
    seen = {case for epoch in range(3) for batch in cached.epoch(epoch) for case in batch.cases}
    assert seen == set(splits.folds[0].train)
    first, second = ([one.images for one in cached.epoch(epoch)] for epoch in (0, 1))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_too_many_views_are_refused_with_the_number_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, plan, splits = prepare(tmp_path)
    one_view = len(tiny.CASES) * (8 * 16 * 16 * 2 + 32 * 32 + 32 * 32)
    monkeypatch.setattr(cached_features, "LIMIT", 2 * one_view + 10)
    with pytest.raises(AutosegError, match=r"would take .* GiB; the limit is(.|\n)*cached_views=2"):
        train(dataset, plan, splits)
    assert not (dataset.preprocessed / FOLDER / NAME).exists() or not folders(dataset)
    monkeypatch.setattr(cached_features, "LIMIT", one_view - 10)
    with pytest.raises(AutosegError, match="cached_views=0"):
        train(dataset, plan, splits)


def test_only_split_networks_and_frozen_encoders_have_features(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="not split into encoder and decoder"):
        registry.build("segformer", "b0").encoder_maps(torch.zeros(1, 3, 64, 64))
    _, plan, _ = prepare(tmp_path, encoder_rate=1.0)
    assert any("cached_views: expected 0 unless the encoder is frozen" in problem for problem in plan.problems())
