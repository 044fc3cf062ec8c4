from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.cli.study import main


def test_the_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert "borst_kounev_2026" in shown and "zhang_2025" in shown
    assert main([]) == 0 and capsys.readouterr().out == shown


def test_what_is_missing_ends_the_command_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["borst_kounev_2026", "--root", str(tmp_path / "root")]) == 2
    shown = capsys.readouterr().err
    for part in ("NeoPolyp", "CAMUS", "ISIC2018", "weights: segformer b3", "weights: unet 64", "hours and memory"):
        assert part in shown, part
    assert "Traceback" not in shown and not (tmp_path / "root").exists()


def test_check_prints_the_same_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zhang_2025", "--check", "--mock-service", "--root", str(tmp_path / "root")]) == 2
    shown = capsys.readouterr().out
    assert "data: FIVES" in shown and "service" not in shown
    assert "nothing is planned yet; some things are missing" in " ".join(shown.split())


def test_faults_of_a_file_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("study: 1\nname: [")
    assert main([str(tmp_path / "mine.yaml"), "--root", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error:") and "is no YAML: line 2" in shown and "Traceback" not in shown
