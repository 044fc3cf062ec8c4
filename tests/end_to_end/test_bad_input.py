"""User errors: one message with file and remedy, exit code 2, no partial files."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.cli import convert, evaluate, plan_and_preprocess, predict, train
from tests import generated


def run_convert(root: Path, images: Path, masks: Path, *more: str) -> int:
    return convert.main(["--root", str(root), "folders", "--images", str(images), "--masks", str(masks), "--name", "X", *more])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return generated.write_folders(tmp_path, "lesion", 6)


def test_all_errors_are_listed_at_once(tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = folders
    (masks / "lesion_000.png").unlink()
    (images / "lesion_001.png").write_bytes(b"not an image")
    cv2.imwrite(str(masks / "lesion_002.png"), np.zeros((5, 5), np.uint8))
    odd = cv2.imread(str(masks / "lesion_003.png"), cv2.IMREAD_UNCHANGED)
    odd[:2, :3] = 9
    cv2.imwrite(str(masks / "lesion_003.png"), odd)
    root = tmp_path / "root"
    assert run_convert(root, images, masks, "--labels", "background,lesion") == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for name in ("lesion_000", "lesion_001", "lesion_002", "lesion_003"):
        assert name in message
    assert "9" in message and "6" in message, "the undeclared value and its pixel count"
    assert not list((root / "raw").glob("*")) if (root / "raw").exists() else True


def test_unknown_names_are_answered_with_suggestions(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert run_convert(root, *folders) == 0
    assert plan_and_preprocess.main(["Lung", "--root", str(root)]) == 2
    assert "Dataset501_X" in capsys.readouterr().err
    assert plan_and_preprocess.main(["501", "--models", "nnunett", "--root", str(root)]) == 2
    assert "did you mean nnunet" in capsys.readouterr().err
    assert plan_and_preprocess.main(["501", "--models", "nnunet", "--set", "training.epoch=5", "--root", str(root)]) == 2
    assert "training.epochs" in capsys.readouterr().err
    assert train.main(["501", "unett", "0", "--root", str(root)]) == 2
    assert train.main(["501", "nnunet", "zero", "--root", str(root)]) == 2
    output = tmp_path / "predicted"
    assert predict.main(["-i", str(folders[0]), "-o", str(output), "-d", "501", "-m", "nnunet", "--root", str(root)]) == 2
    assert "autoseg_train" in capsys.readouterr().err
    assert not output.exists()


def test_missing_prediction_is_an_error(tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, masks = folders
    predictions = tmp_path / "predictions"
    shutil.copytree(masks, predictions)
    (predictions / "lesion_004.png").unlink()
    assert evaluate.main([str(predictions), str(masks)]) == 2
    assert "lesion_004" in capsys.readouterr().err
    assert not (predictions / "scores.json").exists()
