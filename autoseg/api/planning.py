"""Looking and deciding: fingerprint, plan, splits, arrays."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision, Plan, Protocol, Splits
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workers import available_cores
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.kept import Kept, Places
    from autoseg.io.raw_dataset import RawDataset

logger = logging.getLogger(__name__)


def model_table() -> list[dict[str, Any]]:
    """One row per registered architecture; `parameters` of its default variant for 3 channels and 2 classes."""
    from autoseg import models as registry

    rows = []
    for name in registry.names():
        spec = registry.spec(name)
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "family": spec.family,
                "variants": {variant.name: variant.parameters for variant in spec.variants},
                "default_variant": spec.default_variant,
                "parameters": spec.variant(spec.default_variant).parameters,
                "divisor": spec.divisor,
                "fixed_size": spec.fixed_size,
                "weights": sorted({weights.trained_on for weights in spec.weights}),
                "citation": spec.citation,
            }
        )
    return rows


def fingerprint(dataset: str | int, root: Root = None) -> Fingerprint:
    """What can be measured of a raw dataset; written to fingerprint.json and reused while the files are the same."""
    from autoseg.fingerprint.measure import fingerprint_dataset

    return fingerprint_dataset(Workspace.at(root).dataset(dataset))


def plan_and_preprocess(
    dataset: str | int,
    *,
    protocol: Protocol = "auto",
    models: Sequence[str] | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    settings: Mapping[str, str] | None = None,
    splits: str | Path | None = None,
    preprocess: bool = True,
    root: Root = None,
) -> Plan:
    """Fingerprint, plan for `models` (None: all), make the splits and the arrays. memory: what a training may take,
    in bytes or as "8G".

    settings: dotted field -> value, for example {"training.epochs": "50"}; what was set is recorded in the plan. splits: a
    file of your own (autoseg's or nnU-Net's form), checked for leaks; without it, splits made before are kept.
    """
    from autoseg.io.kept import Kept
    from autoseg.io.raw_dataset import RawDataset

    found = Workspace.at(root).dataset(dataset)
    raw = RawDataset.open(found)
    with Kept(found.preprocessed, processes=available_cores()) if preprocess else nullcontext() as kept:
        seen = _fingerprint_while_loading(found, raw, kept)
        from autoseg import models as registry
        from autoseg.planning.planner import make_plan
        from autoseg.preprocessing.build import build_store

        plan = make_plan(seen, raw.spec, protocol, models or registry.names(), memory, device, settings)
        write_artefact(found.splits, _splits(found, raw, seen, plan, Path(splits) if splits else None))
        write_artefact(found.plan, plan)
        if kept and len(plan.preparations) == 1:
            kept.keep_no_more()
        logger.info(f"{found.name}: {len(raw.cases)} cases, plan for {len(plan.models)} models in {found.plan}")
        for preparation in plan.preparations.values() if preprocess else ():
            build_store(found, raw, preparation, content_hash=seen.content_hash, kept=kept)
    return plan


def _fingerprint_while_loading(found: Dataset, raw: RawDataset, kept: Kept | None) -> Fingerprint:
    """The dataset's fingerprint; PyTorch, which planning needs and which takes a second and more to load, is loaded beside."""
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.support.beside import beside

    if "torch" in sys.modules:
        return fingerprint_dataset(found, kept=kept, raw=raw)

    def work() -> tuple[Fingerprint, Places | None]:
        seen = fingerprint_dataset(found, kept=kept, raw=raw)
        return seen, kept.news() if kept else None

    with beside(work) as result:
        importlib.import_module("autoseg.planning.planner")
        seen, news = result()
    if kept and news:
        kept.hear(news)
    return seen


def decisions(plan: Plan) -> list[Decision]:
    """Every decision of a plan with its reason, what the user set included."""
    from autoseg.planning.explain import explain

    return explain(plan)


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
