from __future__ import annotations

import pytest
import torch

from autoseg.support.errors import AutosegError
from autoseg.training.device import resolve


def test_cpu_is_always_available():
    assert resolve("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve("auto").type == expected


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "no CUDA device.*--device cpu"),
        ("mps", "no Apple GPU.*--device cpu"),
        ("gpu", "no device 'gpu'.*choose"),
        ("meta", "does not run on 'meta'.*choose"),
    ],
)
def test_missing_device_is_an_error_with_a_remedy(monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(AutosegError, match=f"(?s){message}"):
        resolve(device)


def test_missing_cuda_device_number_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve("cuda:1") == torch.device("cuda:1")
    with pytest.raises(AutosegError, match="there is no cuda:2: PyTorch finds 2 CUDA devices"):
        resolve("cuda:2")
