from unittest.mock import create_autospec

import pytest
import torch

from autoseg.inference import precision


@pytest.mark.parametrize("has", [True, False])
def test_processors_get_bf16_only_where_they_have_it(monkeypatch, has):
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: has)
    device = torch.device("cpu")
    assert precision.usable("bf16", device) == (torch.bfloat16 if has else None)
    with precision.autocast("bf16", device):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has else torch.float32)


def test_processors_never_get_fp16_and_fp32_stays():
    assert precision.usable("fp16", torch.device("cpu")) is None
    assert precision.usable("fp32", torch.device("cpu")) is None
    assert precision.usable("fp32", torch.device("cuda")) is None


def test_other_devices_get_fp16():
    assert precision.usable("fp16", torch.device("cuda")) is torch.float16
    assert precision.usable("fp16", torch.device("mps")) is torch.float16


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_gets_bf16_only_where_its_chip_has_it(monkeypatch, has):
    # The stand-in takes what this PyTorch's own function takes, and nothing else.
    supported = create_autospec(torch.cuda.is_bf16_supported, return_value=has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert precision.usable("bf16", torch.device("cuda")) == (torch.bfloat16 if has else None)
    supported.assert_called_once_with(including_emulation=False)


def test_a_torch_without_the_tests_counts_as_without_bf16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert precision.usable("bf16", torch.device("cpu")) is None
