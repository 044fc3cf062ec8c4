from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.support.workspace import Workspace
from tests.omnimodel import mock_server
from tests.omnimodel.mock_server import KEY, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with mock_server.running() as running:
        yield running


def bright_box(index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """RGB (48, 64, 3) of a bright box on tissue, and its mask."""
    rng = np.random.default_rng(index)
    mask = np.zeros((48, 64), np.uint8)
    mask[10 + index : 30 + index, 20:44] = 1
    image = np.where(mask[..., None], [230, 190, 180], [90, 50, 45]) + rng.integers(-4, 5, (48, 64, 1))
    return image.astype(np.uint8), mask


@pytest.fixture
def polyps(tmp_path: Path) -> Path:
    """A root with a converted dataset of three images; the original images are in <root>/../images."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        image, mask = bright_box(index)
        cv2.imwrite(str(tmp_path / "images" / f"polyp_{index}.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / "masks" / f"polyp_{index}.png"), mask)
    root = tmp_path / "root"
    api.convert_folders(tmp_path / "images", tmp_path / "masks", "Polyps", labels=["background", "polyp"], root=root)
    assert Workspace.at(root).dataset("Polyps").number == 501
    return root
