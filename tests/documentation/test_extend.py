"""The package that documentation/extend.md shows, built, installed, and used from conversion to comparison."""

from __future__ import annotations

import csv
import json
import math
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import read_label
from autoseg.schema.plan import Plan
from autoseg.schema.scores import Scores
from autoseg.support import extensions
from autoseg.support.files import read_artefact
from autoseg.support.registry import Registry
from tests.documentation import pages

PAGE = "extend.md"
SPACING = (0.5, 0.25)
ROWS, COLUMNS = 48, 64
_HELP = """
import importlib, sys
try:
    importlib.import_module("autoseg.cli.{command}").main(["--help"])
except SystemExit:
    pass
heavy = {{"torch", "numpy", "autoseg_example"}} & set(sys.modules)
assert not heavy, heavy
"""


def write_frame(path: Path, seed: int) -> np.ndarray:
    """A bright disc on noise, in the file format of the page. Returns its mask."""
    random = np.random.default_rng(seed)
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    cv2.circle(mask, (int(random.integers(20, 44)), int(random.integers(16, 32))), int(random.integers(6, 12)), 1, -1)
    pixels = (random.integers(0, 60, mask.shape) + 150 * mask).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<HHff", ROWS, COLUMNS, *SPACING) + pixels.tobytes())
    return mask


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extend")
    return pages.install(pages.write(folder / "autoseg-example", pages.files(PAGE)), folder / "installed")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, package: Path) -> tuple[Path, str]:
    """The folder of the page's commands, and their output."""
    folder = tmp_path_factory.mktemp("ward")
    for number in range(12):
        frame = folder / "frames" / f"p{number // 2}" / f"f{number}.frame"
        cv2.imwrite(str(frame.with_suffix(".png")), write_frame(frame, number) * 255)
    (folder / "new_references").mkdir()
    for number in range(20, 23):
        mask = write_frame(folder / "new_frames" / f"f{number}.frame", number)
        cv2.imwrite(str(folder / "new_references" / f"f{number}.png"), mask)
    output = pages.run(pages.commands(PAGE, "pip install"), folder, package)
    return folder, output


def test_every_registry_has_an_example_and_a_row(package: Path) -> None:
    text = (pages.REPOSITORY / "documentation" / PAGE).read_text()
    registries = [one for one in vars(extensions).values() if isinstance(one, Registry)]
    assert len(registries) == 8
    for registry in registries:
        assert f"| `{registry.group}` |" in text
        if registry is not extensions.MODELS:
            assert f'[project.entry-points."{registry.group}"]' in text, registry.kind


def test_dataset_is_converted_with_the_reader(session: tuple[Path, str]) -> None:
    raw = session[0] / "root" / "raw" / "Dataset501_Ward"
    assert sorted(path.name for path in (raw / "imagesTr").iterdir())[0] == "p0_f0_0000.mha"
    label = read_label(raw / "labelsTr" / "p0_f0.mha")
    assert label.spacing == SPACING and set(np.unique(label.array)) == {0, 1}
    assert json.loads((raw / "dataset.json").read_text())["modality"] == "ultrasound"


def test_plan_has_the_extensions(session: tuple[Path, str]) -> None:
    plan = read_artefact(session[0] / "root" / "preprocessed" / "Dataset501_Ward" / "plan.json", Plan)
    training = plan.training
    assert (training.loss, training.optimizer, training.schedule) == ("tversky", "radam", "cosine")
    assert training.augmentation.chain == "gentle"


def test_training_uses_the_extensions(session: tuple[Path, str]) -> None:
    run = session[0] / "root" / "results" / "Dataset501_Ward" / "unet" / "fold_0"
    rows = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all(0 < row["loss"] < 1 for row in rows), "a Tversky loss"
    with (run / "metrics.csv").open() as stream:
        assert [float(row["loss"]) for row in csv.DictReader(stream)] == pytest.approx([row["loss"] for row in rows], rel=1e-4)
    # The second epoch starts after half of all steps.
    assert rows[1]["learning_rate"] < 0.5 * rows[0]["learning_rate"], "half a cosine"


def test_masks_of_frames_keep_their_spacing(session: tuple[Path, str]) -> None:
    masks = sorted((session[0] / "new_masks").glob("*.mha"))
    assert [path.stem for path in masks] == ["f20", "f21", "f22"]
    assert read_label(masks[0]).spacing == SPACING and read_label(masks[0]).array.shape == (ROWS, COLUMNS)


def test_metric_is_in_scores_tables_and_ranking(session: tuple[Path, str]) -> None:
    folder, output = session
    scores = read_artefact(folder / "new_masks" / "scores.json", Scores)
    assert "diameter_error" in scores.definitions and "per_image.diameter_error" in scores.overall
    for case in scores.cases:
        (score,) = case.classes.values()
        predicted, expected = score.tp + score.fp, score.tp + score.fn
        diameters = [2 * math.sqrt(area / math.pi) for area in (predicted, expected)]  # The references have no spacing.
        assert score.added["diameter_error"] == pytest.approx(abs(diameters[0] - diameters[1]))
    with (folder / "new_masks" / "scores.csv").open() as stream:
        assert all(float(row["diameter_error"]) >= 0 for row in csv.DictReader(stream))
    comparison = folder / "root" / "results" / "Dataset501_Ward" / "comparison"
    assert ",per_image,diameter_error," in (comparison / "comparison.csv").read_text()
    assert "diameter_error of images" in (comparison / "report.html").read_text() and "diameter_error" in output


def test_help_lists_names_without_importing_them(package: Path, tmp_path: Path) -> None:
    """Of autoseg and of the package; and `autoseg_convert --list` shows its converter."""
    for command, names in (
        ("train", ("tversky", "radam", "cosine", "gentle", "jsonl")), ("compare", ("diameter_error",)), ("convert", ("ward",)),
    ):  # fmt: skip
        output = pages.run_code(_HELP.format(command=command), tmp_path, package)
        assert all(name in output for name in names), output
    assert "ultrasound" in pages.run(["autoseg_convert --list"], tmp_path, package)


def test_typo_suggests_names_of_the_package(session: tuple[Path, str], package: Path) -> None:
    output = pages.fails("autoseg_train Ward unet 0 --set training.loss=tverski", session[0], package)
    assert "there is no loss 'tverski'" in output and "did you mean tversky?" in output
    output = pages.fails("autoseg_compare Ward --metric diameter_eror", session[0], package)
    assert "did you mean diameter_error" in output


def test_plan_is_usable_without_the_package(session: tuple[Path, str]) -> None:
    """Without the package, comparison works, and training names what is missing."""
    output = pages.fails("autoseg_train Ward unet 1", session[0])
    assert "plan.json: training.loss: there is no loss 'tversky'" in output
    pages.run(["autoseg_compare Ward"], session[0])
