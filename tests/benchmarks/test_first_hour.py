"""README's five commands are understood by the commands, and the benchmark plays exactly these."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

from benchmarks.first_hour import NEW_IMAGES, commands, describe, lay_out
from tests import generated

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


class Called(Exception):
    pass


def test_there_are_five_commands_from_images_to_scores() -> None:
    programs = [line.split()[0] for line in commands(README)]
    assert programs == [
        "autoseg_convert", "autoseg_plan_and_preprocess", "autoseg_train", "autoseg_predict", "autoseg_evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize("line", commands(README))
def test_each_command_reaches_the_program(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []

    def record(*arguments: object, **options: object) -> None:
        calls.append(options)
        raise Called

    for name in ("convert_folders", "plan_and_preprocess", "train", "predict", "evaluate"):
        monkeypatch.setattr(f"autoseg.api.{name}", record, raising=False)
    program, *arguments = shlex.split(line)
    command = importlib.import_module(f"autoseg.cli.{program.removeprefix('autoseg_')}")
    with pytest.raises(Called):
        command.main(arguments)
    assert len(calls) == 1
    if program == "autoseg_plan_and_preprocess":
        hours = calls[0]["hours"]
        assert isinstance(hours, float) and 0 < hours < 0.1


def test_folders_of_the_benchmark(tmp_path: Path) -> None:
    generated.write_folders(tmp_path / "set", "lesion", 14)
    lay_out(tmp_path / "set", tmp_path / "work", 3)
    counts = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "work").iterdir()}
    assert counts == {"photos": 3, "masks": 3, "new_photos": NEW_IMAGES, "reference_masks": NEW_IMAGES}
    names = [{path.name for path in (tmp_path / "work" / folder).iterdir()} for folder in ("photos", "new_photos")]
    assert not names[0] & names[1]


def test_results_in_words() -> None:
    row = {"dice": {"polyp": 0.71234}, "planned_seconds": 200, "real_seconds": 180}
    assert describe(row) == "polyp 0.712, planned 200 s, trained 180 s"
