"""The converter of documentation/add_a_dataset.md, as the package the page shows, on images drawn by its layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import read_label
from tests.documentation import pages

PAGE = "add_a_dataset.md"
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eyes")
    return pages.install(pages.write(folder / "my-package", pages.files(PAGE)), folder / "installed")


def draw(folder: Path, size: tuple[int, int] = (64, 80)) -> dict[str, np.ndarray]:
    """Photographs and coloured masks of patients p1, p2 and p9; returns case -> expected label map."""
    truth = {}
    for number, patient in enumerate(("p1", "p2", "p9")):
        for eye in ("left", "right"):
            random = np.random.default_rng(10 * number + len(eye))
            mask = np.zeros(size, np.uint8)
            cv2.line(mask, (5, 5), (70, int(random.integers(20, 60))), 1, 3)
            cv2.line(mask, (5, 60), (70, int(random.integers(5, 20))), 2, 3)
            place = folder / patient
            place.mkdir(parents=True, exist_ok=True)
            photo = random.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            assert cv2.imwrite(str(place / f"{eye}_photo.png"), photo)
            assert cv2.imwrite(str(place / f"{eye}_mask.png"), COLOURS[mask][..., ::-1])
            truth[f"{patient}_{eye}"] = mask
    return truth


def test_example_converts_its_layout(package: Path, tmp_path: Path) -> None:
    truth = draw(tmp_path / "eyes")
    output = pages.run([*pages.commands(PAGE, "autoseg_convert"), "autoseg_convert --list"], tmp_path, package)
    raw = tmp_path / "root" / "raw" / "Dataset501_Eyes"
    for case, mask in truth.items():
        part = "Ts" if case.startswith("p9") else "Tr"
        np.testing.assert_array_equal(read_label(raw / f"labels{part}" / f"{case}.png").array, mask)
    spec = json.loads((raw / "dataset.json").read_text())
    assert spec["labels"] == {"background": 0, "artery": 1, "vein": 2} and spec["modality"] == "fundus"
    assert spec["groups"] == {case: case.split("_")[0] for case in truth}
    assert "whom to cite" in output


def test_errors_are_listed_as_on_the_page(package: Path, tmp_path: Path) -> None:
    draw(tmp_path / "eyes")
    mask = tmp_path / "eyes" / "p1" / "left_mask.png"
    cv2.imwrite(str(mask), np.zeros((64, 81, 3), np.uint8))
    output = pages.fails(pages.commands(PAGE, "autoseg_convert")[0], tmp_path, package)
    text = (pages.REPOSITORY / "documentation" / PAGE).read_text(encoding="utf-8")
    (shown,) = re.findall(r"```\n(Dataset501_Eyes was not written\n.*?)```", text, re.DOTALL)
    assert shown in output
    assert not list((tmp_path / "root" / "raw").glob("Dataset*"))


def test_help_shows_the_docstring_of_the_script(package: Path, tmp_path: Path) -> None:
    code = "from autoseg.cli.convert import main\ntry:\n    main(['eyes', '--help'])\nexcept SystemExit:\n    pass\n"
    assert "The retina dataset of our clinic" in pages.run_code(code, tmp_path, package)
