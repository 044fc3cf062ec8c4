from unittest.mock import create_autospec

import pytest
import torch

from autoseg.inference import precision


@pytest.mark.parametrize("has_bf16", [True, False])
def test_cpus_use_bf16_only_if_they_support_it(monkeypatch, has_bf16):
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: has_bf16)
    device = torch.device("cpu")
    assert precision.usable("bf16", device) == (torch.bfloat16 if has_bf16 else None)
    with precision.autocast("bf16", device):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_bf16 else torch.float32)


def test_cpus_never_use_fp16():
    assert precision.usable("fp16", torch.device("cpu")) is None
    assert precision.usable("fp32", torch.device("cpu")) is None
    assert precision.usable("fp32", torch.device("cuda")) is None


def test_other_devices_use_fp16():
    assert precision.usable("fp16", torch.device("cuda")) is torch.float16
    assert precision.usable("fp16", torch.device("mps")) is torch.float16


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_gpu_uses_bf16_only_if_it_supports_it(monkeypatch, has_bf16):
    # The mock accepts only arguments that this PyTorch version's function accepts.
    mock = create_autospec(torch.cuda.is_bf16_supported, return_value=has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", mock)
    assert precision.usable("bf16", torch.device("cuda")) == (torch.bfloat16 if has_bf16 else None)
    mock.assert_called_once_with(including_emulation=False)


def test_without_torchs_cpu_checks_bf16_is_not_used(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert precision.usable("bf16", torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("planned", "device", "has_bf16", "expected"),
    [
        ("bf16", "cpu", True, "fp32"),
        ("bf16", "cpu", False, "fp32"),
        ("fp16", "cpu", True, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cuda", True, "bf16"),
        ("bf16", "cuda", False, "fp32"),
        ("fp16", "cuda", False, "fp16"),
        ("fp16", "mps", False, "fp16"),
        ("bf16", "mps", True, "fp32"),
    ],
)
def test_prediction_is_in_fp32_on_processors_and_as_planned_on_gpus(monkeypatch, planned, device, has_bf16, expected):
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert precision.for_prediction(planned, torch.device(device)) == expected
