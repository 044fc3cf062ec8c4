"""Compare finished trainings: tables, tests, HTML report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.checks import check_plans
from autoseg.api.options import DatasetId, Folds, Models, PathLike, fold_numbers, model_names, output_folder
from autoseg.schema.comparison import Comparison
from autoseg.support.errors import AutosegError, keep_result
from autoseg.support.files import write_artefact, write_text
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.metadata import Metadata

logger = logging.getLogger(__name__)


def compare(
    datasets: DatasetId | Sequence[DatasetId],
    *,
    models: Models | None = None,
    folds: Folds | None = None,
    metric: str = "dice",
    stratify_by: Sequence[str] = (),
    share: float = 0.05,
    metadata: PathLike | None = None,
    also: Mapping[str, PathLike] | None = None,
    family: str = "external",
    second_annotator: PathLike | None = None,
    allow_unequal: bool = False,
    output: PathLike | None = None,
    report: bool = True,
    root: Root = None,
) -> Comparison:
    """Compare all finished models of one or several datasets: tables over folds, paired tests, ranking, cost.

    Args:
        datasets: id or name of a dataset, or several.
        models: only these models (default: all that are finished).
        folds: only these folds (default: all that are finished).
        metric: metric of the tests and the ranking: "dice", "iou", "hd95", ... (see `Scores`).
        stratify_by: names of models (each one's easy and hard cases) or of columns of the fingerprint.
        share: fraction of the cases that count as easy, and as hard.
        metadata: CSV with a column "case" and others (site, scanner, sex, age) for `stratify_by`; only those named there are
            read into the results.
        also: name -> folder of scored masks of another program, or nnU-Net v2's results folder of a model, whose folds are
            checked and scored, or autoseg's own of another setting; one dataset only.
        family: name of the family of the masks in `also`.
        second_annotator: folder of masks that another person drew of (some of) the cases: the agreement of the two people as
            the ceiling, and each model's agreement with either; one dataset only.
        allow_unequal: compare runs with different splits, budgets or preprocessing; the notes list the differences.
        output: folder for comparison.json, comparison.csv, report.html and the tables of a paper (comparison.md,
            comparison.tex, comparison_<table>.csv); default: results/<dataset>/comparison; of several datasets
            results/comparison.
        report: write report.html too.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The comparison of each dataset, and Dice across datasets.

    Raises:
        AutosegError: nothing is finished, a name is unknown, or runs are not equal and `allow_unequal` is False,
            or nnU-Net's folds held out other cases.
        UnsavedResult: the comparison, its `result`, cannot be written.
    """
    from autoseg.comparison.compare import compare as compare_results
    from autoseg.comparison.paper_files import write_paper_tables
    from autoseg.comparison.results import load_results
    from autoseg.comparison.tables import comparison_csv

    ids = [datasets] if isinstance(datasets, str | int) else list(datasets)
    workspace = Workspace.at(root)
    selected = [workspace.dataset(which) for which in dict.fromkeys(ids)]
    if (also or second_annotator) and len(selected) > 1:
        what, option = ("masks of other programs", "--also") if also else ("a second annotator's masks", "--second-annotator")
        raise AutosegError(f"{what} belong to one dataset", f"compare one dataset at a time with {option}")
    results_folder = selected[0].results if len(selected) == 1 else workspace.root / "results"
    folder = output_folder(output) or results_folder / "comparison"
    mask_folders = {name: Path(path) for name, path in (also or {}).items()}
    load = partial(
        load_results, models=model_names(models), folds=fold_numbers(folds), external_masks=mask_folders, family=family
    )
    all_results = [load(dataset) for dataset in selected]
    for results in all_results:
        runs = (run for model in results.models.values() for run in model.folds.values())
        check_plans(results.dataset, {run.folder: run.plan for run in runs})
    table = _read_metadata(Path(metadata), stratify_by) if metadata is not None else None
    comparison = compare_results(
        all_results, metric=metric, allow_unequal=allow_unequal, strata=stratify_by, fraction=share, metadata=table,
        second_annotator=None if second_annotator is None else Path(second_annotator),
    )
    with keep_result(comparison):
        write_artefact(folder / "comparison.json", comparison)
        write_text(folder / "comparison.csv", comparison_csv(comparison))
        write_paper_tables(folder, comparison)
        if report:
            from autoseg.comparison.report import write_report

            write_report(folder / "report.html", comparison, all_results)
    logger.info(f"comparison in {folder}")
    return comparison


def _read_metadata(path: Path, stratify_by: Sequence[str]) -> Metadata:
    """Raises AutosegError if no column is named: nothing about patients goes into results that was not asked for by name."""
    from autoseg.io.metadata import read_metadata

    table = read_metadata(path)
    if not set(stratify_by) & set(table.columns):
        columns = ", ".join(table.columns) or "none"
        raise AutosegError(f"no column of {path} is stratified by", f"add --stratify-by COLUMN; its columns: {columns}")
    return table
