"""The suite that compares with nnU-Net v2: what it counts, how it reckons, and one stage of it from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.suite import environment, images, processes, report
from benchmarks.suite.measuring import Run, joined, summary
from benchmarks.suite.stages import BARE, FEW, NNUNET, OURS, STAGES, Side, Stage
from tests.test_architecture import LONGEST_FILE, REPOSITORY

SIDE = Side(("true",), {})


def runs(*seconds: float) -> list[Run]:
    return [Run(cpu, 2 * cpu, int(1e8 * cpu)) for cpu in seconds]


def stage(**changed: object) -> Stage:
    sides = dict.fromkeys((OURS, NNUNET, BARE, OURS + FEW), SIDE)
    return Stage(**{"title": "t", "sides": sides, "per": "run", "against": 4.0, "above": 2.0, **changed})  # type: ignore[arg-type]


def test_time_and_memory_of_children_count() -> None:
    child = "import time; a = bytearray(200 << 20)\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    ended = processes.run([sys.executable, "-c", code])
    assert ended.code == 0 and ended.output == "done\n"
    assert ended.cpu >= 0.5 and ended.memory > 200 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_time_of_processes_that_outlive_the_command_counts() -> None:
    child = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    assert processes.run([sys.executable, "-c", code]).cpu >= 0.5


def test_packages_are_compiled_before_they_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    venv.create(tmp_path, with_pip=False, symlinks=True)
    python = tmp_path / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    (packages / "module.py").write_text("pass")
    environment.compile_packages(str(python))
    assert [*packages.glob("__pycache__/module.*.pyc")]
    assert not environment.Sides(str(python), "cpu", 1).ours()["PYTHONDONTWRITEBYTECODE"]


def test_a_command_that_fails_ends_the_benchmark_with_its_words() -> None:
    with pytest.raises(SystemExit, match="who knows"):
        processes.must(processes.run([sys.executable, "-c", "raise SystemExit('who knows')"]), "asking")


def test_start_up_is_taken_away_before_the_bare_passes_are_compared() -> None:
    measured = {
        OURS: runs(5.0, 7.0, 6.0), NNUNET: runs(20.0, 35.0, 30.0), BARE: runs(2.0, 2.0, 2.0), OURS + FEW: runs(2.0, 2.0, 2.0),
    }  # fmt: skip
    result = summary(stage(), measured)
    # Pair by pair: 4, 5, 5 times cheaper; (6 - 2) / 2 times the bare passes.
    assert result["times_cheaper"] == pytest.approx({"cpu": 5.0, "wall": 5.0, "memory": 5.0})
    assert result["times_bare"] == pytest.approx(2.0)
    assert "| 5.0, 5.0 (4) | 2 s (4 s) | 2.00 (2) |" in report.table({"t": result})
    assert result["met"] == {"times_cheaper": True, "times_bare": True}
    assert summary(stage(above=None), measured)["times_bare"] is None


def test_what_is_missed_is_said(tmp_path: Path) -> None:
    measured = {OURS: runs(5.0), NNUNET: runs(5.0), BARE: runs(1.0), OURS + FEW: runs(1.0)}
    first = {"help": summary(stage(), measured)}
    merged = report.merge(tmp_path / "p.json", {"cores": 2}, first, list(STAGES))
    assert json.loads((tmp_path / "p.json").read_text())["stages"]["help"]["machine"] == {"cores": 2}
    assert report.table(merged).count("missed") == 2, report.table(merged)
    second = report.merge(tmp_path / "p.json", {"cores": 4}, {"evaluate": first["help"]}, list(STAGES))
    assert [one["machine"]["cores"] for one in second.values()] == [2, 4]
    report.plot(second, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_pairs_can_be_added_to_those_measured_before() -> None:
    names = (OURS, NNUNET)
    first = summary(stage(above=None), {name: runs(2.0) for name in names})
    both = joined(json.loads(json.dumps(first["runs"])), {name: runs(4.0, 6.0) for name in names})
    assert summary(stage(above=None), both)["medians"][OURS]["cpu"] == 4.0 and both[OURS][0] == runs(2.0)[0]


def test_a_stage_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--stages", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and "no stage nonsense" in done.stderr and "evaluate" in done.stderr


def test_the_images_are_the_same_every_time_and_of_each_kind() -> None:
    for kind, (channels, dtype) in images.KINDS.items():
        image, label = images.draw(kind, 3, 40, 60)
        again, _ = images.draw(kind, 3, 40, 60)
        assert image.dtype == dtype and image.shape == label.shape + ((3,) if channels == 3 else ())
        assert np.array_equal(image, again) and set(np.unique(label)) == {0, 1, 2}
        assert image.max() > np.iinfo(dtype).max / 3


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_files_hold_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("stages", [("evaluate",), pytest.param(("step-fp32", "train", "predict"), marks=pytest.mark.slow)])
def test_quick_runs_from_end_to_end(stages: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2", reason="nnU-Net v2 is not installed: pip install '.[bench]'")
    words = ["--quick", "--stages", ",".join(stages), "--root", str(tmp_path / "root")]
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "root" / "performance.json").read_text())["stages"]
    assert tuple(written) == stages
    for name in stages:
        assert all(side["cpu"] > 0 and side["memory"] > 0 for side in written[name]["medians"].values())
    assert done.stdout.count("nnU-Net v2") == 1 and (tmp_path / "root" / "pictures" / "performance.png").is_file()
    if "predict" in stages:
        (agreed,) = (tmp_path / "root" / "theirs_results").glob("*/agreed.json")
        assert json.loads(agreed.read_text())["difference"] < 1e-4
        assert len(list((tmp_path / "root" / "theirs_masks").glob("*.png"))) == 4
