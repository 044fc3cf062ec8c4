"""A tiny network of the SAM family with random weights, saved and loaded like real ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.cli import predict
from autoseg.omnimodel.sam import Sam, object_boxes
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    vision = transformers.SamVisionConfig(
        hidden_size=16, output_channels=8, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8,
        mlp_dim=16, window_size=4, global_attn_indexes=[0], num_pos_feats=4,
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(hidden_size=8, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=8, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=8
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    processor = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    transformers.SamProcessor(processor).save_pretrained(folder)
    return folder


def test_boxes_surround_objects_and_stay_inside() -> None:
    mask = np.zeros((50, 60), bool)
    mask[10:30, 20:50], mask[45:50, 0:6], mask[0, 0] = True, True, True
    assert object_boxes(mask) == [(17, 8, 53, 32), (0, 44, 7, 49)]


def test_masks_have_the_size_of_the_image(weights: Path) -> None:
    sam = Sam(weights, "cpu")
    masks = sam.masks(np.zeros((40, 56, 3), np.uint8), [(2, 2, 20, 20), (10, 10, 50, 38)])
    assert masks.shape == (2, 40, 56) and masks.dtype == bool


def test_the_command_writes_masks_without_a_service(weights: Path, polyps: Path) -> None:
    out = polyps.parent / "out"
    masks = polyps.parent / "first"
    masks.mkdir()
    for path in (polyps.parent / "masks").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(masks / path.name), mask * (path.stem != "polyp_2"))
    arguments = ["-i", str(polyps.parent / "images"), "-o", str(out), "-d", "501", "-m", "sam", "--root", str(polyps)]
    assert predict.main(arguments) == 2
    assert predict.main([*arguments, "--boxes-from", str(masks), "--weights", str(weights)]) == 0
    record = read_artefact(out / "prediction.json", PredictionRecord)
    assert record.models == ("sam",) and len(record.cases) == 3
    assert not any(next(case for case in record.cases if case.case == "polyp_2").pixels.values())
    for case in record.cases:
        assert cv2.imread(str(out / case.output), cv2.IMREAD_UNCHANGED).shape == (48, 64)


def test_a_folder_without_weights_raises(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"model\.safetensors"):
        Sam(tmp_path)
