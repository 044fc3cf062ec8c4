"""Find probable label errors, and write a corrected dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.checks import check_runs
from autoseg.api.options import DatasetId, Models, PathLike, model_names, output_folder
from autoseg.schema.audit import Audit
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from dataset_conversion.report import ConversionReport


def audit(
    dataset: DatasetId,
    *,
    models: Models | None = None,
    output: PathLike | None = None,
    most: int = 100,
    device: str = "auto",
    root: Root = None,
) -> Audit:
    """Find reference masks that trained models contradict. Each model sees only cases it was not trained on.

    The dataset is not changed.

    Args:
        dataset: id or name of the dataset.
        models: names of trained models (default: all that are good enough).
        output: folder for audit.json, suggestions/ and gallery.html (default: results/<dataset>/audit).
        most: maximum number of findings.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The findings, most likely errors first.

    Raises:
        AutosegError: a model has no predictions of held-out cases.
    """
    from autoseg.audit.run import audit as run

    data, names = Workspace.at(root).dataset(dataset), model_names(models)
    # Masks that a person has corrected since are what the next audit is for.
    check_runs(data, data.runs(names or None), warn=True)
    return run(data, names, output_folder(output), most, device)


def correct(
    decisions: PathLike,
    name: str,
    number: int | None = None,
    audit: PathLike | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    root: Root = None,
) -> ConversionReport:
    """Make a new dataset with the corrections accepted in an audit's gallery. The original does not change.

    Args:
        decisions: the file that the gallery saved.
        name: of the new dataset.
        number: id of the new dataset (default: the next free one from 501).
        audit: folder of the audit (default: results/<dataset>/audit).
        overwrite: replace a dataset of this number and name.
        dry_run: read and check everything, write nothing.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The report of the conversion.

    Raises:
        AutosegError: the decisions do not belong to the audit, or a mask changed since.
    """
    from dataset_conversion.corrections import apply_corrections as run

    workspace = Workspace.at(root)
    return run(
        Path(decisions), name, number, workspace, audit=Path(audit) if audit else None, overwrite=overwrite, dry_run=dry_run
    )
