"""Record of a training run: `run.json`, `learning_rate.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.limits import AboveZero, Count, FileName, NonNegative, Positive, ShareResult, Within
from autoseg.schema.plan import Monitor, Selection


@dataclass(frozen=True, kw_only=True)
class RateTrial:
    """One tried learning rate. Of the validation of its best epoch, on whole images: class_mean_dice: mean over the classes;
    micro_dice, micro_iou: of the counts summed over the classes, not-a-number in older files; dice: of each class."""

    rate: AboveZero
    class_mean_dice: ShareResult
    dice: dict[str, ShareResult]
    steps: Count
    seconds: NonNegative
    micro_dice: ShareResult = math.nan
    micro_iou: ShareResult = math.nan

    def value(self, monitor: Monitor) -> float:
        """What the candidates are compared by."""
        return {
            "class_mean.dice": self.class_mean_dice, "micro.dice": self.micro_dice, "micro.iou": self.micro_iou,
        }[monitor]  # fmt: skip


def _with_named_average(content: Content) -> None:
    """The mean over classes has its own name. With one class it is also the micro average."""
    rename(content, "best_dice", "class_mean_dice")
    if len(content["dice"]) == 1:
        content["micro_dice"] = content["class_mean_dice"]


def _search_to_version_2(content: Content) -> Content:
    for trial in content["tried"]:
        _with_named_average(trial)
    return content


@dataclass(frozen=True, kw_only=True)
class RateSearch(Artefact):
    """`learning_rate.json`: the candidates, each trained for `epochs` epochs on `fold`; `chosen` is used for all folds
    (0 while the search runs).

    identity: hash of everything that determines the trials. steps, seconds: of all trials, part of the model's budget.
    cases: on which the candidates were compared: the fold's held-out cases, inner cases of its training side,
    or the held-out cases of the next fold. monitor: by
    which average.
    """

    NAME = "learning_rate"
    VERSION = 2
    MIGRATIONS = (_search_to_version_2,)

    fold: Count
    epochs: Count
    identity: str
    tried: tuple[RateTrial, ...]
    chosen: NonNegative
    steps: Count
    seconds: NonNegative
    cases: Literal["held_out", "inner", "next_fold"] = "held_out"
    monitor: Monitor = "class_mean.dice"


Choice = Literal["epoch", "learning rate"]
_JOULES_OF_A_KWH = 3.6e6


def energy_text(energy: Mapping[str, float]) -> str:
    """In kWh, with the parts it is of; "" if it is not known."""
    if not energy:
        return ""
    return f"{sum(energy.values()) / _JOULES_OF_A_KWH:.2g} kWh ({' and '.join(energy)})"


def sum_of_energy(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By part, of those that all have; empty if one is not known."""
    every = list(several)
    parts = [part for part in (every[0] if every else {}) if all(part in one for one in every)]
    return {part: sum(one[part] for one in every) for part in parts}


def choices_text(choices: tuple[str, ...]) -> str:
    """One line on which choices saw scored cases, all or some of them."""
    if not choices:
        return "no choice of the training saw the scored cases"
    names = " and the ".join(choices)
    return f"the {names} {'was' if len(choices) == 1 else 'were'} chosen on scored cases, so the scores are optimistic"


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """One file that a run started from. file: its path in the weights folder, else its name. source: address or package, "" if
    not known. licence, trained_on: "" for a file of the user's own."""

    file: str
    sha256: str
    licence: str = ""
    trained_on: str = ""
    source: str = ""


def _run_to_version_2(content: Content) -> Content:
    if "best_dice" in content:
        content.setdefault("dice", {})
        _with_named_average(content)
    if content.get("search") is not None:
        _search_to_version_2(content["search"])
    return content


@dataclass(frozen=True, kw_only=True)
class RunRecord(Artefact):
    """`run.json`. identity: hash of everything that determines the weights (plan, split, model, seed); must be equal to resume.

    class_mean_dice, micro_dice, micro_iou: of the validation of best.pt: the mean over classes of the Dice of summed pixel
    counts, and of the counts summed over the classes too (not-a-number in older records). dice: of each class. monitor: which
    of them chose the epoch.
    versions: of autoseg, torch, Python. pretrained: source of the initial weights, "" for random ones; weights: its files.

    seconds: on the clock, of the whole run; processor_seconds: of all cores, of the main process and the workers that load its
    data. energy: joules of the whole machine during the run, "processor" (packages) and "GPU", only what the machine tells.
    epoch_seconds: of an epoch's training, without validation. steps: of the optimiser, without
    skipped ones (not finite). images_per_second: training images, of all processes together. peak_memory:
    maximum bytes of the training process in the machine's memory, including PyTorch; peak_device_memory: maximum bytes of
    tensors on a CUDA device; peak_step_memory: the same in training steps only, to compare with planned_memory, measured
    by the planner. accumulate: parts of a batch, more than the plan's if those did not fit into the memory. search: how the
    learning rate was chosen, None without a search. memory_format: of the tensors; the plan has the reason. activation:
    what turns the logits into probabilities, "" in older records. deterministic: only with algorithms that repeat to the last
    bit on a GPU. extended: the epochs after which a finished run was trained on to more. selection: see `Training`.
    saw_scored_cases: the choices that were made on the cases the fold is scored on.
    """

    NAME = "run"
    VERSION = 2
    MIGRATIONS = (_run_to_version_2,)

    dataset: FileName
    model: FileName
    variant: str
    fold: Count
    protocol: str
    identity: str
    seed: Count
    device: str
    precision: str
    status: Literal["running", "finished", "stopped"]
    epochs_planned: Count
    epochs_done: Count = 0
    best_epoch: Annotated[int, Within(-1)] = -1
    class_mean_dice: ShareResult = 0.0
    micro_dice: ShareResult = math.nan
    micro_iou: ShareResult = math.nan
    dice: dict[str, ShareResult] = field(default_factory=dict)
    monitor: Monitor = "class_mean.dice"
    seconds: NonNegative = 0.0
    processor_seconds: NonNegative = 0.0
    energy: dict[str, NonNegative] = field(default_factory=dict)
    parameters: Count = 0
    pretrained: str = ""
    weights: tuple[InitialWeights, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    learning_rate: NonNegative = 0.0
    batch_size: Count = 0
    processes: Positive = 1
    steps: Count = 0
    epoch_seconds: NonNegative = 0.0
    images_per_second: NonNegative = 0.0
    peak_memory: Count = 0
    peak_device_memory: Count = 0
    peak_step_memory: Count = 0
    planned_memory: Count = 0
    accumulate: Count = 0
    search: RateSearch | None = None
    memory_format: str = "contiguous"
    activation: Literal["", "softmax", "sigmoid"] = ""
    deterministic: bool = False
    extended: tuple[Positive, ...] = ()
    selection: Selection = "held_out"
    saw_scored_cases: tuple[Choice, ...] = ("epoch",)

    @property
    def dice_text(self) -> str:
        """Its Dice in words. Records of older releases may lack the micro average."""
        if math.isnan(self.micro_dice):
            return f"Dice {self.class_mean_dice:.3f} (class mean)"
        means = f", class mean {self.class_mean_dice:.3f}" if len(self.dice) > 1 else ""
        return f"mDSC {self.micro_dice:.3f}{means}"
