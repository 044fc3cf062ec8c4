"""Every model with published weights: its official names and shapes, fetched, verified, loaded, and one training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg import api
from autoseg.models import registry
from autoseg.models.base import ModelOutput
from autoseg.support.extensions import MODELS
from autoseg.weights.pretrained import find_weights, load_weights
from tests.weights.official import SMALL, first_files, save_official
from tests.weights.server import Server, serve


@pytest.fixture(scope="module")
def mirror() -> Iterator[Server]:
    with serve() as state:
        yield state


LARGE = {"hiformer", "swin_umamba", "transnext", "internimage", "mask2former", "unet"}


@pytest.mark.parametrize("model", [pytest.param(one, marks=[pytest.mark.slow] if one in LARGE else []) for one in SMALL])
def test_official_names_and_shapes_are_fetched_verified_loaded_and_trained(
    model: str, tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant, module = SMALL[model], MODELS.get(model)
    # Generated values have other hashes, and no package stands in for the file.
    weights = tuple(replace(one, sha256="", size=0, package="") for one in module.SPEC.weights)
    monkeypatch.setattr(module, "SPEC", replace(module.SPEC, weights=weights))
    files = list(first_files(model))
    for one in files:
        if f"/{one.path}" not in mirror.files:
            mirror.files[f"/{one.path}"] = save_official(one, tmp_path / "made" / one.path).read_bytes()
    records = api.fetch_weights(f"{model}:{variant}", mirror=mirror.url, root=tmp_path)
    assert {record.path for record in records} == {one.path for one in files}
    for check in api.verify_weights(tmp_path):
        assert f"{model}:{variant}" in check.fits or check.fits, check.faults
    source = find_weights("study", registry.spec(model), variant, tmp_path / "weights")
    assert source is not None and len(source.paths) == len(files)
    network = registry.build(model, variant)
    report = load_weights(network, source)
    assert len(report.loaded) > 30
    take_a_step(network.train())


def take_a_step(network: torch.nn.Module) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    output = network(torch.randn(2, 3, 64, 64))
    assert isinstance(output, ModelOutput)
    target = torch.zeros(2, 2, 64, 64)
    target[:, 0] = 1
    if output.own_loss is not None:
        loss = output.own_loss(target, torch.ones(2, 1, 64, 64))
    else:
        loss = torch.nn.functional.cross_entropy(output.logits, target.argmax(dim=1))
    loss.backward()
    optimizer.step()
    assert bool(torch.isfinite(loss)) and all(bool(torch.isfinite(one).all()) for one in network.parameters())
