"""Other people's data into raw/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from dataset_conversion.folders import ConversionReport


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
) -> ConversionReport:
    """A folder of images and one of masks into raw/DatasetXXX_Name; every fault is listed before anything is written.

    labels: class names by value, background first. groups: a regular expression with one group that finds the patient in
    a file's name. modality: such as "ultrasound", where the images do not tell.
    """
    from dataset_conversion.folders import convert_folders as convert

    return convert(
        Path(images), Path(masks), name, number, labels, groups,
        workspace=Workspace.at(root), overwrite=overwrite, channels=channels, modality=modality,
    )  # fmt: skip
