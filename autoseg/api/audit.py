"""References against out-of-fold predictions, and a corrected dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.schema.audit import Audit
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from dataset_conversion.report import ConversionReport


def audit(
    dataset: str | int,
    *,
    models: Sequence[str] | None = None,
    output: str | Path | None = None,
    most: int = 100,
    device: str = "auto",
    root: Root = None,
) -> Audit:
    """Where trained models that never saw a case contradict its reference mask, most likely faults first.

    Writes audit.json, suggestions/ and gallery.html to `output` (default: results/<dataset>/audit). models: only these of
    the trained ones. most: findings that are kept. The dataset is not touched.
    """
    from autoseg.audit.run import audit as run

    return run(Workspace.at(root).dataset(dataset), models, Path(output) if output else None, most, device)


def correct(
    decisions: str | Path,
    name: str,
    number: int | None = None,
    audit: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    root: Root = None,
) -> ConversionReport:
    """A new dataset with what was accepted in an audit's gallery; the original stays as it is.

    decisions: the file the gallery saved. audit: the audit's folder (default: results/<dataset>/audit).
    """
    from dataset_conversion.corrections import correct as run

    return run(Path(decisions), name, number, Workspace.at(root), Path(audit) if audit else None, overwrite, dry_run)
