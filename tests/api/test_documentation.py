"""The Python blocks of README.md and documentation/python.md run as printed, on generated images."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from autoseg import api
from autoseg.schema.frame import Tabular
from tests import generated

REPOSITORY = Path(__file__).parent.parent.parent
# A line that shows what an expression looks like: `plan  # Plan(...`
_SHOWN = re.compile(r"^(\w+) +# (\w+\(\w+)", re.MULTILINE)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads, a number that no default sets."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


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


def process_state() -> dict[str, object]:
    """State that belongs to the calling program."""
    mask = os.umask(0o22)
    os.umask(mask)
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "umask": mask,
        "folder": Path.cwd(),
        # Some parts of torch and scikit-learn set these on import.
        "variables": {name: value for name, value in os.environ.items() if not name.startswith(("TORCHINDUCTOR", "KMP_"))},
        "threads": (torch.get_num_threads(), cv2.getNumThreads()),
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": (torch.backends.cudnn.benchmark, torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "pillow": PIL.Image.MAX_IMAGE_PIXELS,
        "garbage": gc.get_threshold(),
        "hooks": (sys.excepthook, threading.excepthook, sys.gettrace()),
        "loggers": (logging.root.level, list(logging.root.handlers)),
    }


def test_python_page_runs(folders: Path, capsys: pytest.CaptureFixture[str], two_threads: None) -> None:
    names: dict[str, Any] = {}
    before = process_state()
    for block in blocks("documentation/python.md"):
        exec(compile(block, "documentation/python.md", "exec"), names)
        for expression, begin in _SHOWN.findall(block):
            assert repr(names[expression]).startswith(begin), expression
    after = process_state()
    assert {name: value for name, value in after.items() if value != before[name]} == {}
    assert "did you mean segformer" in capsys.readouterr().out
    assert names["mask"].shape == (120, 160) and [one.shape for one in names["masks"]] == [(120, 160), (64, 160)]
    assert names["maps"].shape == (2, 120, 160)
    assert list(names["worst"]["class"]) == ["polyp"] * 3 and names["table"]["dice"].min() == names["worst"]["dice"].iloc[0]
    assert np.array_equal(names["shared"](names["image"]), names["mask"])
    check_results(names)


def check_results(names: dict[str, Any]) -> None:
    """Results of the session have a one-line text, a data frame and a table."""
    results = {name: value for name, value in names.items() if isinstance(value, Tabular)}
    assert set(results) == {"plan", "folds", "scores", "report"}
    results["fingerprint"] = api.fingerprint("Polyp")
    results["models"] = api.model_table()
    results["decisions"] = api.decisions(names["plan"])
    results["exported"] = api.export("Polyp", "efficientnet_lite0_upernet", "again.zip")
    results["converted"] = api.convert_folders("photos", "masks", "Other", labels=["background", "polyp"], dry_run=True)
    rows = {"plan": 1, "scores": 3, "report": 3, "fingerprint": 20, "exported": 1, "converted": 2}
    for name, value in results.items():
        assert "\n" not in repr(value) and len(repr(value)) < 250, name
        frame = value.to_frame()
        assert len(frame) == rows.get(name, len(frame)) > 0, name
        assert value._repr_html_().count("<tr>") > 1 and "<table>" in value._repr_html_()
    assert "20 cases of 1 class, colour" in repr(results["fingerprint"])
    assert re.fullmatch(r"Scores\(3 cases, 1 class: mDSC 0\.\d{3}, per image 0\.\d{3}\)", repr(results["scores"]))
    assert "3 masks by efficientnet_lite0_upernet: " in repr(results["report"]) and "0 failed" in repr(results["report"])


def test_readme_blocks_run(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With settings for a short training."""
    (block,) = blocks("README.md")
    api.convert_folders("photos", "masks", "Polyp", labels=["background", "polyp"])
    few = {"training.epochs": 1, "models.segformer.input_size": "64x64", "models.segformer.variant": "b0"}
    monkeypatch.setattr(api, "plan_and_preprocess", partial(api.plan_and_preprocess, settings=few))
    names: dict[str, Any] = {"array": generated.draw("lesion", 0)[0]}
    exec(compile(block, "README.md", "exec"), names)
    assert names["mask"].shape == names["array"].shape[:2]
