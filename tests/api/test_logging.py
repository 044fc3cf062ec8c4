"""As a library autoseg is silent and changes no other logger; commands show messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.support.log import configure_logging, progress_bar
from tests import generated

# Conversion, plan and scores of four cases: messages of both packages, and a warning (too few cases for five folds).
PROGRAM = """
import logging, sys
from pathlib import Path
{setup}
OTHERS = ("somebody", "highdicom", "matplotlib", "PIL", "tifffile", "cv2")
for name in OTHERS:
    logging.getLogger(name).setLevel(logging.DEBUG)

def state():
    loggers = {{name: logging.getLogger(name) for name in (None, *OTHERS)}}
    return {{name: (one.level, one.propagate, one.disabled, repr(one.handlers)) for name, one in loggers.items()}}

before = state()
from autoseg import api
folder, root = Path(sys.argv[1]), Path(sys.argv[1]) / "root"
report = api.convert_folders(folder / "images", folder / "masks", "Tiny", labels=["background", "lesion"], root=root)
api.plan_and_preprocess("Tiny", protocol="quick", models=["efficientnet_lite0_upernet"], device="cpu", root=root)
(folder / "images" / "lesion_000.png").unlink()
(folder / "masks" / "lesion_000.png").rename(folder / "images" / "stranger.png")
for path in (folder / "masks").iterdir():
    (folder / "images" / path.name).write_bytes(path.read_bytes())
assert api.evaluate(folder / "images", folder / "masks").overall["micro.dice"] == 1
assert state() == before, (before, state())
"""


def run_program(folder: Path, setup: str) -> subprocess.CompletedProcess[str]:
    generated.write_folders(folder, "lesion", 4)
    # A warning of torch about torchvision; a library must not silence it.
    command = [sys.executable, "-W", "ignore::FutureWarning:torch.jit._script", "-c", PROGRAM.format(setup=setup), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def test_library_is_silent_and_changes_no_other_logger(tmp_path: Path) -> None:
    result = run_program(tmp_path, "")
    assert (result.stdout, result.stderr) == ("", "")


def test_configured_logging_shows_module_names(tmp_path: Path) -> None:
    setup = "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(levelname)s %(name)s')"
    result = run_program(tmp_path, setup)
    lines = set(result.stdout.splitlines())
    assert {"INFO autoseg.api.planning", "WARNING autoseg.planning.splits", "INFO autoseg.evaluation.evaluate"} <= lines
    assert result.stderr == ""


def test_commands_show_messages_and_the_level_of_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()
    logging.getLogger("autoseg.some.module").info("50 % done")
    logging.getLogger("dataset_conversion.run").warning("look here")
    logging.getLogger("autoseg.some.module").debug("not shown")
    logging.getLogger("another.library").info("not ours")
    assert capsys.readouterr() == ("", "50 % done\nwarning: look here\n")


def test_progress_bars_need_configured_logging(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    logging.getLogger("autoseg").setLevel(logging.INFO)
    assert list(progress_bar(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    configure_logging(logging.WARNING)
    assert list(progress_bar(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    configure_logging()
    assert list(progress_bar(range(3), "counting")) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err
