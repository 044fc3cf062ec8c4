"""The Python with nnU-Net v2, and the environments of both programs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ASK = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
_COMPILE = "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"


@dataclass(frozen=True)
class Sides:
    """Settings of both programs. theirs: the Python with nnU-Net v2. threads: OpenMP threads per process."""

    theirs: str
    device: str
    threads: int

    def ours(self) -> dict[str, str]:
        """The environment of autoseg's commands."""
        return {**os.environ, **self._alike()}

    def nnunet(self, root: Path) -> dict[str, str]:
        """The environment of nnU-Net's commands: its three folders; one process per core instead of its 8, which is faster."""
        left = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        folders = {
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "theirs"),
            "nnUNet_results": str(root / "theirs_results"),
        }
        return {**left, **self._alike(), "nnUNet_def_n_proc": str(cores()), **folders}

    def _alike(self) -> dict[str, str]:
        # Empty: bytecode is written, whatever the environment says.
        return {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": ""}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def version(python: str, distribution: str = "nnunetv2") -> str:
    """Version of a distribution in that interpreter, "" if not installed."""
    left = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", _ASK, distribution], capture_output=True, text=True, check=False, env=left)
    return done.stdout.strip() if done.returncode == 0 else ""


def compile_packages(python: str) -> None:
    """Write the bytecode of all packages of that interpreter, as pip does when it installs them. uv does not; with
    PYTHONDONTWRITEBYTECODE each start would then compile all it imports, which takes longer than the imports."""
    subprocess.run([python, "-c", _COMPILE], check=True)


def device() -> str:
    """cuda if available."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
