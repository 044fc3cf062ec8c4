from __future__ import annotations

import pytest
import torch

from autoseg.support.errors import AutosegError
from autoseg.training.device import resolve


def test_the_processor_is_always_there():
    assert resolve("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve("auto").type == expected


@pytest.mark.parametrize(("device", "said"), [
    ("cuda", "no CUDA device.*--device cpu"), ("mps", "no Apple GPU.*--device cpu"), ("gpu", "no device 'gpu'.*choose"),
    ("meta", "does not run on 'meta'.*choose"),
])
def test_what_is_not_there_is_said_with_a_remedy(monkeypatch, device, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(AutosegError, match=f"(?s){said}"):
        resolve(device)


def test_a_card_that_is_not_plugged_in(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve("cuda:1") == torch.device("cuda:1")
    with pytest.raises(AutosegError, match="there is no cuda:2: PyTorch sees 2 CUDA devices"):
        resolve("cuda:2")
