"""Folders and environment variables (AUTOSEG_ROOT, keys, those of libraries). No other module reads or sets them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoseg.schema.limits import is_file_name, is_path_below
from autoseg.support.errors import AutosegError

# The folder of raw/, preprocessed/ and results/ as callers give it; None: AUTOSEG_ROOT or ./autoseg_data.
Root = str | Path | None

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
MAX_PIXELS = "AUTOSEG_MAX_PIXELS"
_SEED_FOLDER = re.compile(r"(.+)-seed(\d+)", re.ASCII)
_FOLD_FOLDER = re.compile(r"fold_(0|[1-9]\d*)", re.ASCII)
_FULL_NAME = re.compile(r"Dataset(\d{3,})_([A-Za-z0-9][A-Za-z0-9_.-]*)", re.ASCII)


def secret(*names: str) -> str:
    """The first of these environment variables that is set, "" for none. For keys: never to be written or shown."""
    return next((value.strip() for name in names if (value := os.environ.get(name, "").strip())), "")


@dataclass(frozen=True)
class Workspace:
    """The folders under one root: raw/, preprocessed/, results/, weights/."""

    root: Path

    @classmethod
    def at(cls, root: str | Path | None = None) -> Workspace:
        """`root`, else AUTOSEG_ROOT, else ./autoseg_data."""
        return cls(Path(root or os.environ.get("AUTOSEG_ROOT") or "autoseg_data").expanduser().absolute())

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    def dataset(self, which: str | int) -> Dataset:
        """A dataset by id (501), name (Polyp) or both (Dataset501_Polyp). Raises AutosegError with the existing ones."""
        datasets = self.datasets()
        text = str(which)
        by_number = [d for d in datasets if text.isdigit() and int(text) == d.number]
        matches = by_number or [d for d in datasets if text.casefold() in (d.name.casefold(), d.short_name.casefold())]
        if len(matches) == 1:
            return matches[0]
        names = ", ".join(d.name for d in datasets) or "none"
        if matches:
            raise AutosegError(f"{text!r} could be {' or '.join(d.name for d in matches)}", "give the full name")
        raise AutosegError(
            f"there is no dataset {text!r} under {self.raw}",
            f"there are: {names}. Convert one with autoseg_convert, or give another --root{self._nnunet_hint()}",
        )

    def _nnunet_hint(self) -> str:
        """Where nnU-Net's raw datasets are, if its variable is set and points somewhere else."""
        folder = os.environ.get("nnUNet_raw", "").strip()  # noqa: SIM112 (nnU-Net's spelling)
        if not folder or Path(folder).expanduser().absolute() == self.raw:
            return ""
        return (
            f". nnUNet_raw is set to {folder}, which autoseg does not read: link or copy the dataset's folder into {self.raw} "
            "(the layout is the same), or run autoseg_convert nnunet FOLDER"
        )

    def datasets(self) -> list[Dataset]:
        """Every dataset under raw/, by number."""
        folders = sorted(self.raw.iterdir()) if self.raw.is_dir() else []
        named = [Dataset(self.root, folder.name) for folder in folders if _FULL_NAME.fullmatch(folder.name)]
        return sorted(named, key=lambda d: d.number)

    def new_dataset(self, number: int, name: str) -> Dataset:
        """A dataset that need not exist yet. Raises AutosegError for an invalid folder name."""
        full = f"Dataset{number:03d}_{name}"
        if not (_FULL_NAME.fullmatch(full) and is_file_name(full)):
            raise AutosegError(
                f"{name!r} cannot name a dataset", "use letters, digits, '_', '-' and '.', beginning with a letter or digit"
            )
        return Dataset(self.root, full)


@dataclass(frozen=True)
class Dataset:
    """Paths of one dataset. name: the full one, Dataset501_Polyp."""

    root: Path
    name: str

    @property
    def number(self) -> int:
        return int(self._match().group(1))

    @property
    def short_name(self) -> str:
        return self._match().group(2)

    @property
    def raw(self) -> Path:
        return self.root / "raw" / self.name

    @property
    def description(self) -> Path:
        return self.raw / "dataset.json"

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.name

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "fingerprint.json"

    @property
    def splits(self) -> Path:
        return self.preprocessed / "splits.json"

    @property
    def plan(self) -> Path:
        return self.preprocessed / "plan.json"

    @property
    def sources(self) -> Path:
        """The raw files that the plan was made from."""
        return self.preprocessed / "sources.json"

    def array_folder(self, key: str) -> Path:
        """Folder of the preprocessed arrays of one configuration."""
        return self.preprocessed / key

    @property
    def results(self) -> Path:
        return self.root / "results" / self.name

    def model(self, name: str) -> Path:
        """The results folder of a model. Raises AutosegError for a name that leads elsewhere."""
        return self.results / model_folder_name(name)

    def trial(self, path: str) -> Path:
        """The folder of a trial, from its path below the results. Raises AutosegError for one that leads elsewhere."""
        if not is_path_below(path):
            raise AutosegError(f"{path!r} is no folder below {self.results}", "give its path from there, without ..")
        return self.results / path

    def runs(self, models: Iterable[str] | None = None) -> list[Path]:
        """The folders of the folds of these models, or of all."""
        folders = self.results.glob("*") if models is None else map(self.model, models)
        return sorted(fold for folder in folders for fold in fold_folders(folder).values())

    def fold(self, model: str, fold: int) -> Path:
        return self.model(model) / f"fold_{fold}"

    def _match(self) -> re.Match[str]:
        match = _FULL_NAME.fullmatch(self.name)
        assert match is not None, self.name
        return match


def fold_folders(model: Path) -> dict[int, Path]:
    """Fold -> its folder in a model's results, in order. What else lies there, such as a copy named fold_0_old, is no fold."""
    found = [(match, path) for path in model.glob("fold_*") if (match := _FOLD_FOLDER.fullmatch(path.name))]
    return {int(match[1]): path for match, path in sorted(found, key=lambda one: int(one[0][1]))}


def checked_model_name(name: str) -> str:
    """The name. Raises AutosegError for one that leads out of the folder of results."""
    if not is_file_name(name):
        raise AutosegError(f"{name!r} is no name of a model", "give the name only, without a path")
    return name


def model_folder_name(model: str) -> str:
    """The name of a model's folder: a colon, as in "timm:resnet18", is none for every file system, so it becomes "+".

    Raises AutosegError for a name that leads out of the folder of results.
    """
    return checked_model_name(model).replace(":", "+")


def model_of_folder(folder: str) -> str:
    """The model that a folder of results is named after, as `model_folder_name` names it."""
    return folder.replace("+", ":")


def seed_folder_name(model: str, seed: int) -> str:
    """The name of the folder with a model's trainings of another seed than the plan's."""
    return f"{model_folder_name(model)}-seed{seed}"


def seed_of_folder(folder: str) -> tuple[str, int] | None:
    """Model and seed of such a folder; None for another folder."""
    match = _SEED_FOLDER.fullmatch(folder)
    return (model_of_folder(match[1]), int(match[2])) if match else None


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process to be started: the current one, with some variables set."""
    return {**os.environ, **variables}


def visible_gpus() -> list[str]:
    """The numbers or UUIDs of the GPUs this process was given (a job of a cluster, mostly); empty if it has all."""
    return [name.strip() for name in os.environ.get(VISIBLE_GPUS, "").split(",") if name.strip()]


def variable(name: str) -> str:
    """An environment variable without spaces around it, "" if it is not set."""
    return os.environ.get(name, "").strip()


def set_or_remove_variable(name: str, value: str) -> None:
    """Set an environment variable of this process; "": remove it."""
    if value:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)


def set_variable(name: str, value: str) -> None:
    """Set an environment variable of this process, unless the user has."""
    os.environ.setdefault(name, value)


@contextmanager
def temporary_variable(name: str, value: str) -> Iterator[str]:
    """Set an environment variable of this process, unless the user has, until the end. Gives the value it has."""
    if os.environ.get(name):
        yield os.environ[name]
        return
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield value
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def images_folder(dataset: Dataset, part: str = "Tr") -> Path:
    """imagesTr or imagesTs."""
    return dataset.raw / f"images{part}"


def labels_folder(dataset: Dataset, part: str = "Tr") -> Path:
    """labelsTr or labelsTs."""
    return dataset.raw / f"labels{part}"
