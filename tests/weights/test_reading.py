"""Checkpoint files of every form that is published, and those that are refused. Nothing in a file is executed."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autoseg.support.errors import AutosegError
from autoseg.weights.reading import read_tensors

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}
CALLED: list[str] = []


def same(tensors: dict[str, torch.Tensor]) -> bool:
    return set(tensors) == set(TENSORS) and all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def save(content: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture
def save_with_config(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Saves an instance of a class as of yacs or mmengine: a dictionary with attributes, in a module that is gone later."""

    def save_it(path: Path, module: str, name: str, legacy: bool) -> None:
        made = type(name, (dict,), {"__module__": module})
        fake = types.ModuleType(module)
        setattr(fake, name, made)
        with monkeypatch.context() as patch:
            for parent in (module.rpartition(".")[0], module.partition(".")[0]):
                patch.setitem(sys.modules, parent, types.ModuleType(parent))
            patch.setitem(sys.modules, module, fake)
            config = made(MODEL={"NAME": "x"})
            config.frozen = True
            save({"model": TENSORS, "config": config}, path, legacy)

    return save_it


class Calls:
    """Its pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def leave_a_trace(text: str) -> str:
    CALLED.append(text)
    return text


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors", ""])
def test_safetensors_is_recognised_by_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(TENSORS, path)
    assert same(read_tensors(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_are_recognised_by_content(tmp_path: Path, suffix: str, legacy: bool) -> None:
    assert same(read_tensors(save(TENSORS, tmp_path / f"weights{suffix}", legacy)))


@pytest.mark.parametrize(
    "key",
    [
        "state_dict", "model", "net", "model_state_dict", "model_ema", "state_dict_ema", "params", "params_ema", "backbone",
        "encoder",
    ],
)  # fmt: skip
def test_wrappers_are_opened(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    assert same(read_tensors(save({"epoch": 3, key: TENSORS, "optimizer": optimizer}, tmp_path / "w.pth")))


def test_wrappers_inside_wrappers_are_opened(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    assert same(read_tensors(save({"model": {"state_dict": {"encoder": wrapped}}}, tmp_path / "w.pth")))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    last = {name: -tensor for name, tensor in TENSORS.items()}
    assert same(read_tensors(save({"model": last, "model_ema": TENSORS}, tmp_path / "w.pth")))


def test_parts_beside_each_other_keep_their_names(tmp_path: Path) -> None:
    """Nothing is left out silently."""
    path = save({"backbone": {"a": torch.ones(1)}, "decode_head": {"b": torch.ones(2)}}, tmp_path / "w.pth")
    assert set(read_tensors(path)) == {"backbone.a", "decode_head.b"}
    save({"encoder": {"a": torch.ones(1)}, "scale": torch.ones(2)}, path)
    assert set(read_tensors(path)) == {"encoder.a", "scale"}


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1e-3, model="x"),
        types.SimpleNamespace(lr=1e-3),
        np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.array([1.0, 2.0]), np.dtype("float32"),
        Path("logs"), datetime.datetime(2021, 1, 1), defaultdict(list, {"a": [1]}), OrderedDict(a=1), {1, 2}, range(3),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_plain_values_beside_the_weights_do_not_matter(tmp_path: Path, beside: Any, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    assert same(read_tensors(save({"model": TENSORS, "args": beside}, path, legacy)))
    assert same(read_tensors(save({"model": TENSORS, "meta": {"inner": [beside, (beside,)]}}, path, legacy)))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [("yacs.config", "CfgNode"), ("mmengine.config.config", "ConfigDict"), ("their_code.options", "Options")],
)
def test_configuration_objects_do_not_matter(
    tmp_path: Path, save_with_config: Callable[..., None], module: str, name: str, legacy: bool
) -> None:
    save_with_config(tmp_path / "w.pth", module, name, legacy)
    assert same(read_tensors(tmp_path / "w.pth"))
    assert module not in sys.modules


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("call", [(leave_a_trace, "x"), (os.system, "true"), (eval, "1"), (getattr, "x", "upper")])
def test_a_call_is_refused_and_not_made(tmp_path: Path, call: tuple[Any, ...], legacy: bool) -> None:
    path = save({"model": TENSORS, "args": Calls(*call)}, tmp_path / "w.pth", legacy)
    with pytest.raises(AutosegError, match="contains more than tensors and was not opened"):
        read_tensors(path)
    assert not CALLED


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("safe", [True, False])
def test_floats_become_float32(tmp_path: Path, kind: torch.dtype, safe: bool) -> None:
    tensors = {"a": torch.tensor([0.5, 3.0], dtype=kind), "count": torch.tensor([7])}
    (save_file if safe else torch.save)(tensors, tmp_path / "w")
    read = read_tensors(tmp_path / "w")
    assert read["a"].dtype == torch.float32 and read["a"].tolist() == [0.5, 3.0]
    assert read["count"].dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "is a pointer of Git LFS"),
        (b"", "is not a readable checkpoint"),
        (b"random bytes that are no checkpoint", "is not a readable checkpoint"),
        (b"PK\x03\x04 a broken archive", "is not a readable checkpoint"),
        ((1 << 40).to_bytes(8, "little") + b'{"a":', "is not a readable checkpoint"),
        ((5).to_bytes(8, "little") + b'{"a":', "is not a readable safetensors file"),
        (pickle.dumps([1, 2], protocol=2), "is not a readable checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mit_b3.pth"
    path.write_bytes(content)
    with pytest.raises(AutosegError, match=message):
        read_tensors(path)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_cut_file_is_an_error_of_the_user(tmp_path: Path, form: str, cut: float) -> None:
    path = tmp_path / "w"
    tensors = {"a": torch.ones(500)}
    if form == "safetensors":
        save_file(tensors, path)
    else:
        save(tensors, path, legacy=form == "legacy")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(AutosegError, match="download"):
        read_tensors(path)


def test_what_holds_no_named_tensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for content in ({"epoch": 3}, {"model": {}}, {}, torch.nn.Linear(2, 2)):
        with pytest.raises(AutosegError, match="no named tensors"):
            read_tensors(save(content, path))
    with pytest.raises(AutosegError, match="contains a list, not named tensors"):
        read_tensors(save([torch.ones(2)], path))
    with pytest.raises(AutosegError, match="no weights file"):
        read_tensors(tmp_path / "missing")


def test_files_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = save({"a": torch.zeros(1, dtype=torch.float16).expand(1 << 40)}, tmp_path / "wide.pth")
    with pytest.raises(AutosegError, match="a claims more values than the file holds"):
        read_tensors(path)
    with pytest.raises(AutosegError, match="a is a sparse tensor"):
        read_tensors(save({"a": torch.eye(3).to_sparse()}, path))
    save(TENSORS, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/data/more", bytes(300 << 20))
    with pytest.raises(AutosegError, match="would unpack to"):
        read_tensors(path)


def test_a_wrapper_that_holds_itself_is_no_endless_loop(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(AutosegError, match="is not a readable checkpoint"):
        read_tensors(save(content, tmp_path / "w.pth"))
