"""Fingerprint, plan, splits and arrays of a dataset."""

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
    """Measure a raw dataset. The result is written to fingerprint.json and reused while the files do not change.

    Args:
        dataset: id or name of the dataset.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        processes: use worker processes from 1000 images on, faster than threads on many cores. A script then needs
            `if __name__ == "__main__":` around the call.

    Returns:
        Sizes, values, classes and objects of all cases, near-duplicates, and findings to check.

    Raises:
        AutosegError: files are missing, unreadable or inconsistent; the message lists all of them.
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
        memory: limit for a training, in bytes or as "8G" (default: by the device).
        device: device of the trainings: "auto", "cpu", "cuda", "cuda:1" or "mps".
        settings: dotted field of the plan -> value: {"training.epochs": 50}. The plan records them.
        splits: a file with your own folds, in autoseg's or nnU-Net's format, checked for leaks (default: existing ones,
            else new ones).
        preprocess: also write the arrays that trainings read.
        processes: as for `fingerprint`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The plan: the configuration of each model, and every decision with its reason.

    Raises:
        AutosegError: the files have errors, a model or setting is unknown, splits leak, or the memory is too small.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.io.cache import DecodedImageCache
    from autoseg.io.raw_dataset import RawDataset

    data = Workspace.at(root).dataset(dataset)
    raw = RawDataset.open(data)
    with DecodedImageCache(data.preprocessed) if preprocess else nullcontext() as cache:
        measured = fingerprint_dataset(data, cache=cache, raw=raw, processes=processes)
        from autoseg import models as registry
        from autoseg.planning.planner import make_plan
        from autoseg.preprocessing.preprocess import preprocess_dataset

        selected = model_names(models) or registry.usable_names()
        plan = make_plan(
            measured,
            raw.spec,
            protocol=protocol,
            models=selected,
            memory=memory,
            device=device,
            settings=setting_texts(settings),
        )
        write_artefact(data.splits, _splits(data, raw, measured, plan, Path(splits) if splits else None))
        write_artefact(data.plan, plan)
        if cache and len(plan.preprocessing) == 1:
            cache.stop_caching()
        logger.info(f"{data.name}: {len(raw.cases)} cases, plan for {len(plan.models)} models in {data.plan}")
        for config in plan.preprocessing.values() if preprocess else ():
            preprocess_dataset(data, raw, config, content_hash=measured.content_hash, cache=cache)
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


def _splits(data: Dataset, raw: RawDataset, measured: Fingerprint, plan: Plan, path: Path | None) -> Splits:
    """The splits of a file if given; else those on disk if they match cases and settings; else new ones."""
    from autoseg.planning.splits import check_splits, make_splits, read_splits

    if path is not None:
        return read_splits(path, measured, raw.spec)
    if data.splits.exists():
        splits = read_artefact(data.splits, Splits, f"delete {data.splits} to make new splits")
        overridden = {"training.folds", "training.seed"} & set(plan.overrides)
        if {case for fold in splits.folds for case in fold.validation} != {case.name for case in raw.cases}:
            logger.warning(f"the cases of {data.name} changed: trainings on the new splits cannot be compared with older ones")
        elif not overridden or (len(splits.folds), splits.seed) == (plan.training.folds, plan.training.seed):
            check_splits(splits, measured, raw.spec)
            return splits
        else:
            logger.warning(
                f"new splits of {data.name} for the changed settings: trainings on them cannot be compared with older ones"
            )
    return make_splits(measured, raw.spec, plan.training.folds, plan.training.seed)
