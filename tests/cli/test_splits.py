from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.cli.splits import main
from tests.api.test_splits import canonical, dataset, pictures


@pytest.fixture
def root(tmp_path: Path) -> Path:
    canonical(dataset(tmp_path / "root", {f"case{k:02d}": one for k, one in enumerate(pictures())}))
    return tmp_path / "root"


def test_show_export_and_check(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Shapes", "--root", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "validated" in shown and "canonical rule, seed 0" in shown
    file = tmp_path / "folds.txt"
    assert main(["Shapes", "--root", str(root), "--export", str(file), "--without-names"]) == 0
    folds = capsys.readouterr().out.strip().rpartition(" ")[2]
    assert folds in shown and f"id: {folds}" in file.read_text() and "case00" not in file.read_text()
    assert main(["Shapes", "--root", str(root), "--check", str(file)]) == 0
    assert f"next: autoseg_plan_and_preprocess Shapes --splits {file} --root" in capsys.readouterr().out


def test_differences_are_listed_with_code_1(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "folds.txt"
    main(["Shapes", "--root", str(root), "--export", str(file)])
    fewer = {f"case{k:02d}": one for k, one in enumerate(pictures()) if k}
    dataset(tmp_path / "fewer", fewer)
    capsys.readouterr()
    assert main(["Shapes", "--root", str(tmp_path / "fewer"), "--check", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "  missing: case00 (" in shown and "next:" not in shown


def test_without_a_plan_the_command_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path, {f"c{k}": one for k, one in enumerate(pictures()[:3])})
    assert main(["501", "--root", str(tmp_path)]) == 2
    assert "autoseg_plan_and_preprocess 501" in capsys.readouterr().err
