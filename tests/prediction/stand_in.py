"""A network that needs no training: it finds what is bright, so that every mask can be foretold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Augmentation, Fold, ModelPlan, Normalisation, Plan, PreprocessingConfig, Splits, Training
from autoseg.schema.run import RunRecord
from autoseg.support.files import write_artefact
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Trained
from autoseg.training.config_hash import digest

SPEC = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png"
)
GRAY = DatasetSpec(channel_names={"0": "mr"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".nii.gz")


class Bright(nn.Module):
    """Logit of class 1: how far the mean of a pixel's channels (0..1) lies above `level`."""

    def __init__(self, level=0.5, sharpness=20.0):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(level)))
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        high = (x.mean(1, keepdim=True) - self.level) * self.sharpness
        return torch.cat([-high, high], 1)


def plan_of(
    spec=SPEC, geometry="resize", size=(64, 64), dtype="uint8", batch=4, spacing=None, mirror=(0, 1), model="bright", pad=False,
    tta=False,
):  # fmt: skip
    channels, highest = len(spec.channel_names), {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[dtype]
    normalisation = Normalisation(scheme="constant", mean=(0.0,) * channels, std=(highest,) * channels)
    preprocessing = PreprocessingConfig(
        key="p", geometry=geometry, dtype=dtype, channels=channels, size=size if geometry == "resize" else None,
        spacing=spacing, pad=pad,
    )  # fmt: skip
    planned = ModelPlan(
        model=model,
        variant="b",
        input_size=size,
        batch_size=batch,
        accumulate=1,
        precision="fp32",
        pretrained="none",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=normalisation,
        preprocessing="p",
        parameters=2,
        flops=0,
        memory=0,
        memory_format="contiguous",
    )
    training = Training(epochs=3, loss="dice_ce", learning_rates=(1e-3,), augmentation=Augmentation(mirror=mirror), tta=tta)
    return Plan(
        dataset="Dataset501_Tiny",
        protocol="quick",
        content_hash="hash",
        memory_budget=0,
        device="cpu",
        channels=channels,
        training=training,
        preprocessing={"p": preprocessing},
        models={model: planned},
        decisions=(),
    )


def identity_of(fold=0, model="bright"):
    """Inputs of a run, as its checkpoints hold them."""
    return {"run": f'"{model}{fold}"'}


def record_of(fold=0, status="finished", model="bright"):
    name = digest(identity_of(fold, model))
    return RunRecord(
        dataset="Dataset501_Tiny",
        model=model,
        variant="b",
        fold=fold,
        protocol="quick",
        identity=name,
        seed=0,
        device="cpu",
        precision="fp32",
        status=status,
        epochs_planned=3,
        epochs_done=3,
    )


def trained(network=None, fold=0, spec=SPEC, **plan):
    full_plan = plan_of(spec, **plan)
    name = plan.get("model", "bright")
    planned, preprocessing = full_plan.models[name], full_plan.preprocessing["p"]
    record = record_of(fold, model=name)
    return Trained(
        network=(network or Bright()).eval(),
        plan=full_plan,
        model_plan=planned,
        preprocessing=preprocessing,
        scheme=spec.label_scheme(),
        spec=spec,
        record=record,
    )


def write_fold(folder: Path, fold=0, network=None, status="finished", splits=None, spec=SPEC, **plan):
    """A results folder as training leaves it."""
    write_artefact(folder / checkpoint.RECORD, record_of(fold, status, plan.get("model", "bright")))
    write_artefact(folder / checkpoint.PLAN, plan_of(spec, **plan))
    write_artefact(folder / checkpoint.DATASET, spec)
    write_artefact(folder / checkpoint.SPLITS, splits or Splits(folds=(Fold(("a",), ("b",)),), reason="by hand"))
    identity = identity_of(fold, plan.get("model", "bright"))
    checkpoint.save_best(folder, identity, (network or Bright()).state_dict(), 2, 0.5)


def picture(size=(48, 80), box=(10, 20, 30, 60), low=40, high=220, channels=3, dtype=np.uint8):
    """An image (C, H, W) with a bright box, and its mask (H, W)."""
    mask = np.zeros(size, np.uint8)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    image = np.where(mask, high, low).astype(dtype)
    return np.repeat(image[None], channels, axis=0), mask
