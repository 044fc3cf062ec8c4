"""Convert datasets to raw/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoseg.api.options import PathLike
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from dataset_conversion.report import ConversionReport


def convert_folders(
    images: PathLike,
    masks: PathLike,
    name: str,
    number: int | None = None,
    labels: Sequence[str] | None = None,
    groups: str | None = None,
    channels: Sequence[str] | None = None,
    modality: str = "",
    overwrite: bool = False,
    root: Root = None,
    dry_run: bool = False,
    colour: Literal["gray", "rgb"] | None = None,
    names: Names = "auto",
) -> ConversionReport:
    """Convert a folder of images and a folder of masks to raw/DatasetXXX_Name.

    Args:
        images: folder of images.
        masks: folder of masks with the names of the images.
        name: of the dataset: letters, digits, "_", "-" and ".".
        number: id of the dataset (default: the next free one from 501).
        labels: class names by value, background first (default: one class for each value).
        groups: regular expression with one group that matches the patient in a file name.
        channels: names of the images' channels (default: red, green, blue or gray).
        modality: such as "ultrasound", if the images do not show it.
        overwrite: replace a dataset of this number and name.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        dry_run: read and check everything, write nothing.
        colour: "gray" or "rgb" stores all images like that, for folders that hold both.
        names: "auto" gives neutral names to cases that are DICOM or named after patients, "keep" to none, "hide" to all;
            `renamed` of the report holds which file became which case.

    Returns:
        Counts, automatic changes, and near-duplicate images.

    Raises:
        AutosegError: the files have errors; the message lists all of them, and nothing is written.
    """
    from dataset_conversion.folders import convert_folders as convert

    return convert(
        Path(images), Path(masks), name, number, labels, groups,
        workspace=Workspace.at(root), overwrite=overwrite, channels=channels, modality=modality, colour=colour,
        names=names, dry_run=dry_run,
    )  # fmt: skip


def convert(
    which: str,
    source: PathLike,
    name: str = "",
    number: int | None = None,
    options: Mapping[str, str | int | bool | Sequence[str] | None] | None = None,
    merge_test: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    root: Root = None,
    names: Names = "auto",
) -> ConversionReport:
    """Convert a published dataset, or one in a common layout, to raw/DatasetXXX_Name.

    Args:
        which: name of a converter; `autoseg_convert --list` prints them.
        source: the folder or archive as it is published.
        name: of the dataset (default: the published name; required for a layout).
        number: id of the dataset (default: the next free one from 501).
        options: those of this converter, by name; `autoseg_convert NAME --help` prints them.
        merge_test: use test cases with masks as training cases.
        overwrite: replace a dataset of this number and name.
        dry_run: read and check everything, write nothing.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        names: of the cases of a layout: "auto" gives neutral names to those named after DICOM files, "keep" to none, "hide"
            to all.

    Returns:
        Counts, automatic changes, and near-duplicate images.

    Raises:
        AutosegError: files or options have errors; the message lists all of them, and nothing is written.
    """
    from dataset_conversion.run import convert as run

    return run(
        which, Path(source), Workspace.at(root), name, number, options,
        merge_test=merge_test, overwrite=overwrite, dry_run=dry_run, names=names,
    )  # fmt: skip
