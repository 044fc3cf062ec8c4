"""Every model, every fold, every dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.planning import plan_and_preprocess
from autoseg.schema.grid import GridTable
from autoseg.schema.plan import Plan, Protocol, Splits
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.grid.engine import Engine

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray", "slurm")


def run(
    datasets: Sequence[str | int],
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_run: int = 0,
    address: str | None = None,
    slurm: Mapping[str, str] | None = None,
    retries: int = 2,
    protocol: Protocol | None = None,
    settings: Mapping[str, str] | None = None,
    pretrained: str | None = None,
    log_to: Sequence[str] = (),
    device: str = "auto",
    watch: Callable[[GridTable], None] = lambda table: None,
    root: Root = None,
) -> GridTable:
    """Train and score every (dataset, model, fold) that is not done, predict the test images there are, and compare.

    models, folds: None for all of each dataset's plan. A dataset without a plan, or with one for another protocol than
    asked for, is planned first. engine: "local" (`workers` runs side by side), "ray" (a cluster at `address`, else one of
    this machine) or "slurm" (`slurm`: submitit's parameters). gpus_per_run: GPUs each run gets. retries: how often a run that
    died is started again. settings hold for every run. watch: called with the table while the grid runs.
    Returns the table, which is also in results/grid.json. Raises AutosegError before anything is started where something
    is missing.
    """
    from autoseg.grid.cells import Asked, fold_cells, named
    from autoseg.grid.schedule import run_grid

    place = Workspace.at(root).root
    found = named(place, datasets)
    for dataset in found:
        _plan(dataset, models, protocol, device, place)
    cells = [cell for dataset in found for cell in fold_cells(dataset, models, folds)]
    for dataset in found:
        _prepare(dataset, {cell.model for cell in cells if cell.dataset == dataset.name}, settings or {})
    with_gpus = max(1, gpus_per_run)
    asked = Asked(place, device if not gpus_per_run else "cuda", pretrained, settings, with_gpus, tuple(log_to))
    chosen = _engine(engine, workers, gpus_per_run, address, slurm, place)
    table = run_grid(cells, asked, chosen, retries=retries, watch=watch)
    _compare(table, place)
    return table


def grid_status(root: Root = None) -> GridTable:
    """Where the grid that ran last, or runs now, stands."""
    from autoseg.grid.table import status

    return status(Workspace.at(root).root)


def _compare(table: GridTable, root: Path) -> None:
    """The models of each dataset that has several; where they cannot be compared fairly the grid is done all the same."""
    from autoseg.api.comparison import compare

    finished: dict[str, list[str]] = {}
    for row in table.rows:
        if row.state == "done" and not row.cell.predicts:
            finished.setdefault(row.cell.dataset, []).append(row.cell.model)
    for dataset, models in finished.items():
        if len(set(models)) > 1:
            try:
                compare(dataset, models=list(dict.fromkeys(models)), root=root)
            except AutosegError as error:
                logger.warning(f"{dataset} is not compared: {error}")


def _plan(dataset: Dataset, models: Sequence[str] | None, protocol: Protocol | None, device: str, root: Path) -> None:
    if dataset.plan.exists():
        plan = read_artefact(dataset.plan, Plan, f"autoseg_plan_and_preprocess {dataset.number}")
        if protocol is None or plan.protocol == protocol:
            return
        logger.info(f"{dataset.name} is planned for {plan.protocol}: planning it for {protocol} now")
        models = list(dict.fromkeys([*plan.models, *(models or [])]))
    plan_and_preprocess(dataset.name, protocol=protocol or "auto", models=models, device=device, preprocess=False, root=root)


def _prepare(dataset: Dataset, models: set[str], settings: Mapping[str, str]) -> None:
    """The arrays of all models, made once and not by each of the runs."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.overrides import apply_overrides
    from autoseg.preprocessing.build import build_store

    remedy = f"autoseg_plan_and_preprocess {dataset.number}"
    plan = apply_overrides(read_artefact(dataset.plan, Plan, remedy), settings)
    read_artefact(dataset.splits, Splits, remedy)
    for key in sorted({plan.models[model].preparation for model in models}):
        build_store(dataset, RawDataset.open(dataset), plan.preparations[key])


def _engine(
    name: str,
    workers: int | None,
    gpus_per_run: int,
    address: str | None,
    slurm: Mapping[str, str] | None,
    root: Path,
) -> Engine:
    from autoseg.grid.engine import Local

    if name == "ray":
        from autoseg.grid.ray_engine import RayEngine

        return RayEngine(address, workers, gpus_per_run)
    if name == "slurm":
        from autoseg.grid.slurm_engine import SlurmEngine

        return SlurmEngine(root / "results" / "slurm", workers, gpus_per_run, slurm or {})
    gpus = 0
    if gpus_per_run:
        import torch

        gpus = torch.cuda.device_count()
    return Local(workers, gpus, gpus_per_run)
