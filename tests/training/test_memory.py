from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from autoseg.training import memory

CPU = torch.device("cpu")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets an earlier peak")
def test_the_peak_is_seen_after_it_is_gone_and_forgotten_when_asked():
    memory.begin(CPU)
    before = memory.peak()
    block = np.ones(12_000_000)
    block.sum()
    del block
    during = memory.peak()
    assert before > 1 << 20 and during - before > 64_000_000
    memory.begin(CPU)
    assert memory.peak() < during - 32_000_000


def test_other_devices_than_cuda_have_no_peak_of_their_own():
    assert memory.device_peak(CPU) == 0


def test_a_system_without_proc_tells_the_peak_of_the_whole_life(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    assert memory.peak() > 1 << 20
