"""Plan of a dataset and its models, each decision with its reason; and splits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import (
    AboveZero,
    Axis,
    Count,
    EncoderRate,
    Epochs,
    Factor,
    FileName,
    JpegQuality,
    LearningRate,
    NonNegative,
    Positive,
    Range,
    Share,
    Side,
    Views,
    Within,
)

Protocol = Literal["auto", "benchmark", "quick"]
PROTOCOLS: tuple[Protocol, ...] = ("auto", "benchmark", "quick")
Licence = Literal["any", "commercial"]
Selection = Literal["held_out", "inner", "next_fold", "last", "average"]
# Selections whose validations choose the epoch.
CHOOSING: tuple[Selection, ...] = ("held_out", "inner", "next_fold")
# Which average of a validation chooses, see `metrics.overlap.averages`.
Monitor = Literal["class_mean.dice", "micro.dice", "micro.iou"]
MONITOR_NAMES: dict[Monitor, str] = {
    "class_mean.dice": "Dice (class mean)", "micro.dice": "mDSC", "micro.iou": "mIoU",
}  # fmt: skip


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
    """From stored values to the network's input, for each channel: (clip(x, lower, upper) - mean) / std.

    scheme "constant": the same numbers for every image. scheme "image": mean and std of each image (after clipping); the
    lists mean and std are then empty. lower, upper: empty without clipping.
    """

    scheme: Literal["constant", "image"]
    mean: tuple[float, ...] = ()
    std: tuple[AboveZero, ...] = ()
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()

    def problems(self, channels: int, path: str) -> Iterator[str]:
        """Lists of another length than the channels, and clipping that leaves nothing."""
        lengths = {"mean": self.mean, "std": self.std} if self.scheme == "constant" else {}
        clipped = {"lower": self.lower, "upper": self.upper} if self.lower or self.upper else {}
        for name, values in {**lengths, **clipped}.items():
            if len(values) != channels:
                yield f"{path}.{name}: expected {channels} numbers, one a channel, found {len(values)}"
        if any(low > high for low, high in zip(self.lower, self.upper, strict=False)):
            yield f"{path}.upper: expected not less than lower"


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """How images become arrays on disk. Models with equal configurations share the arrays in the folder `key`.

    geometry "resize": every image resized to `size` (height, width). geometry "patch": images keep their shape; they are
    resampled to `spacing` (mm) if given, else scaled by `scale`. pad: for "resize": the image keeps its aspect and is centred
    in `size`, its surroundings are zeros (background in the label). merge_gray: three equal channels are stored once.
    """

    key: FileName
    geometry: Literal["resize", "patch"]
    dtype: Literal["uint8", "uint16", "float32"]
    channels: Side
    merge_gray: bool = False
    size: tuple[Side, Side] | None = None
    scale: AboveZero = 1.0
    spacing: tuple[AboveZero, AboveZero] | None = None
    pad: bool = False

    def hashed(self) -> dict[str, Any]:
        """Content of the hashes of arrays and runs, with the names of version 1, so that older results stay valid."""
        content = asdict(self)
        if not self.pad:
            del content["pad"]
        if self.geometry == "resize":
            content |= {"geometry": "whole", "key": self.key.replace("resize_", "whole_", 1)}
        return content


# What batchgenerators does not have.
_ONLY_FAST = ("shear", "shift", "colour", "bias", "sharpen", "jpeg")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities (p_*) are per image, ranges are inclusive. rotation, shear, hue: degrees, to either side. shift: fraction
    of the sides, to either side. mirror: axes, 0 rows (up-down), 1 columns. p_colour: of a change of hue, saturation and each
    channel's factor (1 - tint to 1 + tint), of images with three channels. bias: uneven brightness, largest logarithm of its
    factor. sharpen: amount of an unsharp mask. jpeg: quality, 1 to 100.

    chain "fast" works on stored values through OpenCV; "classic" is batchgenerators' transforms with the same numbers; other
    packages may add chains.
    """

    chain: str = "fast"
    mirror: tuple[Axis, ...] = (0, 1)
    p_rotation: Share = 0.3
    rotation: Annotated[float, Within(0, 360)] = 30.0
    p_scaling: Share = 0.3
    scaling: Range = (0.75, 1.35)
    p_elastic: Share = 0.0
    p_noise: Share = 0.1
    noise: NonNegative = 0.05
    p_blur: Share = 0.15
    blur: Range = (0.5, 1.0)
    p_brightness: Share = 0.2
    brightness: Range = (0.75, 1.25)
    p_contrast: Share = 0.2
    contrast: Range = (0.75, 1.25)
    p_low_resolution: Share = 0.15
    low_resolution: Range = (0.5, 1.0)
    p_gamma: Share = 0.2
    gamma: Range = (0.7, 1.5)
    p_shear: Share = 0.0
    shear: Annotated[float, Within(0, 80)] = 0.0
    p_shift: Share = 0.0
    shift: Share = 0.0
    p_colour: Share = 0.0
    hue: Annotated[float, Within(0, 180)] = 20.0
    saturation: Range = (0.6, 1.4)
    tint: Share = 0.1
    p_bias: Share = 0.0
    bias: Annotated[float, Within(0, 3)] = 0.3
    p_sharpen: Share = 0.0
    sharpen: Range = (0.5, 1.5)
    p_jpeg: Share = 0.0
    jpeg: tuple[JpegQuality, JpegQuality] = (30.0, 90.0)

    def problems(self, path: str) -> Iterator[str]:
        """Ranges whose first value is above the second, and what a chain cannot do."""
        missing = [name for name in _ONLY_FAST if getattr(self, f"p_{name}")] if self.chain == "classic" else []
        if missing:
            yield f"{path}.chain: classic has no {', '.join(missing)}; expected fast, or 0 for p_{' and p_'.join(missing)}"
        for name in ("scaling", "blur", "brightness", "contrast", "low_resolution", "gamma", "saturation", "sharpen", "jpeg"):
            low, high = getattr(self, name)
            if low > high:
                yield f"{path}.{name}: expected the smaller number first, found [{low:g}, {high:g}]"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings, equal for all models of a plan.

    loss, optimizer, schedule: names in `autoseg.support.extensions`. autoseg's own losses are cross entropy ("ce") or its
    sigmoid form ("bce"), alone or with soft Dice ("dice_ce", "dice_bce"). cldice: weight of the clDice term, which rewards
    unbroken thin structures. learning_rates: candidates; a model uses `ModelPlan.learning_rate`, or the one a search
    finds best. search_epochs: epochs each candidate is tried for on fold 0 before the folds are trained, 0 for no search.
    foreground_share: fraction of patches (or images) drawn to contain a rare class. monitor: the average of a validation that
    chooses epoch and learning rate: of the counts summed over the classes ("micro.dice", "micro.iou") or over the classes' Dice
    ("class_mean.dice"). patience: validations before stopping without a value that is better by more than min_delta, 0 for
    never. validate_every: epochs between validations; the last epoch always has one.
    compile: run the network's training passes through `torch.compile`; results differ by rounding.
    selection: the weights a training gives. "held_out": of the epoch with the best Dice on the fold's held-out cases, which
    are scored afterwards. "inner": of the best epoch on `Fold.inner`, which are not trained on. "next_fold": of the best epoch
    on the held-out cases of the next fold, which are not trained on. "last": of the last epoch. "average": the moving average
    of the weights, at the end. Only "held_out" lets the scored cases choose.
    auxiliary_losses: use the auxiliary outputs of networks that have some. duplicates: "grouped" in one fold, or "removed" from
    all folds but for one of each set. scored_size: of the masks by which the held-out cases are scored: the images' original
    size, or that of the network's input. tta: average predictions, of held-out cases and of new images, over the mirrored views
    of training.
    """

    epochs: Epochs
    loss: str
    learning_rates: tuple[LearningRate, ...]
    optimizer: str = "adamw"
    weight_decay: NonNegative = 0.01
    schedule: str = "rex"
    gradient_clip: NonNegative = 1.0
    foreground_share: Share = 0.33
    patience: Count = 0
    min_delta: NonNegative = 0.0
    monitor: Monitor = "class_mean.dice"
    validate_every: Positive = 1
    search_epochs: Count = 0
    cldice: NonNegative = 0.0
    compile: bool = False
    selection: Selection = "held_out"
    auxiliary_losses: bool = True
    duplicates: Literal["grouped", "removed"] = "grouped"
    scored_size: Literal["original", "input"] = "original"
    tta: bool = False
    folds: Annotated[int, Within(1, 2**20)] = 5
    seed: Count = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Expected time of one fold of a model. Never part of what decides a run's weights.

    seconds_per_step: of an optimiser step, measured by real steps on `machine`. validation_seconds: of one validation.
    steps: of the training. trial_steps: of all trials of the learning rate search, 0 without a search. hours: all of it.
    """

    machine: str
    seconds_per_step: NonNegative
    validation_seconds: NonNegative
    steps_per_epoch: Positive
    steps: Count
    trial_steps: Count
    hours: NonNegative


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """Plan of one model. input_size: (height, width) of the network's input in training.

    batch_size: images of one optimiser step, in `accumulate` equal parts. memory: bytes of activations, weights,
    gradients and optimiser state of one part. flops: of one image's forward pass. preprocessing: its key in
    `Plan.preprocessing`. precision: "bf16" and "fp16" are autocast. options: for the model builder. memory_format: memory
    format of tensors in training; results differ by rounding only. "auto": the training decides by device and model.
    timing: None if it was not measured.

    encoder_rate: factor of the encoder's learning rate; 0: it is frozen. layer_decay: factor of the rate from the decoder to
    the encoder's last layer, and from each layer to the one before. Both count only if the training starts from weights (see
    `without_transfer`). weight_decay: instead of the training's, None for that. warmup_share: fraction of the steps with a
    rising rate; the longer warm-up counts. cached_views: of each image, that a frozen encoder sees once, so that only the
    decoder is computed in training; 0: it sees every augmented image.
    """

    model: FileName
    variant: str
    input_size: tuple[Side, Side]
    batch_size: Side
    accumulate: Side
    precision: Literal["fp32", "bf16", "fp16"]
    pretrained: Literal["auto", "study", "none"]
    learning_rate: LearningRate
    warmup_epochs: Count
    normalisation: Normalisation
    preprocessing: str
    parameters: Count
    flops: Count
    memory: Count
    options: dict[str, Any] = field(default_factory=dict)
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    timing: Timing | None = None
    encoder_rate: EncoderRate = 1.0
    layer_decay: Factor = 1.0
    weight_decay: NonNegative | None = None
    warmup_share: Share = 0.0
    cached_views: Views = 0

    def warmup_steps(self, steps_per_epoch: int, steps: int) -> int:
        """Steps of warm-up in a training of so many."""
        return max(self.warmup_epochs * steps_per_epoch, round(self.warmup_share * steps))


def geometry_of_version_1(geometry: str) -> str:
    """The current name. Keys that begin with "whole" are kept, because they are names of folders."""
    return "resize" if geometry == "whole" else geometry


def _to_version_2(content: Content) -> Content:
    """No timing of memory formats; standard names."""
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


def _to_version_3(content: Content) -> Content:
    """Older plans have no expected times, and nobody limited them."""
    content.setdefault("time_budget", 0.0)
    for model in content["models"].values():
        model.setdefault("timing", None)
    return content


def _to_version_4(content: Content) -> Content:
    """Older plans train all parts of a network alike."""
    return content


def _path_of_version_1(path: str) -> str:
    return re.sub(r"^preparations(?=\.)|(?<=\.)preparation$", "preprocessing", path)


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Artefact, Tabular):
    """`plan.json`. dataset: full name. content_hash: of the fingerprint it was made from. overrides: what the user set.

    labels and channels are the dataset's, copied so that a results folder explains itself. prompts: class -> prompt for a
    zero-shot image model; training does not use them. time_budget: hours for one fold, 0 without a limit. licence:
    "commercial" if only weights may be used whose licence allows commercial use.
    """

    NAME = "plan"
    VERSION = 4
    MIGRATIONS = (_to_version_2, _to_version_3, _to_version_4)

    dataset: FileName
    protocol: Protocol
    content_hash: str
    memory_budget: Count
    device: str
    channels: Side
    training: Training
    preprocessing: dict[FileName, PreprocessingConfig]
    models: dict[FileName, ModelPlan]
    decisions: tuple[Decision, ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    prompts: dict[FileName, str] = field(default_factory=dict)
    time_budget: NonNegative = 0.0
    licence: Licence = "any"

    def problems(self) -> Iterator[str]:
        """Entries with a wrong name, missing preprocessing, sizes that contradict each other."""
        for key, config in self.preprocessing.items():
            if config.key != key:
                yield f"preprocessing.{key}.key: expected {key!r}, found {config.key!r}"
            if config.geometry == "resize" and config.size is None:
                yield f"preprocessing.{key}.size: expected a height and a width, found null"
        for name, model in self.models.items():
            where = f"models.{name}"
            if model.model != name:
                yield f"{where}.model: expected {name!r}, found {model.model!r}"
            if model.preprocessing in self.preprocessing:
                channels = self.preprocessing[model.preprocessing].channels
                yield from model.normalisation.problems(channels, f"{where}.normalisation")
            else:
                known = ", ".join(self.preprocessing) or "none"
                yield f"{where}.preprocessing: expected one of preprocessing ({known}), found {model.preprocessing!r}"
            if model.cached_views and model.encoder_rate != 0:
                yield f"{where}.cached_views: expected 0 unless the encoder is frozen ({where}.encoder_rate is 0)"
            if model.batch_size % model.accumulate:
                yield f"{where}.accumulate: expected a divisor of the batch size {model.batch_size}, found {model.accumulate}"
        if self.training.patience and self.training.selection in ("last", "average"):
            yield (
                f"training.patience: stops by the Dice of validations, which selection {self.training.selection!r} does not "
                f"use; expected 0, found {self.training.patience}"
            )
        if self.training.scored_size == "input" and any(one.geometry != "resize" for one in self.preprocessing.values()):
            yield "training.scored_size: expected 'original', because patches have no size of the whole image, found 'input'"
        if not self.training.learning_rates:
            yield "training.learning_rates: expected at least one, found []"
        yield from self.training.augmentation.problems("training.augmentation")

    def summary(self) -> str:
        epochs = count(self.training.epochs, "epoch")
        memory = f"{self.memory_budget / 2**30:.1f} GiB on {self.device}"
        return f"{self.dataset}, {self.protocol}: {count(len(self.models), 'model')}, {epochs}, {memory}"

    def to_rows(self) -> list[Row]:
        return [fields(model, "normalisation", "options", "timing") for model in self.models.values()]


@dataclass(frozen=True)
class Fold:
    """Case names of one fold. validation: the held-out cases, which are scored.

    inner: an eighth of `train`, patients kept whole, on which a training can make choices that the scored cases must not see.
    """

    train: tuple[FileName, ...]
    validation: tuple[FileName, ...]
    inner: tuple[FileName, ...] = ()


def _because_to_reason(content: Content) -> Content:
    rename(content, "because", "reason")
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class Splits(Artefact, Tabular):
    """`splits.json`. reason: how the folds were made and which cases stay together. given: the user's file or rule, or "".

    groups: case -> its group (patients, joined by the duplicates they share), for cases that are not alone in theirs. Empty
    in files of older releases. official: the published set whose own split this is; patients and duplicates on both sides are
    then its publisher's. id: of the folds by the content of the images (`autoseg.planning.split_file`).
    """

    NAME = "splits"
    VERSION = 2
    MIGRATIONS = (_because_to_reason,)

    folds: tuple[Fold, ...]
    reason: str
    seed: Count = 0
    given: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    official: str = ""
    id: str = ""

    def summary(self) -> str:
        cases = len({case for fold in self.folds for case in (*fold.train, *fold.validation)})
        return f"{count(len(self.folds), 'fold')} of {count(cases, 'case')}" + (f", id {self.id}" if self.id else "")

    def to_rows(self) -> list[Row]:
        rows: list[Row] = []
        for number, fold in enumerate(self.folds):
            sides = dict.fromkeys(fold.train, "train") | dict.fromkeys(fold.inner, "inner")
            sides |= dict.fromkeys(fold.validation, "validation")
            rows += ({"fold": number, "case": case, "side": side} for case, side in sides.items())
        return rows

    def overview(self) -> list[Row]:
        return [
            {"fold": number, "train": len(fold.train), "inner": len(fold.inner), "validation": len(fold.validation)}
            for number, fold in enumerate(self.folds)
        ]

    def case_groups(self, patients: Mapping[str, str]) -> dict[str, str]:
        """Case -> group, for all cases. patients: `DatasetSpec.groups`, which older files need."""
        cases = (case for fold in self.folds for case in (*fold.train, *fold.validation))
        own = {case: f"patient {patients[case]}" if case in patients else f"case {case}" for case in cases}
        return own | self.groups
