"""Record of a training run: `run.json`, `learning_rate.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import AboveZero, Count, FileName, NonNegative, Positive, ShareResult, Within
from autoseg.schema.plan import Selection


@dataclass(frozen=True, kw_only=True)
class RateTrial:
    """One tried learning rate. best_dice: mean validation Dice of its best epoch on whole images; dice: of each class."""

    rate: AboveZero
    best_dice: ShareResult
    dice: dict[str, ShareResult]
    steps: Count
    seconds: NonNegative


@dataclass(frozen=True, kw_only=True)
class RateSearch(Artefact):
    """`learning_rate.json`: the candidates, each trained for `epochs` epochs on `fold`; `chosen` is used for all folds
    (0 while the search runs).

    identity: hash of everything that determines the trials. steps, seconds: of all trials, part of the model's budget.
    cases: on which the candidates were compared: the fold's held-out cases, or inner cases of its training side.
    """

    NAME = "learning_rate"
    VERSION = 1

    fold: Count
    epochs: Count
    identity: str
    tried: tuple[RateTrial, ...]
    chosen: NonNegative
    steps: Count
    seconds: NonNegative
    cases: Literal["held_out", "inner"] = "held_out"


Choice = Literal["epoch", "learning rate"]


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


@dataclass(frozen=True, kw_only=True)
class RunRecord(Artefact):
    """`run.json`. identity: hash of everything that determines the weights (plan, split, model, seed); must be equal to resume.

    best_dice: validation Dice of best.pt: mean over classes of the Dice of summed pixel counts. dice: of each class.
    versions: of autoseg, torch, Python. pretrained: source of the initial weights, "" for random ones; weights: its files.

    seconds: on the clock, of the whole run; processor_seconds: of all cores, of the main process and the workers that load its
    data. epoch_seconds: of an epoch's training, without validation. steps: of the optimiser, without
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
    VERSION = 1

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
    best_dice: ShareResult = 0.0
    dice: dict[str, ShareResult] = field(default_factory=dict)
    seconds: NonNegative = 0.0
    processor_seconds: NonNegative = 0.0
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
