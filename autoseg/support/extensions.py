"""Registries of components by name. Tables of names and import paths only: nothing is imported before it is used.

The contract of each kind (arguments, shapes, units) is in the docstring of the module named above it, with an example in
documentation/extend.md. Converters have their registry in `dataset_conversion.registry`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from autoseg.schema.scores import COMPARABLE_METRICS
from autoseg.support.registry import Registry

# autoseg.models.base
MODELS: Registry[ModuleType] = Registry(
    "model",
    "autoseg.models",
    {
        "nnunet": "autoseg.models.specialist.nnunet",
        "unet": "autoseg.models.specialist.unet",
        "hiformer": "autoseg.models.specialist.hiformer",
        "missformer": "autoseg.models.specialist.missformer",
        "ukan": "autoseg.models.specialist.ukan",
        "swin_umamba": "autoseg.models.specialist.swin_umamba",
        "hsnet": "autoseg.models.specialist.hsnet",
        "efficientnet_lite0_upernet": "autoseg.models.generalist.efficientnet_lite0_upernet",
        "internimage": "autoseg.models.generalist.internimage",
        "transnext": "autoseg.models.generalist.transnext",
        "mask2former": "autoseg.models.generalist.mask2former",
        "segformer": "autoseg.models.generalist.segformer",
        "segnext": "autoseg.models.generalist.segnext",
        "vwformer_mit": "autoseg.models.generalist.vwformer_mit",
        "vwformer_convnext": "autoseg.models.generalist.vwformer_convnext",
        "dinov2": "autoseg.models.foundation.presets:DINOV2",
        "sam2_hiera": "autoseg.models.foundation.presets:SAM2_HIERA",
        "pe_spatial": "autoseg.models.foundation.presets:PE_SPATIAL",
        "dinov3_vit": "autoseg.models.foundation.presets:DINOV3_VIT",
        "dinov3_convnext": "autoseg.models.foundation.presets:DINOV3_CONVNEXT",
    },
    needs=("SPEC", "build"),
    prefixes={"timm:": "autoseg.models.generalist.timm_upernet:model"},
)
# autoseg.training.losses
LOSSES: Registry[Any] = Registry(
    "loss",
    "autoseg.losses",
    {
        "ce": "autoseg.training.losses:cross_entropy",
        "bce": "autoseg.training.losses:binary_cross_entropy",
        "dice_ce": "autoseg.training.losses:dice_cross_entropy",
        "dice_bce": "autoseg.training.losses:dice_binary_cross_entropy",
    },
)
# autoseg.training.optim
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer", "autoseg.optimizers", {"adamw": "autoseg.training.optim:adamw", "sgd": "autoseg.training.optim:sgd"}
)
SCHEDULES: Registry[Any] = Registry(
    "schedule", "autoseg.schedules", {"rex": "autoseg.training.optim:rex", "poly": "autoseg.training.optim:poly"}
)
# autoseg.data.augment
AUGMENTATIONS: Registry[Any] = Registry(
    "augmentation chain",
    "autoseg.augmentations",
    {"fast": "autoseg.data.augment:augment", "classic": "autoseg.data.batchgenerators_chain:augment"},
)
# autoseg.metrics.rules
METRICS: Registry[Any] = Registry(
    "metric",
    "autoseg.metrics",
    {name: f"autoseg.metrics.rules:{name.upper()}" for name in COMPARABLE_METRICS},
    needs=("compute", "definition", "higher_is_better"),
)
# autoseg.io.files; the name is the suffix.
READERS: Registry[Any] = Registry(
    "image reader",
    "autoseg.readers",
    {
        **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"), "autoseg.io.raster"),
        **dict.fromkeys((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".dcm"), "autoseg.io.medical"),
    },
    needs=("read_image",),
)
# autoseg.training.loggers
LOGGERS: Registry[Any] = Registry(
    "logger",
    "autoseg.loggers",
    {
        "tensorboard": "autoseg.training.loggers:TensorBoard",
        "mlflow": "autoseg.training.loggers:Mlflow",
        "wandb": "autoseg.training.loggers:WeightsAndBiases",
    },
)
