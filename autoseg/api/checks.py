"""Checks before anything is made from derived files: the raw files, the splits, and the runs made from them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from autoseg.api.planning import plan_again, planning_command
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Plan, Splits
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Root, model_of_folder

logger = logging.getLogger(__name__)


def current_plan(dataset: Dataset, plan: Plan, replan: bool, device: str, root: Root, *, preprocess: bool = True) -> Plan:
    """The plan, or a new one if the raw files have changed and `replan` asks for it. The splits are checked too.

    Raises ChangedSources that names the changed cases and the command that plans again, SeveralProblems for splits that
    leak.
    """
    from autoseg.fingerprint.sources import ChangedSources, check_sources
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.splits import check_splits

    raw = RawDataset.open(dataset)
    try:
        check_sources(dataset, plan.content_hash, remedy=f"{planning_command(dataset, plan)}  (or --replan)", raw=raw)
    except ChangedSources as error:
        if not replan:
            raise
        logger.warning(error.problem)
        return plan_again(dataset, plan, plan.protocol, [], device, root, preprocess=preprocess)
    splits = read_artefact(dataset.splits, Splits, planning_command(dataset, plan))
    remedy = f"correct {dataset.splits}, or delete it and plan again: autoseg_plan_and_preprocess {dataset.number}"
    check_splits(splits, current_fingerprint(dataset, plan), raw.spec, remedy)
    return plan


def check_runs(dataset: Dataset, folders: Iterable[Path], *, warn: bool = False) -> None:
    """Compare the raw files with those that runs were trained on. folders: of the runs.

    warn: only log what changed. Raises ChangedSources. Results without their raw dataset are not checked.
    """
    plans = {folder: read_artefact(folder / "plan.json", Plan) for folder in folders if (folder / "plan.json").is_file()}
    check_plans(dataset, plans, warn=warn)


def check_plans(dataset: Dataset, plans: Mapping[Path, Plan], *, warn: bool = False) -> None:
    """The same for plans that were read: folder of the run -> its plan."""
    from autoseg.fingerprint.sources import ChangedSources, check_sources

    if not dataset.description.is_file():
        return
    runs = {plan.content_hash: folder for folder, plan in plans.items()}
    for content_hash, folder in runs.items():
        remedy = f"put the files back, or plan and train again: {planning_command(dataset, plans[folder])}"
        try:
            check_sources(dataset, content_hash, f"{model_of_folder(folder.parent.name)}, {folder.name} was trained", remedy)
        except ChangedSources as error:
            if not warn:
                raise
            logger.warning(error.problem)


def current_fingerprint(dataset: Dataset, plan: Plan) -> Fingerprint:
    """The fingerprint of the plan; measured again if it is missing, damaged or of other files."""
    try:
        measured = read_artefact(dataset.fingerprint, Fingerprint)
    except AutosegError as error:
        logger.warning(f"{error.problem}: it is measured again")
    else:
        if measured.content_hash == plan.content_hash:
            return measured
    from autoseg.fingerprint.measure import fingerprint_dataset

    return fingerprint_dataset(dataset)
