"""Train a finished run on to more epochs (--extend).

The run keeps its weights, its optimiser and its own plan; only the number of epochs grows. The learning rate goes on as in a
run planned for the new number from the epoch it stopped at, so the weights differ from those of such a run: the identity of
the run and run.json say where it was extended, and a comparison names it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.training import checkpoint

# The part of a run's identity that says after which epochs it was extended.
PART = "extended after epochs"
# How the lines of `config_hash.differences` begin that an extension may have.
DIFFERENCES = ("training.epochs: ", f"{PART}: ")
_WEIGHTS = "pretrained weights"
_RETRAIN = "train the fold first (autoseg_train)"


def extended_plan(folder: Path, epochs: int) -> Plan:
    """The plan of the finished run in `folder`, or of one whose extension was interrupted, with `epochs` epochs.

    Raises AutosegError if there is no such run, if it already has so many epochs, or if its protocol fixes their number.
    """
    record = read_artefact(folder / checkpoint.RECORD, RunRecord, _RETRAIN)
    plan = read_artefact(folder / checkpoint.PLAN, Plan, _RETRAIN)
    if record.protocol == "benchmark":
        raise AutosegError(
            f"{folder} holds a run of the benchmark protocol, which gives every model the same epochs; it is not extended",
            "plan with more epochs for all models (--set training.epochs=N) and train them again",
        )
    if record.extended and record.epochs_planned == epochs:
        return plan
    if record.status != "finished":
        raise AutosegError(
            f"the run in {folder} is not finished: {record.epochs_done} of {record.epochs_planned} epochs",
            f"resume it first, {'with --extend ' + str(record.epochs_planned) if record.extended else 'without --extend'}",
        )
    if epochs <= record.epochs_planned:
        raise AutosegError(
            f"the run in {folder} already has {record.epochs_planned} epochs; --extend {epochs} adds none",
            f"name the number of all epochs, more than {record.epochs_planned}",
        )
    return replace(plan, training=replace(plan.training, epochs=epochs))


def continued(state: checkpoint.State, identity: dict[str, str], extend: bool) -> dict[str, str]:
    """The identity of a run that goes on from `state`: `identity`, and where the run was extended.

    extend: a finished run is extended now, if `identity` is of more epochs. Pretrained weights had their effect long ago: an
    extended run keeps those of its start.
    """
    before = state["identity"]
    epochs = extended_after(before)
    if extend and _epochs(identity) > _epochs(before):
        epochs = (*epochs, int(state["progress"]["epoch"]))
    if not epochs:
        return identity
    return {**identity, _WEIGHTS: before[_WEIGHTS], PART: json.dumps(epochs)}


def with_start_of(folder: Path, record: RunRecord) -> RunRecord:
    """The record of an extended run with what happened before it was extended; that of another run as it is."""
    if not record.extended:
        return record
    before = read_artefact(folder / checkpoint.RECORD, RunRecord, _RETRAIN)
    return replace(record, pretrained=before.pretrained, search=before.search, saw_scored_cases=before.saw_scored_cases)


def extended_after(identity: dict[str, str]) -> tuple[int, ...]:
    """The epochs after which the run of this identity was extended."""
    return tuple(json.loads(identity.get(PART, "[]")))


def hint(state: checkpoint.State, identity: dict[str, str]) -> str:
    """How a run of other epochs goes on, for a message; "" if the epochs are equal."""
    before, now = _epochs(state["identity"]), _epochs(identity)
    if extended_after(state["identity"]) and before != now:
        return f"; --extend {before} goes on with this extended run"
    return f"; a finished run is trained on with --extend {now}" if now > before else ""


def _epochs(identity: dict[str, str]) -> int:
    return int(json.loads(identity["training"])["epochs"])
