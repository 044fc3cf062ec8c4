"""Finished trainings to tables, tests and a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.schema.comparison import Comparison
from autoseg.support.files import write_artefact, write_text
from autoseg.support.workspace import Root, Workspace

logger = logging.getLogger(__name__)


def compare(
    datasets: str | int | Sequence[str | int],
    *,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    metric: str = "dice",
    stratify_by: Sequence[str] = (),
    share: float = 0.05,
    also: Mapping[str, str | Path] | None = None,
    allow_unequal: bool = False,
    output: str | Path | None = None,
    report: bool = True,
    root: Root = None,
) -> Comparison:
    """All finished models of one or several datasets, written as comparison.json, comparison.csv and report.html.

    models, folds: only these. metric: what is tested and ranked. stratify_by: a model's name (its easy and hard cases, each
    `share` of all) or a column of the fingerprint. also: name -> folder of scored masks from elsewhere (one dataset only).
    allow_unequal: compare runs whose splits, budgets or preprocessing differ, and say so. output: by default
    results/<dataset>/comparison, of several datasets results/comparison.
    """
    from autoseg.comparison.compare import compare as compare_evidence
    from autoseg.comparison.evidence import gather
    from autoseg.comparison.tables import comparison_csv
    from autoseg.support.errors import AutosegError

    wanted = [datasets] if isinstance(datasets, str | int) else list(datasets)
    workspace = Workspace.at(root)
    found = [workspace.dataset(which) for which in dict.fromkeys(wanted)]
    if also and len(found) > 1:
        raise AutosegError("masks from elsewhere belong to one dataset", "compare one dataset at a time with --also")
    elsewhere = {name: Path(folder) for name, folder in (also or {}).items()}
    evidences = [gather(dataset, models, folds, elsewhere) for dataset in found]
    comparison = compare_evidence(evidences, metric=metric, allow_unequal=allow_unequal, strata=stratify_by, share=share)
    folder = Path(output) if output else (found[0].results if len(found) == 1 else workspace.root / "results") / "comparison"
    write_artefact(folder / "comparison.json", comparison)
    write_text(folder / "comparison.csv", comparison_csv(comparison))
    if report:
        from autoseg.comparison.report import write_report

        write_report(folder / "report.html", comparison, evidences)
    logger.info(f"comparison in {folder}")
    return comparison
