"""Checkpoints hold only tensors, numbers and strings, so loading one cannot run code. They are written atomically.

Each holds a hash of its content and the inputs of its run; both are checked when it is read.

best.pt            weights of the best validation so far
last.pt            everything needed to resume exactly: weights, optimiser, scaler, progress
last.previous.pt   the checkpoint before, used if last.pt is damaged
"""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from autoseg.inference.activation import Activation, output_activation
from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.models.registry import build
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.plan import Fold, ModelPlan, Plan, PreprocessingConfig, Splits
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_write, read_artefact
from autoseg.training.config_hash import config_hash, digest

logger = logging.getLogger(__name__)

FORMAT = "autoseg checkpoint 2"
_FORMAT_1 = "autoseg checkpoint 1"
# Old and new field names of `Progress`. Epochs since the best one were counted before validations were.
_OLD_FIELDS = {
    "best_dice": "best_value",
    "stale": "validations_since_best",
    "epochs_since_best": "validations_since_best",
    "in_a_row": "consecutive_skipped",
    "waited": "data_seconds",
}
BEST, LAST, PREVIOUS = "best.pt", "last.pt", "last.previous.pt"
RECORD, PLAN, DATASET, SPLITS = "run.json", "plan.json", "dataset.json", "splits.json"
_RETRAIN = "train again (autoseg_train ... --restart), or restore the file from a backup"
_HASH = "content_hash"
_SIGMOID_LOSSES = ("bce", "dice_bce")
# Parts of a run's identity that its plan.json and dataset.json must agree with to build and feed the network.
_DESCRIBED = ("model", "preparation", "labels", "prepared data")

State = dict[str, Any]


@dataclass(kw_only=True)
class Progress:
    """State of a run. epoch, step: the next ones to run.

    best_value: of `Training.monitor` at best_epoch, -1 before the first validation; averages: all averages of that validation
    (see `metrics.overlap.averages`); dice: of each class. patience_value: the value that `Training.min_delta` is counted from;
    validations_since_best: those since then, for `Training.patience`. skipped: steps skipped for a NaN or infinite loss or
    gradient; consecutive_skipped: those since the last good step. losses, loss_sum: number and sum of the losses of the current
    epoch.
    seconds: total of the run; validating: seconds of it in validation; processor_seconds: see `RunRecord`.
    epoch_seconds: seconds of the current epoch; data_seconds: seconds of it spent waiting for data. peak_memory,
    peak_device_memory, peak_step_memory: see `RunRecord`. accumulate: parts of a batch that fit into the memory, 0 before the
    first step. energy: see `RunRecord`; empty in older checkpoints.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_value: float = -1.0
    patience_value: float = -1.0
    averages: dict[str, float] = field(default_factory=dict)
    dice: dict[str, float] = field(default_factory=dict)
    validations_since_best: int = 0
    skipped: int = 0
    consecutive_skipped: int = 0
    losses: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    validating: float = 0.0
    processor_seconds: float = 0.0
    energy: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    data_seconds: float = 0.0
    peak_memory: int = 0
    peak_device_memory: int = 0
    peak_step_memory: int = 0
    accumulate: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run, loaded to predict. It need not be finished. network: in evaluation mode."""

    network: SegmentationNetwork
    plan: Plan
    model_plan: ModelPlan
    preprocessing: PreprocessingConfig
    scheme: LabelScheme
    spec: DatasetSpec
    record: RunRecord

    @property
    def activation(self) -> Activation:
        """What turns the logits into probabilities, as in training. Older records do not say it, but their plan does."""
        if self.record.activation:
            return self.record.activation
        by_sigmoid = self.plan.training.loss in _SIGMOID_LOSSES and not registry.spec(self.record.model).own_loss
        return output_activation("sigmoid" if by_sigmoid else "", self.scheme)


def save_last(folder: Path, identity: dict[str, str], states: dict[str, State], progress: Progress, memory_format: str) -> None:
    """Write last.pt and keep the old one as last.previous.pt. states: name -> state dict. memory_format: of the run.

    Raises AutosegError on a full disk; existing files are then unchanged.
    """
    path = folder / LAST
    with atomic_write(path) as temporary:
        content = {"format": FORMAT, "identity": identity, "progress": asdict(progress), "memory_format": memory_format}
        _write({**content, **states}, temporary)
        if path.exists():
            path.replace(folder / PREVIOUS)


def save_best(folder: Path, identity: dict[str, str], weights: dict[str, Tensor], epoch: int, value: float) -> None:
    """Write best.pt. value: of `Training.monitor`. The weights are under the key "state_dict", as is usual in PyTorch."""
    with atomic_write(folder / BEST) as temporary:
        _write({"format": FORMAT, "identity": identity, "state_dict": weights, "epoch": epoch, "value": value}, temporary)


def load_last(folder: Path) -> State | None:
    """The content of last.pt, or of last.previous.pt if last.pt is damaged. None if the folder has neither.

    Raises AutosegError if every checkpoint in the folder is damaged or not from autoseg.
    """
    problems: list[AutosegError] = []
    for name in (LAST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            state = read(folder / name)
        except AutosegError as error:
            problems.append(error)
            continue
        if problems:
            logger.warning(f"{problems[0].problem}; resuming from {folder / name}")
        return state
    if problems:
        raise problems[0]
    return None


def read(path: Path) -> State:
    """The content of an autoseg checkpoint, on the CPU. Raises AutosegError if it is missing, damaged or foreign."""
    if not path.is_file():
        raise AutosegError(f"there is no checkpoint {path}", "train the fold first (autoseg_train)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or _HASH not in state:
            _check_crc(path)  # From an older release.
    except pickle.UnpicklingError as error:
        raise AutosegError(f"{path} is damaged, or contains more than weights, and was not loaded", _RETRAIN) from error
    except OSError as error:
        raise AutosegError(f"{path} cannot be read: {error.strerror or error}", _RETRAIN) from error
    except Exception as error:  # Depending on the bit that changed, torch raises almost anything.
        raise AutosegError(f"{path} is damaged: perhaps it was not copied completely", _RETRAIN) from error
    if not isinstance(state, dict) or state.get("format") not in (FORMAT, _FORMAT_1):
        raise AutosegError(f"{path} is not a checkpoint of this version of autoseg", _RETRAIN)
    if state.pop(_HASH, None) not in (None, _content_hash(state)):
        raise AutosegError(f"{path} is damaged: its content changed after it was written", _RETRAIN)
    if "progress" in state:
        state["progress"] = _with_present_fields(state["progress"])
    return state


def _with_present_fields(progress: State) -> State:
    """Older releases chose by the class mean, and stored nothing else."""
    present = {_OLD_FIELDS.get(name, name): value for name, value in progress.items()}
    if "averages" not in present and "best_value" in present:
        best = present["best_value"]
        present |= {"patience_value": best, "averages": {"class_mean.dice": best} if best >= 0 else {}}
    return present


def read_best(folder: Path, *identities: dict[str, str]) -> State:
    """The content of best.pt. identities: inputs of the runs it may be of. Raises AutosegError, also if it is of another."""
    state = read(folder / BEST)
    if state.get("identity") not in identities:
        raise AutosegError(f"{folder / BEST} holds the weights of another run", _RETRAIN)
    return state


def load_network(folder: Path, which: str = "best", device: torch.device | str = "cpu") -> Trained:
    """Load the network of a results folder, and everything needed to predict with it.

    which: "best" or "last". Raises AutosegError naming the file that is missing or damaged, and for weights, plan.json or
    dataset.json of another run than run.json.
    """
    assert which in ("best", "last"), which
    record = read_artefact(folder / RECORD, RunRecord, f"{folder} does not contain a training run")
    plan = read_artefact(folder / PLAN, Plan, _RETRAIN)
    spec = read_artefact(folder / DATASET, DatasetSpec, _RETRAIN)
    if record.model not in plan.models:
        raise AutosegError(
            f"{folder / RECORD} is of {record.model}, {folder / PLAN} of {', '.join(plan.models) or 'no model'}", _RETRAIN
        )
    model_plan = plan.models[record.model]
    preprocessing, scheme = plan.preprocessing[model_plan.preprocessing], spec.label_scheme()
    path = folder / (BEST if which == "best" else LAST)
    state = read(path)
    _check_run(path, state, record, plan, spec)
    with torch.random.fork_rng([]):  # Initialising weights must not change the caller's random numbers.
        network = build_network(model_plan, preprocessing, scheme, folder / PLAN)
    try:
        network.load_state_dict(state["state_dict"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise AutosegError(f"{path} does not fit {record.model} as built from {folder / PLAN}: {error}", _RETRAIN) from error
    return Trained(
        network=network.to(device).eval(),
        plan=plan,
        model_plan=model_plan,
        preprocessing=preprocessing,
        scheme=scheme,
        spec=spec,
        record=record,
    )


def read_split(folder: Path, fold: int) -> Fold:
    """The cases of the run in a results folder, from its splits.json. Raises AutosegError if that lacks the fold."""
    splits = read_artefact(folder / SPLITS, Splits, _RETRAIN)
    if not 0 <= fold < len(splits.folds):
        raise AutosegError(f"{folder / SPLITS} has {len(splits.folds)} folds, but the run is of fold {fold}", _RETRAIN)
    return splits.folds[fold]


def read_case_groups(folder: Path) -> dict[str, str]:
    """Case -> group (see `Splits.case_groups`), from the files in a results folder; {} if it has none."""
    if not (folder / SPLITS).is_file():
        return {}
    patients = read_artefact(folder / DATASET, DatasetSpec).groups if (folder / DATASET).is_file() else {}
    return read_artefact(folder / SPLITS, Splits).case_groups(patients)


def _check_run(path: Path, state: State, record: RunRecord, plan: Plan, spec: DatasetSpec) -> None:
    """Compare the inputs of the run that wrote a checkpoint with run.json, plan.json and dataset.json next to it."""
    identity = state.get("identity")
    if not isinstance(identity, dict) or digest(identity) != record.identity:
        raise AutosegError(f"{path} holds the weights of another run than {path.with_name(RECORD)}", _RETRAIN)
    now = config_hash(plan, plan.models[record.model], spec.label_scheme(), Fold((), ()), "")
    changed = [part for part in _DESCRIBED if part in identity and not _same(json.loads(identity[part]), json.loads(now[part]))]
    if changed:
        raise SeveralProblems(
            f"{RECORD}, {PLAN} or {DATASET} in {path.parent} is not of the run that wrote {path.name}; different are:",
            changed,
            _RETRAIN,
        )


def _same(before: Any, now: Any) -> bool:
    """Whether the fields that both releases know are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(before[name] == now[name] for name in before.keys() & now.keys())
    return bool(before == now)


def build_network(
    model_plan: ModelPlan, preprocessing: PreprocessingConfig, scheme: LabelScheme, source: object
) -> SegmentationNetwork:
    """The network of a plan, with random weights. source: the plan's file, for messages. Raises AutosegError for a model,
    variant or option that does not exist."""
    try:
        return build(
            model_plan.model,
            model_plan.variant,
            in_channels=preprocessing.channels,
            num_classes=scheme.outputs,
            input_size=model_plan.input_size,
            **model_plan.options,
        )
    except AutosegError as error:
        raise AutosegError(f"{source}: models.{model_plan.model}: {error.problem}", error.remedy) from error


def _content_hash(content: State) -> str:
    """XXH3, 128 bits, over all keys, numbers, texts and tensors."""
    digested = xxhash.xxh3_128()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous().reshape(-1)
            digested.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digested.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
        elif isinstance(value, dict):
            digested.update(f"dict {len(value)}".encode())
            for key, item in value.items():
                digested.update(repr(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            digested.update(f"list {len(value)}".encode())
            for item in value:
                add(item)
        else:
            digested.update(repr(value).encode())

    add(content)
    return digested.hexdigest()


def _check_crc(path: Path) -> None:
    """Compare each member of the zip file with its check sum. Raises ValueError or BadZipFile."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} has another check sum")


def _write(content: State, path: Path) -> None:
    content = {**content, _HASH: _content_hash(content)}
    try:
        # torch.save hides the OSError (full disk) of a path it opens itself, but not that of an open stream.
        with path.open("wb") as stream:
            torch.save(content, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
