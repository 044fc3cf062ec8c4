"""Memory that is let go is there for what comes next."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from autoseg.support.malloc import configure_glibc_malloc

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for side in range(1000, 1040):
        np.ones((side, side, 3), np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{hold}
faults()
print(faults())
"""


def faults(hold: str) -> int:
    ended = subprocess.run([sys.executable, "-c", CODE.format(hold=hold)], capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
@pytest.mark.parametrize("hold", ["configure_glibc_malloc(128 << 20)", "configure_glibc_malloc(None)"])
def test_arrays_of_growing_size_are_not_asked_of_the_system_again(hold: str) -> None:
    assert faults(hold) < faults("pass") / 10
