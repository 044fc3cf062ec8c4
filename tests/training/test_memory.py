from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from autoseg.training import memory

CPU = torch.device("cpu")


BLOCK = """
import numpy as np, torch
from autoseg.training import memory

def peak_after(work):
    memory.begin(torch.device("cpu"))
    work()
    return memory.peak()

print(peak_after(lambda: None), peak_after(lambda: np.ones(12_000_000).sum()), peak_after(lambda: None))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets an earlier peak")
def test_peak_is_reported_after_memory_is_freed_and_can_be_reset():
    # In a process of its own: what the tests before left free would be used first.
    ended = subprocess.run([sys.executable, "-c", BLOCK], capture_output=True, text=True, check=True)
    before, during, after = map(int, ended.stdout.split())
    assert before > 1 << 20 and during - before > 64_000_000
    assert after < during - 32_000_000


def test_only_cuda_has_a_device_peak():
    assert memory.device_peak(CPU) == 0


def test_system_without_proc_reports_the_lifetime_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    assert memory.peak() > 1 << 20
