"""What a run starts from: required by the benchmark, recorded, and never with another normalisation without a word."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.api import runner
from autoseg.models.published_weights import PublishedWeights, direct
from autoseg.schema.plan import Normalisation, Plan
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file, write_artefact
from autoseg.training import checkpoint
from autoseg.training.initial_weights import missing_weights, warn_other_normalisation
from autoseg.training.lr_search import with_searched_rate
from autoseg.training.train_fold import starting_weights, train_fold
from autoseg.weights.store import WeightsFolder, new_record
from tests.training import tiny

FREE = direct("https://files.example.org/free.pth", trained_on="ImageNet-1k", licence="MIT")
NOT_FREE = direct("https://files.example.org/not_free.pth", trained_on="ImageNet-22k", licence="NC-1.0")


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training never fetches."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    with_weights(monkeypatch, NOT_FREE, FREE)


def with_weights(monkeypatch: pytest.MonkeyPatch, *weights: PublishedWeights) -> None:
    monkeypatch.setattr(tiny, "SPEC", replace(tiny.SPEC, weights=weights))


def put(root: Path, weights: PublishedWeights) -> Path:
    torch.manual_seed(1)
    path = root / "weights" / weights.path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tiny.build("one", 1, 3).state_dict()}, path)
    return path


def prepared(root: Path, pretrained: str = "auto", **changes: Any) -> tuple[Any, Plan, Any]:
    dataset, plan, splits = tiny.prepare(root)
    plan = tiny.with_training(tiny.with_model(plan, pretrained=pretrained), epochs=1)
    return dataset, replace(plan, **changes), splits


def train(root: Path, pretrained: str | None = None, **changes: Any) -> RunRecord:
    dataset, plan, splits = prepared(root, **changes)
    return train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu", pretrained=pretrained)


def test_the_benchmark_does_not_start_a_pretrained_model_from_random_weights(tmp_path: Path, published: None) -> None:
    message = r"does not start from random weights:\n.*Tiny one(.|\n)*autoseg_weights fetch --plan 701(.|\n)*--pretrained none"
    with pytest.raises(SeveralProblems, match=message):
        train(tmp_path, protocol="benchmark")
    dataset, plan, splits = prepared(tmp_path, protocol="benchmark")
    with pytest.raises(SeveralProblems, match=message):
        searched = tiny.with_training(plan, search_epochs=1, learning_rates=(1e-2, 1e-3))
        with_searched_rate(dataset, searched, splits, tiny.NAME, device="cpu")
    assert not (tmp_path / "results" / "Dataset701_Discs" / tiny.NAME / "fold_0" / checkpoint.RECORD).exists()
    assert train(tmp_path, "none", protocol="benchmark").pretrained == ""


def test_a_grid_of_the_benchmark_finds_out_before_its_first_job(tmp_path: Path, published: None) -> None:
    dataset, plan, splits = prepared(tmp_path, protocol="benchmark")
    write_artefact(dataset.plan, plan)
    write_artefact(dataset.splits, splits)
    with pytest.raises(SeveralProblems, match="does not start from random weights"):
        runner._require_weights(dataset, {tiny.NAME}, {}, None)
    runner._require_weights(dataset, {tiny.NAME}, {}, "none")
    runner._require_weights(dataset, {tiny.NAME}, {f"models.{tiny.NAME}.pretrained": "none"}, None)
    put(tmp_path, FREE)
    runner._require_weights(dataset, {tiny.NAME}, {}, None)


def test_other_protocols_start_with_one_line(tmp_path: Path, published: None, caplog: pytest.LogCaptureFixture) -> None:
    assert train(tmp_path, protocol="quick").weights == ()
    lines = [record.message for record in caplog.records if "random weights" in record.message]
    assert len(lines) == 1 and "autoseg_weights fetch tiny:one" in lines[0]


def test_the_record_says_file_hash_licence_and_source(tmp_path: Path, published: None) -> None:
    path = put(tmp_path, NOT_FREE)
    record = train(tmp_path, protocol="benchmark")
    (weights,) = record.weights
    assert (weights.file, weights.licence, weights.trained_on) == ("not_free.pth", "NC-1.0", "ImageNet-22k")
    assert weights.sha256 == hash_file(path) and record.pretrained == "ImageNet-22k (not_free.pth)"


def test_a_plan_for_commercial_use_takes_no_other_weights(tmp_path: Path, published: None) -> None:
    put(tmp_path, NOT_FREE)
    dataset, plan, _ = prepared(tmp_path, licence="commercial")
    assert list(missing_weights(dataset, plan, [tiny.NAME])) == [tiny.NAME]
    assert train(tmp_path, licence="commercial").weights == ()
    put(tmp_path, FREE)
    other = tmp_path / "other"
    put(other, FREE)
    put(other, NOT_FREE)
    assert [one.licence for one in train(other, licence="commercial").weights] == ["MIT"]


def test_a_file_that_has_changed_is_not_trained_with(tmp_path: Path, published: None) -> None:
    path = put(tmp_path, FREE)
    WeightsFolder(path.parent).keep(path, new_record(FREE, "0" * 64, 5, "elsewhere"))
    with pytest.raises(AutosegError, match="free.pth has changed since it was fetched or added"):
        train(tmp_path)


def test_another_normalisation_than_that_of_the_weights_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    half = replace(FREE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with_weights(monkeypatch, NOT_FREE, half)
    put(tmp_path, half)
    dataset, plan, _ = prepared(tmp_path)
    imagenet = Normalisation(scheme="constant", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    source = starting_weights(dataset, plan, tiny.NAME, None)
    warn_other_normalisation(replace(plan.models[tiny.NAME], normalisation=imagenet), source)
    assert "free.pth was trained with mean 0.5/0.5/0.5" in caplog.text and "plan again" in caplog.text
    caplog.clear()
    warn_other_normalisation(plan.models[tiny.NAME], source)
    assert not caplog.text, "the statistics of the images are right for any weights"
