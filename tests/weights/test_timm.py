"""Weights of any timm encoder: listed, fetched, added, verified, exported and trained with, under the name `timm:NAME`."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from autoseg import api
from autoseg.cli import weights as command
from autoseg.models import registry
from autoseg.support.errors import AutosegError
from autoseg.weights.catalogue import parse_request, split_request
from autoseg.weights.pretrained import find_weights, load_weights
from tests.weights.server import serve

ENCODER = "vit_tiny_patch16_224.augreg_in21k"
MODEL, FILE = f"timm:{ENCODER}", f"timm/{ENCODER}/model.safetensors"


def save(path: Path) -> Path:
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: one.half().contiguous() for name, one in timm.create_model(ENCODER).state_dict().items()}, path)
    return path


def test_a_request_may_hold_a_colon() -> None:
    assert split_request(MODEL) == (MODEL, "") and split_request(f"{MODEL}:standard") == (MODEL, "standard")
    assert split_request("segformer:b3") == ("segformer", "b3")
    assert parse_request(f"{MODEL}:standard")[1] == "standard"
    with pytest.raises(AutosegError, match="has no variant 'large'"):
        parse_request(f"{MODEL}:large")


def test_list_shows_file_and_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list", MODEL, "--root", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert FILE in text and "Apache-2.0" in text and f"huggingface.co/timm/{ENCODER}" in text and "ImageNet-21k" in text


def test_fetched_verified_exported_and_loaded(tmp_path: Path) -> None:
    with serve() as mirror:
        mirror.files[f"/{FILE}"] = save(tmp_path / "made.safetensors").read_bytes()
        (record,) = api.fetch_weights(MODEL, mirror=mirror.url, root=tmp_path)
    assert record.path == FILE
    (check,) = api.verify_weights(tmp_path)
    assert check.fits == {f"{MODEL}:standard": pytest.approx(152, abs=30)} and not check.faults and check.known
    source = find_weights("auto", registry.spec(MODEL), "standard", tmp_path / "weights")
    assert source is not None
    network = registry.build(MODEL)
    report = load_weights(network, source)
    assert not [name for name in report.missing if name.startswith("encoder.")]
    assert set(report.dropped) == {"head.weight", "head.bias"}
    api.export_weights(tmp_path / "kit.zip", root=tmp_path)
    added = api.add_weights(tmp_path / "kit.zip", root=tmp_path / "offline")
    assert [one.path for one in added] == [FILE] and (tmp_path / "offline" / "weights" / FILE).is_file()


@pytest.mark.parametrize("folder", [f"timm/{ENCODER}", f"models--timm--{ENCODER}/snapshots/abc"])
def test_a_file_is_known_by_the_folder_of_its_repository(tmp_path: Path, folder: str) -> None:
    file = save(tmp_path / "copy" / folder / "model.safetensors")
    (record,) = api.add_weights(tmp_path / "copy", root=tmp_path / "folder")
    assert record.path == FILE
    (record,) = api.add_weights(file, root=tmp_path / "file")
    assert record.path == FILE


def test_a_file_without_a_telling_name_needs_the_model(tmp_path: Path) -> None:
    file = save(tmp_path / "mine" / "model.safetensors")
    with pytest.raises(AutosegError):
        api.add_weights(file, root=tmp_path)
    (record,) = api.add_weights(file, MODEL, root=tmp_path)
    assert record.path == FILE
    with pytest.raises(AutosegError, match="do not fit"):
        api.add_weights(save(tmp_path / "timm" / "resnet18.a1_in1k" / "model.safetensors"), root=tmp_path)


def test_a_folder_with_the_name_of_no_encoder_is_no_weights(tmp_path: Path) -> None:
    save(tmp_path / "weights" / "timm" / "no_such_encoder" / "model.safetensors")
    (check,) = api.verify_weights(tmp_path)
    assert not check.known and not check.fits
