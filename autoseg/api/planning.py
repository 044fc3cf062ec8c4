"""Looking and deciding: fingerprint, plan, splits, arrays."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.options import DatasetId, Models, PathLike, Settings, model_names, setting_texts
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import Results
from autoseg.schema.plan import Decision, Plan, Protocol, Splits
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.raw_dataset import RawDataset

logger = logging.getLogger(__name__)


def fingerprint(dataset: DatasetId, root: Root = None, *, processes: bool = False) -> Fingerprint:
    """Measure a raw dataset. The result is kept in fingerprint.json and reused while the files stay the same.

    Args:
        dataset: id or name of the dataset.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        processes: measure a thousand images and more in worker processes, faster than threads on many cores. A script needs
            `if __name__ == "__main__":` around the call then.

    Returns:
        Sizes, values, classes and objects of all cases, look-alikes, and what a person should look at.

    Raises:
        AutosegError: files are missing, unreadable or do not fit; the message lists all of them.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset

    return fingerprint_dataset(Workspace.at(root).dataset(dataset), processes=processes)


def plan_and_preprocess(
    dataset: DatasetId,
    *,
    protocol: Protocol = "auto",
    models: Models | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    settings: Settings | None = None,
    splits: PathLike | None = None,
    preprocess: bool = True,
    processes: bool = False,
    root: Root = None,
) -> Plan:
    """Measure a dataset, decide how to train each model, and write fingerprint.json, plan.json, splits.json and the arrays.

    Args:
        dataset: id or name of the dataset.
        protocol: "auto"; "quick", minutes on a laptop; "benchmark", the same settings for every model.
        models: names of models to plan for (default: all).
        memory: what a training may take, in bytes or as "8G" (default: by the device).
        device: what the trainings will run on: "auto", "cpu", "cuda", "cuda:1" or "mps".
        settings: dotted field of the plan -> value: {"training.epochs": 50}. What was set is recorded in the plan.
        splits: a file of your own folds, in autoseg's or nnU-Net's form, checked for leaks (default: those made before,
            else new ones).
        preprocess: also write the arrays that trainings read.
        processes: as for `fingerprint`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The plan: what each model gets, and every decision with its reason.

    Raises:
        AutosegError: the files have faults, a model or setting is unknown, splits leak, or the memory is too small.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.io.cache import DecodedImageCache
    from autoseg.io.raw_dataset import RawDataset

    found = Workspace.at(root).dataset(dataset)
    raw = RawDataset.open(found)
    with DecodedImageCache(found.preprocessed) if preprocess else nullcontext() as kept:
        seen = fingerprint_dataset(found, cache=kept, raw=raw, processes=processes)
        from autoseg import models as registry
        from autoseg.planning.planner import make_plan
        from autoseg.preprocessing.preprocess import preprocess_dataset

        chosen = model_names(models) or registry.usable_names()
        plan = make_plan(
            seen, raw.spec, protocol=protocol, models=chosen, memory=memory, device=device, settings=setting_texts(settings)
        )
        write_artefact(found.splits, _splits(found, raw, seen, plan, Path(splits) if splits else None))
        write_artefact(found.plan, plan)
        if kept and len(plan.preprocessing) == 1:
            kept.stop_caching()
        logger.info(f"{found.name}: {len(raw.cases)} cases, plan for {len(plan.models)} models in {found.plan}")
        for preparation in plan.preprocessing.values() if preprocess else ():
            preprocess_dataset(found, raw, preparation, content_hash=seen.content_hash, cache=kept)
    return plan


def decisions(plan: Plan) -> Results[Decision]:
    """List every decision of a plan with its reason, including what the user set.

    Args:
        plan: from `plan_and_preprocess`.

    Returns:
        The decisions: of the dataset first, then of each model.
    """
    from autoseg.planning.explain import explain

    return Results(explain(plan))


def _splits(found: Dataset, raw: RawDataset, seen: Fingerprint, plan: Plan, given: Path | None) -> Splits:
    """Given splits, else those on disk while they fit cases and settings (a person may have made them), else new ones."""
    from autoseg.planning.splits import check_splits, make_splits, read_splits

    if given is not None:
        return read_splits(given, seen, raw.spec)
    if found.splits.exists():
        splits = read_artefact(found.splits, Splits, f"delete {found.splits} to have it made again")
        asked = {"training.folds", "training.seed"} & set(plan.overrides)
        if {case for fold in splits.folds for case in fold.validation} != {case.name for case in raw.cases}:
            logger.warning(f"the cases of {found.name} changed: trainings on the new splits do not compare with older ones")
        elif not asked or (len(splits.folds), splits.seed) == (plan.training.folds, plan.training.seed):
            check_splits(splits, seen, raw.spec)
            return splits
        else:
            logger.warning(f"new splits of {found.name}, as set: trainings on them do not compare with older ones")
    return make_splits(seen, raw.spec, plan.training.folds, plan.training.seed)
