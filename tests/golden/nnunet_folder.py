"""Folders as nnU-Net v2 leaves them, with weights by a rule, and what nnU-Net predicted with them.

    NNUNET_PYTHON tests/golden/nnunet_folder.py      writes nnunet_prediction.npz with nnU-Net's own masks (nnunetv2 2.8.1)

It needs NumPy, PyTorch and SimpleITK only, so that it runs in nnU-Net's environment too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from PIL import Image
from torch import nn

MASKS = Path(__file__).with_name("nnunet_prediction.npz")
_CONV, _NORM, _ACT = "torch.nn.modules.conv.Conv2d", "torch.nn.modules.instancenorm.InstanceNorm2d", "torch.nn.LeakyReLU"
_RESAMPLE = "resample_data_or_seg_to_shape"


def _plans(name: str, reader: str, patch: list[int], schemes: list[str], residual: bool, **more: Any) -> dict[str, Any]:
    stages = 3
    kwargs: dict[str, Any] = {
        "n_stages": stages, "features_per_stage": [8, 12, 16], "conv_op": _CONV, "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1], [2, 2], [2, 2]], "conv_bias": True, "norm_op": _NORM,
        "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None, "nonlin": _ACT,
        "nonlin_kwargs": {"inplace": True}, "n_conv_per_stage_decoder": [1] * (stages - 1),
    }  # fmt: skip
    kwargs["n_blocks_per_stage" if residual else "n_conv_per_stage"] = [1, 2, 2]
    network = "ResidualEncoderUNet" if residual else "PlainConvUNet"

    def resampling(order: int, is_seg: bool) -> dict[str, Any]:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    configuration = {
        "data_identifier": "nnUNetPlans_2d", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": patch,
        "median_image_size_in_voxels": [60.0, 70.0], "spacing": more.get("spacing", [1.0, 1.0]),
        "normalization_schemes": schemes, "use_mask_for_norm": more.get("masked", [False] * len(schemes)),
        "resampling_fn_data": _RESAMPLE, "resampling_fn_seg": _RESAMPLE, "resampling_fn_probabilities": _RESAMPLE,
        "resampling_fn_data_kwargs": resampling(3, False), "resampling_fn_seg_kwargs": resampling(1, True),
        "resampling_fn_probabilities_kwargs": resampling(1, False), "batch_dice": True,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}", "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    intensities = {
        "mean": 80.0, "std": 40.0, "percentile_00_5": 5.0, "percentile_99_5": 200.0, "median": 80.0, "min": 0.0, "max": 255.0,
    }  # fmt: skip
    return {
        "dataset_name": name, "plans_name": "nnUNetPlans", "original_median_spacing_after_transp": [999.0, 1.0, 1.0],
        "original_median_shape_after_transp": [1, 60, 70], "image_reader_writer": reader,
        "transpose_forward": more.get("transpose", [0, 1, 2]), "transpose_backward": more.get("transpose", [0, 1, 2]),
        "configurations": {"2d": configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): intensities for channel in range(len(schemes))},
    }  # fmt: skip


def _dataset(channels: dict[str, str], labels: dict[str, Any], ending: str, **more: Any) -> dict[str, Any]:
    return {"channel_names": channels, "labels": labels, "numTraining": 4, "file_ending": ending, **more}


_RGB = {"0": "R", "1": "G", "2": "B"}
_LABELS = {"background": 0, "lesion": 1, "scar": 2}
# Name -> plans, dataset.json, folds, mirrored axes.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...], tuple[int, ...] | None]] = {
    "colour": (
        _plans("Dataset901_Colour", "NaturalImage2DIO", [32, 48], ["ZScoreNormalization"] * 3, residual=False),
        _dataset(_RGB, _LABELS, ".png"), (0, 3), (0, 1),
    ),
    "masked": (
        _plans(
            "Dataset902_Masked", "NaturalImage2DIO", [32, 32],
            ["ZScoreNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"], residual=True,
            masked=[True, False, False], transpose=[0, 2, 1],
        ),
        _dataset(_RGB, _LABELS, ".png"), (0,), (1,),
    ),
    "resampled": (
        _plans("Dataset903_Resampled", "SimpleITKIO", [40, 32], ["CTNormalization"], residual=True, spacing=[0.8, 0.5]),
        _dataset({"0": "CT"}, {"background": 0, "organ": [1, 2], "tumour": 2}, ".nii.gz", regions_class_order=[1, 2]),
        (0, 1), None,
    ),
}  # fmt: skip


def images(name: str) -> dict[str, np.ndarray]:
    """Case -> (C, H, W): smooth noise with dark borders, one smaller than a tile, one all zero."""
    ending = MODELS[name][1]["file_ending"]
    found = {}
    for number, size in enumerate(((61, 75), (20, 90), (33, 18))):
        random = np.random.default_rng(number)
        channels = len(MODELS[name][1]["channel_names"])
        values = random.uniform(0, 255, (channels, size[0] // 4 + 2, size[1] // 4 + 2))
        values = values.repeat(4, 1).repeat(4, 2)[:, : size[0], : size[1]] * 0.8 + random.uniform(0, 40, (channels, *size))
        values[:, :3] = values[:, :, -5:] = 0
        found[f"case_{number}"] = values.astype(np.uint8 if ending == ".png" else np.int16)
    found["case_3"] = np.zeros_like(found["case_2"])
    return found


def write_images(name: str, folder: Path) -> None:
    """Images under nnU-Net's names."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, array in images(name).items():
        if MODELS[name][1]["file_ending"] == ".png":
            Image.fromarray(array.transpose(1, 2, 0)).save(folder / f"{case}_0000.png")
            continue
        image = SimpleITK.GetImageFromArray(array[0])
        image.SetSpacing((0.7, 0.6))
        SimpleITK.WriteImage(image, str(folder / f"{case}_0000.nii.gz"))


def write_model(name: str, folder: Path, build: Callable[[dict[str, Any], int, int], nn.Module]) -> None:
    """A results folder of nnU-Net. build: network from the plans, channels and outputs; its weights are replaced by a rule."""
    plans, dataset, folds, mirror = MODELS[name]
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    outputs = len(dataset["labels"]) - ("regions_class_order" in dataset)
    network = build(plans, len(dataset["channel_names"]), outputs)
    for fold in folds:
        weights = {key: torch.from_numpy(by_rule(key, one, fold)) for key, one in network.state_dict().items()}
        (folder / f"fold_{fold}").mkdir()
        torch.save(
            {
                "network_weights": weights, "optimizer_state": {}, "grad_scaler_state": None,
                "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_end_timestamps": [1.5]},
                "_best_ema": np.float64(0.5), "current_epoch": 3,
                "init_args": {"plans": plans, "configuration": "2d", "fold": fold, "dataset_json": dataset,
                              "device": torch.device("cpu")},
                "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": mirror,
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )  # fmt: skip


def by_rule(key: str, tensor: torch.Tensor, fold: int) -> np.ndarray:
    """Weights that do not depend on PyTorch's random numbers."""
    seed = sum((place + 1) * ord(letter) for place, letter in enumerate(key)) + 7919 * fold
    values = np.random.default_rng(seed).normal(size=tuple(tensor.shape))
    fan = max(1, int(np.prod(tensor.shape[1:])))
    scaled = values * np.sqrt(2 / fan) if tensor.ndim > 1 else (1 + values / 10 if key.endswith("weight") else values / 10)
    return scaled.astype(np.float32)


def _predict_with_nnunet() -> None:
    import tempfile

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    def build(plans: dict[str, Any], channels: int, outputs: int) -> nn.Module:
        architecture = plans["configurations"]["2d"]["architecture"]
        return get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"], channels,
            outputs, deep_supervision=False,
        )  # fmt: skip

    masks = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            write_model(name, place / "model", build)
            write_images(name, place / "images")
            (place / "masks").mkdir()
            predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(place / "model"), None)
            predictor.predict_from_files_sequential(str(place / "images"), str(place / "masks"))
            ending = MODELS[name][1]["file_ending"]
            for path in sorted((place / "masks").glob(f"*{ending}")):
                mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
                masks[f"{name}/{path.name.removesuffix(ending)}"] = mask.astype(np.uint8)
    np.savez_compressed(MASKS, **masks)


if __name__ == "__main__":
    _predict_with_nnunet()
