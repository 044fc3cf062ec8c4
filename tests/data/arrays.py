"""Small datasets of arrays for tests of `autoseg.data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.preprocessing.array_dataset import ArrayDataset, array_writer
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Augmentation, ModelPlan, Normalisation, PreprocessingConfig, Training

SCHEME = LabelScheme(names=("background", "common", "rare"), members=((0,), (1,), (2,)))
NO_AUGMENTATION = Augmentation(
    mirror=(), p_rotation=0, p_scaling=0, p_noise=0, p_blur=0, p_brightness=0, p_contrast=0, p_low_resolution=0, p_gamma=0
)


def store(folder: Path, sizes: list[tuple[int, int]], dtype: str = "uint8", channels: int = 3, rare: int = 1) -> ArrayDataset:
    """Cases c00, c01, ...: each has a disk of class 1, the first `rare` have class 2; values depend on the label."""
    preprocessing = PreprocessingConfig(key="k", geometry="patch", dtype=dtype, channels=channels)  # type: ignore[arg-type]
    with array_writer(folder, preprocessing, "hash") as writer:
        for index, (height, width) in enumerate(sizes):
            rows, columns = np.mgrid[:height, :width]
            label = (np.hypot(rows - height * 0.6, columns - width * 0.4) < 6).astype(np.uint8)
            if index < rare:
                label[2:5, 2:5] = 2
            # With the ramps, every pixel of an image is unique.
            ramp = np.stack([rows % 200, columns % 200, np.full_like(rows, index)], axis=2)[..., :channels]
            writer.add(f"c{index:02d}", (ramp + 20 * (label[..., None] > 0)).astype(dtype), label, (height, width))
    return ArrayDataset.open(folder)


def model_plan(
    size: tuple[int, int], batch: int = 4, normalisation: Normalisation | None = None, channels: int = 3
) -> ModelPlan:
    plain = Normalisation(scheme="constant", mean=(0.0,) * channels, std=(1.0,) * channels)
    return ModelPlan(
        model="unet",
        variant="16",
        input_size=size,
        batch_size=batch,
        accumulate=1,
        precision="fp32",
        pretrained="none",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=normalisation or plain,
        preprocessing="k",
        parameters=0,
        flops=0,
        memory=0,
    )


def training(augmentation: Augmentation = NO_AUGMENTATION, share: float = 0.0) -> Training:
    return Training(epochs=3, loss="dice_ce", learning_rates=(1e-3,), foreground_share=share, augmentation=augmentation)
