"""The Python blocks of README.md and documentation/python.md run as printed, on generated images."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg import api
from autoseg.schema.frame import Tabular
from tests import generated

REPOSITORY = Path(__file__).parent.parent.parent
# A line that shows what an expression looks like: `plan  # Plan(...`
_SHOWN = re.compile(r"^(\w+) +# (\w+\(\w+)", re.MULTILINE)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos and masks to train with, new_photos and reference_masks, in the current folder."""
    images, masks = generated.write_folders(tmp_path / "drawn", "lesion", 20)
    images.rename(tmp_path / "photos")
    masks.rename(tmp_path / "masks")
    for source, target in (("photos", "new_photos"), ("masks", "reference_masks")):
        (tmp_path / target).mkdir()
        for path in sorted((tmp_path / source).iterdir())[:3]:
            shutil.copy(path, tmp_path / target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOSEG_ROOT", raising=False)
    return tmp_path


def test_the_page_on_python_runs_from_top_to_bottom(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks("documentation/python.md"):
        exec(compile(block, "documentation/python.md", "exec"), names)
        for expression, begin in _SHOWN.findall(block):
            assert repr(names[expression]).startswith(begin), expression
    assert "did you mean segformer" in capsys.readouterr().out
    assert names["mask"].shape == (120, 160) and [one.shape for one in names["masks"]] == [(120, 160), (64, 160)]
    assert names["maps"].shape == (2, 120, 160)
    assert list(names["worst"]["class"]) == ["polyp"] * 3 and names["table"]["dice"].min() == names["worst"]["dice"].iloc[0]
    assert np.array_equal(names["shared"](names["image"]), names["mask"])
    check_results(names)


def check_results(names: dict[str, Any]) -> None:
    """What the session holds describes itself in one line, and has a frame and a table."""
    found = {name: value for name, value in names.items() if isinstance(value, Tabular)}
    assert set(found) == {"plan", "folds", "scores", "report"}
    found["fingerprint"] = api.fingerprint("Polyp")
    found["models"] = api.model_table()
    found["decisions"] = api.decisions(names["plan"])
    found["exported"] = api.export("Polyp", "efficientnet_lite0_upernet", "again.zip")
    found["converted"] = api.convert_folders("photos", "masks", "Other", labels=["background", "polyp"], dry_run=True)
    rows = {"plan": 1, "scores": 3, "report": 3, "fingerprint": 20, "exported": 1, "converted": 2}
    for name, value in found.items():
        assert "\n" not in repr(value) and len(repr(value)) < 250, name
        frame = value.to_frame()
        assert len(frame) == rows.get(name, len(frame)) > 0, name
        assert value._repr_html_().count("<tr>") > 1 and "<table>" in value._repr_html_()
    assert "20 cases of 1 class, colour" in repr(found["fingerprint"])
    assert re.fullmatch(r"Scores\(3 cases, 1 class: Dice 0\.\d{3} pooled, 0\.\d{3} per image\)", repr(found["scores"]))
    assert "3 masks by efficientnet_lite0_upernet: " in repr(found["report"]) and "0 failed" in repr(found["report"])


def test_the_blocks_of_the_readme_run(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a plan for the smallest budget: what is run is what is printed."""
    (block,) = blocks("README.md")
    api.convert_folders("photos", "masks", "Polyp", labels=["background", "polyp"])
    few = {"training.epochs": 1, "models.segformer.input_size": "64x64", "models.segformer.variant": "b0"}
    monkeypatch.setattr(api, "plan_and_preprocess", partial(api.plan_and_preprocess, settings=few))
    names: dict[str, Any] = {"array": generated.draw("lesion", 0)[0]}
    exec(compile(block, "README.md", "exec"), names)
    assert names["mask"].shape == names["array"].shape[:2]
