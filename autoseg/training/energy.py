"""Energy that a machine used during a training, where it tells: counters of the processors' packages and of the GPU.

The packages' counters (RAPL, Linux) are those of the whole machine: other programs are in them too, memory and power supply
are not. Most systems let only root read them; then nothing is known, which is no error.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import torch

_RAPL = Path("/sys/class/powercap")
# intel-rapl:0 is a package (of AMD too), intel-rapl:0:1 a part of it; intel-rapl-mmio:0 counts the same package again.
_ZONE = re.compile(r"intel-rapl:\d+")
# A counter gives the joules since its last call; None if it cannot be read.
Counter = Callable[[], float | None]


class EnergyMeter:
    """Joules since the start or the last call, by part ("processor", "GPU"); only parts that the machine tells."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        found = {"processor": _package_counter(folder or _RAPL), "GPU": _gpu_counter(device) if device.type == "cuda" else None}
        self._counters: dict[str, Counter] = {part: counter for part, counter in found.items() if counter is not None}

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._counters)

    def added_to(self, energy: dict[str, float]) -> dict[str, float]:
        """`energy` with what was used since the last call. Parts that are not known from the start to the end are left out.

        Call it at least every ten minutes: the counters wrap around, of large processors in that order of time.
        """
        used = {part: counter() for part, counter in self._counters.items()}
        return {part: before + now for part, before in energy.items() if (now := used.get(part)) is not None}


def _package_counter(folder: Path) -> Counter | None:
    try:
        zones = sorted(zone for zone in folder.iterdir() if _ZONE.fullmatch(zone.name))
    except OSError:
        return None
    # Besides packages there may be a zone "psys" of the whole board, which has them in it.
    packages = [zone for zone in zones if (_text(zone / "name") or "").startswith("package")]
    counters = [_zone_counter(zone) for zone in packages]
    if not counters or None in counters:
        return None

    def read() -> float | None:
        joules = [counter() for counter in counters if counter is not None]
        return None if None in joules else sum(one for one in joules if one is not None)

    return read


def _zone_counter(zone: Path) -> Counter | None:
    last, highest = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
    if last is None or not highest:
        return None
    before = last

    def read() -> float | None:
        nonlocal before
        now = _number(zone / "energy_uj")
        if now is None:
            return None
        used, before = (now - before if now >= before else now - before + highest), now
        return used / 1e6

    return read


def _gpu_counter(device: torch.device) -> Counter | None:
    """Of the device by its UUID, through pynvml if that is installed."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        before = int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except Exception:
        # No package, no driver, an older GPU without the counter: not known.
        return None

    def read() -> float | None:
        nonlocal before
        try:
            now = int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except Exception:
            return None
        # Millijoules since the driver was loaded; a reload begins again.
        used, before = now - before, now
        return used / 1e3 if used >= 0 else None

    return read


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None
