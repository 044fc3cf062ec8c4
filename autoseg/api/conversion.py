"""Other people's data into raw/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from dataset_conversion.report import ConversionReport


def convert_folders(
    images: str | Path,
    masks: str | Path,
    name: str,
    number: int | None = None,
    labels: Sequence[str] | None = None,
    groups: str | None = None,
    channels: Sequence[str] | None = None,
    modality: str = "",
    overwrite: bool = False,
    root: Root = None,
    dry_run: bool = False,
) -> ConversionReport:
    """A folder of images and one of masks into raw/DatasetXXX_Name; every fault is listed before anything is written.

    labels: class names by value, background first. groups: a regular expression with one group that finds the patient in
    a file's name. modality: such as "ultrasound", where the images do not tell.
    """
    from dataset_conversion.folders import convert_folders as convert

    return convert(
        Path(images), Path(masks), name, number, labels, groups,
        workspace=Workspace.at(root), overwrite=overwrite, channels=channels, modality=modality, dry_run=dry_run,
    )  # fmt: skip


def convert(
    which: str,
    source: str | Path,
    name: str = "",
    number: int | None = None,
    options: Mapping[str, Any] | None = None,
    merge_test: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    root: Root = None,
) -> ConversionReport:
    """A published dataset, or one in a common layout, into raw/DatasetXXX_Name; see `autoseg_convert --list`.

    source: the folder or archive as it is published. options: those of this converter, by name. merge_test: make training
    cases of the test cases that have masks. Raises SeveralProblems with everything that is wrong; nothing is written then.
    """
    from dataset_conversion.run import convert as run

    return run(
        which, Path(source), Workspace.at(root), name, number, options,
        merge_test=merge_test, overwrite=overwrite, dry_run=dry_run,
    )  # fmt: skip
