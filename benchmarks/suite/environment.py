"""Where nnU-Net v2 is: this interpreter or another one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ASK = "import importlib.metadata as m; print(m.version('nnunetv2'))"


@dataclass(frozen=True)
class Sides:
    """How both sides are started. theirs: the Python that has nnU-Net v2. threads: of OpenMP, in each process."""

    theirs: str
    device: str
    threads: int

    def ours(self) -> dict[str, str]:
        """The environment of autoseg's commands."""
        return {**os.environ, **self._alike()}

    def nnunet(self, root: Path) -> dict[str, str]:
        """The environment of nnU-Net's commands: its three folders; as many processes as cores, not its 8, which helps it."""
        left = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        folders = {
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "theirs"),
            "nnUNet_results": str(root / "theirs_results"),
        }
        return {**left, **self._alike(), "nnUNet_def_n_proc": str(cores()), **folders}

    def _alike(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(python: str) -> str:
    """Of nnU-Net v2 in that interpreter, "" where it is not installed."""
    left = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=False, env=left)
    return done.stdout.strip() if done.returncode == 0 else ""


def device() -> str:
    """cuda where our torch has one."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
