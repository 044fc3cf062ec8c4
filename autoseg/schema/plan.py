"""Plan of a dataset and its models, each decision with its reason; and splits."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields

Protocol = Literal["auto", "benchmark", "quick"]
PROTOCOLS: tuple[Protocol, ...] = ("auto", "benchmark", "quick")


@dataclass(frozen=True)
class Decision:
    """One choice. subject: dotted path of a field, or of what several fields share. reason: with figures.

    source: the fields of fingerprint.json it was read from, with their values; "" if it does not depend on the data.
    """

    subject: str
    value: str
    reason: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """From stored values to what the network sees, channel by channel: (clip(x, lower, upper) - mean) / std.

    scheme "constant": the numbers below, for every image. scheme "image": mean and std of each image itself (after
    clipping); the lists mean and std are then empty. lower, upper: empty without clipping.
    """

    scheme: Literal["constant", "image"]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """How images become arrays on disk. Models with equal configurations share the arrays in the folder `key`.

    geometry "resize": every image resized to `size` (height, width). geometry "patch": images keep their shape; they are
    resampled to `spacing` (mm) if given, else scaled by `scale`. merge_gray: three equal channels are stored once.
    """

    key: str
    geometry: Literal["resize", "patch"]
    dtype: Literal["uint8", "uint16", "float32"]
    channels: int
    merge_gray: bool = False
    size: tuple[int, int] | None = None
    scale: float = 1.0
    spacing: tuple[float, float] | None = None

    def hashed(self) -> dict[str, Any]:
        """Content of the hashes of arrays and runs, with the names of version 1, so that older results stay valid."""
        content = asdict(self)
        if self.geometry == "resize":
            content |= {"geometry": "whole", "key": self.key.replace("resize_", "whole_", 1)}
        return content


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Chances (p_*) are per image, ranges are inclusive. rotation in degrees. mirror: axes, 0 rows (up-down), 1 columns.

    chain "fast" works on stored values through OpenCV; "classic" is batchgenerators' transforms with the same numbers; other
    packages may add chains.
    """

    chain: str = "fast"
    mirror: tuple[int, ...] = (0, 1)
    p_rotation: float = 0.3
    rotation: float = 30.0
    p_scaling: float = 0.3
    scaling: tuple[float, float] = (0.75, 1.35)
    p_elastic: float = 0.0
    p_noise: float = 0.1
    noise: float = 0.05
    p_blur: float = 0.15
    blur: tuple[float, float] = (0.5, 1.0)
    p_brightness: float = 0.2
    brightness: tuple[float, float] = (0.75, 1.25)
    p_contrast: float = 0.2
    contrast: tuple[float, float] = (0.75, 1.25)
    p_low_resolution: float = 0.15
    low_resolution: tuple[float, float] = (0.5, 1.0)
    p_gamma: float = 0.2
    gamma: tuple[float, float] = (0.7, 1.5)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings, equal for all models of a plan.

    loss, optimizer, schedule: names in `autoseg.support.extensions`. autoseg's own losses are cross entropy ("ce") or its
    sigmoid form ("bce"), alone or with soft Dice ("dice_ce", "dice_bce"). cldice: weight of the clDice term, which rewards
    unbroken thin structures. learning_rates: candidates; a model uses `ModelPlan.learning_rate`, or the one a search
    finds best. search_epochs: epochs each candidate is tried for on fold 0 before the folds are trained, 0 for no search.
    foreground_share: fraction of patches (or images) drawn to contain a rare class. patience: epochs without a better
    validation Dice before stopping, 0 for never. validate_every: epochs between validations; the last epoch always has one.
    compile: run the network's training passes through `torch.compile`; results differ by rounding.
    """

    epochs: int
    loss: str
    learning_rates: tuple[float, ...]
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "rex"
    gradient_clip: float = 1.0
    foreground_share: float = 0.33
    patience: int = 0
    validate_every: int = 1
    search_epochs: int = 0
    cldice: float = 0.0
    compile: bool = False
    folds: int = 5
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """What one model gets. input_size: (height, width) of what the network sees in training.

    batch_size is what one optimiser step sees, in `accumulate` equal parts. memory: bytes of activations, weights,
    gradients and optimiser state of one part. flops: of one image's forward pass. preprocessing: its key in
    `Plan.preprocessing`. precision: "bf16" and "fp16" are autocast. options: for the model builder. memory_format: memory
    format of tensors in training; results differ by rounding only. "auto": the training decides by device and model.
    """

    model: str
    variant: str
    input_size: tuple[int, int]
    batch_size: int
    accumulate: int
    precision: Literal["fp32", "bf16", "fp16"]
    pretrained: Literal["auto", "none"]
    learning_rate: float
    warmup_epochs: int
    normalisation: Normalisation
    preprocessing: str
    parameters: int
    flops: int
    memory: int
    options: dict[str, Any] = field(default_factory=dict)
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"


def geometry_of_version_1(geometry: str) -> str:
    """Today's word. Keys that begin with "whole" stay: they are the names of folders."""
    return "resize" if geometry == "whole" else geometry


def _to_version_2(content: Content) -> Content:
    """Nothing is timed any more; standard names for the rest."""
    content["training"].pop("time_formats", None)
    rename(content, "preparations", "preprocessing")
    for config in content["preprocessing"].values():
        config["geometry"] = geometry_of_version_1(config["geometry"])
    for model in content["models"].values():
        rename(model, "preparation", "preprocessing")
    for decision in content["decisions"]:
        rename(decision, "because", "reason")
        decision["subject"] = _path_of_version_1(decision["subject"])
    overrides = {_path_of_version_1(path): value for path, value in content.get("overrides", {}).items()}
    if "geometry" in overrides:
        overrides["geometry"] = geometry_of_version_1(overrides["geometry"])
    content["overrides"] = overrides
    return content


def _path_of_version_1(path: str) -> str:
    return re.sub(r"^preparations(?=\.)|(?<=\.)preparation$", "preprocessing", path)


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Artefact, Tabular):
    """`plan.json`. dataset: full name. content_hash: of the fingerprint it was made from. overrides: what the user set.

    labels and channels are the dataset's, copied so that a results folder explains itself. prompts: class -> prompt for a
    zero-shot image model; training does not use them.
    """

    NAME = "plan"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    dataset: str
    protocol: Protocol
    content_hash: str
    memory_budget: int
    device: str
    channels: int
    training: Training
    preprocessing: dict[str, PreprocessingConfig]
    models: dict[str, ModelPlan]
    decisions: tuple[Decision, ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        epochs = count(self.training.epochs, "epoch")
        memory = f"{self.memory_budget / 2**30:.1f} GiB on {self.device}"
        return f"{self.dataset}, {self.protocol}: {count(len(self.models), 'model')}, {epochs}, {memory}"

    def to_rows(self) -> list[Row]:
        return [fields(model, "normalisation", "options") for model in self.models.values()]


@dataclass(frozen=True)
class Fold:
    """Case names of one fold."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def _because_to_reason(content: Content) -> Content:
    rename(content, "because", "reason")
    return content


@dataclass(frozen=True)
class Splits(Artefact):
    """`splits.json`. reason: how the folds were made and which cases stay together. given: the user's file, "" for none."""

    NAME = "splits"
    VERSION = 2
    MIGRATIONS = (_because_to_reason,)

    folds: tuple[Fold, ...]
    reason: str
    seed: int = 0
    given: str = ""
