"""What a new user meets in the first hour: messages that say what to do next."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg import api
from autoseg.cli import convert, entry, predict, run, train
from autoseg.io import read_image, read_label, write_image
from autoseg.io.raster import write_palette
from autoseg.prediction.files import predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from tests.prediction.stand_in import picture, trained


def test_masks_say_that_they_look_black_and_can_be_visible(tmp_path: Path) -> None:
    image, mask = picture((40, 60), (10, 12, 30, 40))
    write_image(tmp_path / "in" / "a.png", image)
    predictor = Predictor([trained()])
    plain = predict_files(predictor, tmp_path / "in", tmp_path / "plain")
    assert "class numbers (0 background, 1 bright), which viewers show black; --visible" in str(plain)
    colours = predict_files(predictor, tmp_path / "in", tmp_path / "visible", visible=True)
    assert "--visible" not in str(colours)
    assert np.array_equal(read_label(tmp_path / "visible" / "a.png").array, read_label(tmp_path / "plain" / "a.png").array)
    shown = np.asarray(Pillow.open(tmp_path / "visible" / "a.png").convert("RGB"))
    assert shown.max() > 200 and (shown.any(axis=2) == (mask > 0)).mean() > 0.98
    record = read_artefact(tmp_path / "visible" / "prediction.json", PredictionRecord)
    assert record.cases[0].pixels == plain.record.cases[0].pixels
    with pytest.raises(SystemExit):
        predict.main(["--visible"])


def test_every_label_value_survives_the_palette(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette(tmp_path / "all.png", labels, {1: (250, 0, 0), 7: (9, 9, 9), 255: (0, 0, 250)})
    assert np.array_equal(read_label(tmp_path / "all.png").array, labels)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_folder_of_nnunet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    workspace = Workspace.at(tmp_path / "root")
    folder = tmp_path / "nnunet" if elsewhere else workspace.raw
    monkeypatch.setenv("nnUNet_raw", str(folder))
    with pytest.raises(AutosegError) as caught:
        workspace.dataset(7)
    assert (f"nnUNet_raw is set to {folder}" in str(caught.value)) == elsewhere


def mixed(folder: Path) -> tuple[Path, Path]:
    """Four gray and two colour photographs, with masks."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    random = np.random.default_rng(0)
    for index in range(6):
        shape = (40, 50, 3) if index > 3 else (40, 50)
        cv2.imwrite(str(images / f"case_{index}.png"), random.integers(0, 255, shape, np.uint8))
        mask = np.zeros((40, 50), np.uint8)
        mask[5:20, 5:20] = 1
        cv2.imwrite(str(masks / f"case_{index}.png"), mask)
    return images, masks


def test_gray_and_colour_images_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = mixed(tmp_path / "photos")
    arguments = ["folders", "--images", str(images), "--masks", str(masks), "--name", "Mixed", "--root", str(tmp_path / "root")]
    assert convert.main(arguments) == 2
    assert "--colour gray or --colour rgb" in capsys.readouterr().err
    for colour, channels in (("gray", 1), ("rgb", 3)):
        assert convert.main([*arguments, "--overwrite", "--colour", colour]) == 0
        dataset = Workspace.at(tmp_path / "root").dataset("Mixed")
        stored = [read_image(path).array for path in sorted((dataset.raw / "imagesTr").iterdir())]
        assert [array.shape for array in stored] == [(channels, 40, 50)] * 6
        original = cv2.imread(str(images / "case_0.png"), cv2.IMREAD_UNCHANGED)
        assert all(np.array_equal(plane, original) for plane in stored[0])
        assert api.fingerprint("Mixed", root=tmp_path / "root").median_size == (40, 50)


@pytest.mark.parametrize(("command", "says"), [(train, "resumes"), (run, "resumes"), (predict, "--continue resumes")])
def test_ctrl_c_says_how_to_resume(
    command: object, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    for name in ("train", "run", "predict"):
        monkeypatch.setattr(f"autoseg.api.{name}", interrupted, raising=False)
    arguments = {
        train: ["1", "unet", "0"],
        run: ["--datasets", "1"],
        predict: ["-i", str(tmp_path), "-o", str(tmp_path), "-d", "1", "-m", "unet"],
    }
    assert command.main(arguments[command]) == entry.INTERRUPTED  # type: ignore[attr-defined, index]
    error = capsys.readouterr().err
    assert error.startswith("interrupted: ") and says in error
