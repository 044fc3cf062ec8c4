"""Energy of a training, from a folder of counters like Linux'."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoseg.schema.run import RunRecord, energy_text, sum_of_energy
from autoseg.support.files import read_artefact
from autoseg.training import energy
from autoseg.training.energy import EnergyMeter
from tests.training import tiny
from tests.training.test_extension import extend
from tests.training.test_train_fold import folder_of

CPU = torch.device("cpu")
RANGE = 262_143_328_850


def zone(folder: Path, name: str, kind: str, microjoules: int) -> Path:
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", kind), ("energy_uj", microjoules), ("max_energy_range_uj", RANGE)):
        (path / file).write_text(f"{text}\n")
    return path


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    for number in (0, 1):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1_000_000)
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
        zone(tmp_path, name, kind, 0)
    meter = EnergyMeter(CPU, tmp_path)
    assert meter.parts == ("processor",)
    for name in ("intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        (tmp_path / name / "energy_uj").write_text("99000000\n")
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3000000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("2500000\n")
    assert meter.added_to({"processor": 10.0}) == {"processor": pytest.approx(13.5)}
    assert meter.added_to({"processor": 0.0}) == {"processor": 0.0}


def test_a_counter_wraps_around(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 4_000_000)
    meter = EnergyMeter(CPU, tmp_path)
    (package / "energy_uj").write_text("1000000\n")
    assert meter.added_to({"processor": 0.0}) == {"processor": pytest.approx(5.0)}


@pytest.mark.parametrize("fault", ["no folder", "no packages", "not readable", "no number", "no range"])
def test_what_the_machine_does_not_tell_is_not_known(tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "powercap"
    if fault != "no folder":
        path = zone(folder, "intel-rapl:0", "dram" if fault == "no packages" else "package-0", 5)
        if fault == "not readable":
            # As for a user without the right to read, whatever user runs the test.
            (path / "energy_uj").unlink()
            (path / "energy_uj").mkdir()
        elif fault != "no packages":
            (path / ("energy_uj" if fault == "no number" else "max_energy_range_uj")).write_text("?")
    meter = EnergyMeter(CPU, folder)
    assert meter.parts == () and meter.added_to({"processor": 3.0}) == {} and not caplog.records


def test_a_part_that_stops_telling_is_left_out(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = EnergyMeter(CPU, tmp_path)
    (package / "energy_uj").unlink()
    assert meter.added_to({"processor": 3.0}) == {}


def test_the_gpu_in_use_is_found_by_its_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"GPU-b": 1000}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: used[handle],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="b"))
    meter = EnergyMeter(torch.device("cuda"), tmp_path)
    used["GPU-b"] = 3500
    assert meter.added_to({"GPU": 1.0}) == {"GPU": pytest.approx(3.5)}
    assert EnergyMeter(CPU, tmp_path).parts == ()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(torch.device("cuda"), tmp_path).parts == ()


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.training.plot.draw", lambda folder, *arguments: (folder / "progress.png").touch())


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_that_goes_on_has_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]

    def number(path: Path) -> int:
        """Each look at the counter finds two joules more."""
        looks[0] += 1
        return looks[0] * 2_000_000 if path.name == "energy_uj" else RANGE

    monkeypatch.setattr(energy, "_RAPL", zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 0).parent)
    monkeypatch.setattr(energy, "_number", number)
    first = tiny.train(tmp_path)
    assert first.energy["processor"] >= 2
    assert read_artefact(folder_of(tmp_path) / "run.json", RunRecord).energy == first.energy
    second = extend(tmp_path, 5)
    assert second.energy["processor"] >= first.energy["processor"] + 2
    # On a machine that does not tell, the sum is not known any more, also not later.
    monkeypatch.setattr(energy, "_RAPL", tmp_path / "nothing")
    assert extend(tmp_path, 6).energy == {}
    monkeypatch.setattr(energy, "_RAPL", tmp_path / "powercap")
    assert extend(tmp_path, 7).energy == {}


def test_texts() -> None:
    assert energy_text({}) == "" and energy_text({"processor": 1.8e6, "GPU": 1.8e6}) == "1 kWh (processor and GPU)"
    assert sum_of_energy([{"processor": 1.0, "GPU": 2.0}, {"processor": 3.0}]) == {"processor": 4.0}
    assert sum_of_energy([{"processor": 1.0}, {}]) == {} == sum_of_energy([])
