from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch

from autoseg.planning import hardware
from autoseg.support.errors import AutosegError


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 << 30), ("512M", 512 << 20), ("1.5g", 3 << 29), ("8GiB", 8 << 30), ("8 GB", 8 << 30), ("1000000", 1000000)],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert hardware.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "0G", "-4G", "8X", "8G8"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(AutosegError, match="no amount of memory"):
        hardware.parse_memory(text)


def test_devices() -> None:
    assert hardware.resolve_device("cuda:1") == "cuda"
    assert hardware.resolve_device("auto") in hardware.DEVICES
    for name in ("tpu", "cuda:", "cuda:x", "cpu:0:1", "mps:"):
        with pytest.raises(AutosegError, match="no device"):
            hardware.resolve_device(name)


@pytest.mark.parametrize("device", hardware.DEVICES)
def test_there_is_always_a_budget(device: str) -> None:
    budget, because = hardware.default_budget(device)
    assert budget > 1 << 28 and "--memory" in because


def test_precision_follows_the_machine_and_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "processor_has_bf16", lambda: True)
    assert hardware.decide_precision("cpu", True, "m")[0] == "bf16"
    monkeypatch.setattr(hardware, "processor_has_bf16", lambda: False)
    assert hardware.decide_precision("cpu", True, "m")[0] == "fp32"
    assert hardware.decide_precision("cuda", True, "m")[0] in ("bf16", "fp16")
    for device in hardware.DEVICES:
        precision, decision = hardware.decide_precision(device, False, "m")
        assert precision == "fp32" and "unstable" in decision.reason and decision.subject == "models.m.precision"


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_decides_by_its_chip_and_its_own_memory(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # The stand-in takes what this PyTorch's own function takes, and nothing else.
    supported = create_autospec(torch.cuda.is_bf16_supported, return_value=has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    gpus = [SimpleNamespace(total_memory=(10 << 30) * (1 + number), name=f"Stand-in {number}") for number in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware.resolve_device("auto") == "cuda"
    assert hardware.decide_precision("cuda", True, "m")[0] == precision
    for device, number in {"cuda": 0, "cuda:0": 0, "cuda:1": 1}.items():
        budget, because = hardware.default_budget(device)
        assert budget == (9 << 30) * (1 + number) and gpus[number].name in because
    with pytest.raises(AutosegError, match="no cuda:2: PyTorch finds 2"):
        hardware.default_budget("cuda:2")
