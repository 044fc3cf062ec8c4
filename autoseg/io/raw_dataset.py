"""A raw dataset folder in nnU-Net v2's layout: its description and its cases."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoseg.io.files import is_dangling_image, is_image, mask_ending, stem_of, suffix_of
from autoseg.schema import serde
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.limits import is_file_name
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import READERS
from autoseg.support.files import write_text
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import Dataset, images_folder, labels_folder

_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
_RAW_PARTS = ("imagestr", "imagests", "labelstr", "labelsts")
_REQUIRED = ("channel_names", "labels", "file_ending")


@dataclass(frozen=True)
class Case:
    """One case. images: its channel files in order (one file may hold all channels). label: None without a mask."""

    name: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A raw dataset: description, training cases and test cases, sorted by name.

    Training cases are those of nnU-Net's entry "dataset" in dataset.json, else of imagesTr and labelsTr. `Case.label` is the
    only place that says which mask belongs to a case: training, scoring, comparison, audit and explanation all read it.
    listed: whether dataset.json lists the files; masks of other cases may then be in the same folder.
    """

    spec: DatasetSpec
    scheme: LabelScheme
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...]
    listed: bool = False

    @property
    def references(self) -> dict[str, Path]:
        """Training case -> its mask, of all cases that have one."""
        return {case.name: case.label for case in self.cases if case.label is not None}

    @classmethod
    def open(cls, dataset: Dataset) -> RawDataset:
        """Read the description and list the files; images are not opened.

        Raises AutosegError for a missing or invalid description, for missing channels, and without any case.
        """
        spec = read_description(dataset.description)
        scheme = _label_scheme(spec, dataset.description)
        ending, channels = spec.file_ending, len(spec.channel_names)
        listed_cases = _cases_in_description(dataset)
        cases = listed_cases or list_cases(images_folder(dataset), labels_folder(dataset), ending, channels)
        if not cases:
            raise AutosegError(
                f"{images_folder(dataset)} holds no images that end in {ending}",
                "put them there as <case>_0000" + ending + ", or correct file_ending in dataset.json",
            )
        test = images_folder(dataset, "Ts")
        tests = list_cases(test, labels_folder(dataset, "Ts"), ending, channels) if test.is_dir() else []
        return cls(spec=spec, scheme=scheme, cases=tuple(cases), test_cases=tuple(tests), listed=bool(listed_cases))


def list_cases(images: Path, labels: Path | None, file_ending: str, channels: int) -> list[Case]:
    """The cases of a folder of images named `<case>_0000<file_ending>`, `<case>_0001...`, by name.

    A case has one file for each of `channels`, or a single file that holds them all. A file without such a number is
    a case by itself (see `split_channels`). label: the file of that name in `labels`, None if there is none. Raises
    AutosegError if the folder is missing, SeveralProblems if channel files are, or if links lead nowhere.
    """
    if not images.is_dir():
        raise AutosegError(f"the folder {images} does not exist", "check the path, or bring the data in with autoseg_convert")
    everything = sorted(images.iterdir())
    faults = [f"{path} is a link to a file that does not exist" for path in everything if is_dangling_image(path)]
    faults += [f"{path.name!r} holds a character that no name of a case may hold" for path in everything if _is_misnamed(path)]
    files = {stem_of(path): path for path in everything if is_image(path) and suffix_of(path) == file_ending.lower()}
    masks = {stem_of(path) for path in labels.iterdir()} if labels is not None and labels.is_dir() else set()
    numbered = split_channels(files, channels, masks)
    files_by_case: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in files.items():
        name, channel = numbered.get(stem, (stem, 0))
        files_by_case[name][channel] = path
    faults += [
        f"{name}: channel files {sorted(files)}, expected {list(range(channels))} or one file that holds all channels"
        for name, files in sorted(files_by_case.items())
        if sorted(files) not in ([0], list(range(channels)))
    ]
    if faults:
        raise SeveralProblems(f"{images} lacks files", faults, "add or rename what is listed, or correct channel_names")
    return [
        Case(name, tuple(files[index] for index in sorted(files)), _find_label(labels, name, file_ending))
        for name, files in sorted(files_by_case.items())
    ]


def split_channels(stems: Iterable[str], channels: int, cases: Container[str] = ()) -> dict[str, tuple[str, int]]:
    """Stems of channel files `<case>_0000`, `<case>_0001`, ... -> case and channel; other stems are left out.

    A number is part of the name if it, or that of another file of the same case, is beyond the last of `channels`: frames of a
    video are numbered as well. cases: names that are known, such as those of masks, which decide.
    """
    matches = {stem: match for stem in stems if (match := _CHANNEL.match(stem))}
    highest: dict[str, int] = {}
    for match in matches.values():
        highest[match[1]] = max(highest.get(match[1], 0), int(match[2]))
    return {
        stem: (match[1], int(match[2]))
        for stem, match in matches.items()
        if match[1] in cases or (stem not in cases and highest[match[1]] < channels)
    }


def read_description(path: Path) -> DatasetSpec:
    """`dataset.json`, autoseg's or nnU-Net v2's; unknown fields are ignored. Raises AutosegError naming the field."""
    content = _migrate(_read_json(path), path)
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        is_version_1 = isinstance(content.get("modality"), dict)
        remedy = (
            "this is nnU-Net v1's format: v2 has channel_names, labels by name, file_ending" if is_version_1 else "add them"
        )
        raise AutosegError(f"{path} lacks {', '.join(missing)}", remedy)
    if not isinstance(content["file_ending"], str) or content["file_ending"].lower() not in READERS:
        raise AutosegError(
            f"{path}: file_ending {content['file_ending']!r} is no format autoseg reads", f"one of {', '.join(READERS.names())}"
        )
    field_names = {field.name for field in fields(DatasetSpec)}
    values = {key: value for key, value in content.items() if key in field_names}
    # nnU-Net writes numbers as names of channels too.
    values["channel_names"] = {
        str(key): str(value) if type(value) in (int, float) else value
        for key, value in _non_empty_mapping(path, content, "channel_names").items()
    }
    values["labels"] = {str(key): _label_value(value) for key, value in _non_empty_mapping(path, content, "labels").items()}
    values.setdefault("licence", content.get("license", ""))
    values.setdefault("numTraining", 0)
    for key in ("name", "modality", "licence", "reference", "description"):
        values[key] = str(values.get(key) or "")
    try:
        return serde.from_dict(values, DatasetSpec)
    except serde.SchemaError as error:
        raise AutosegError(f"{path}: {error}", "fix the field") from error


def refuse_raw_folder(folder: Path) -> None:
    """Raises AutosegError if results would be written among the images or masks of a raw dataset."""
    with os_errors_as_autoseg_errors(folder):
        places = {Path(os.path.abspath(folder)), folder.resolve()}  # A link counts where it lies and where it leads.
        for part in (part for place in places for part in (place, *place.parents)):
            if part.name.lower() in _RAW_PARTS and (part.parent / "dataset.json").is_file():
                raise AutosegError(
                    f"{folder} belongs to the images and masks of {part.parent}", "give a folder outside of the dataset"
                )


def is_listed(dataset: Dataset) -> bool:
    """Whether dataset.json lists the files of its cases (nnU-Net's entry "dataset"), wherever they are."""
    return bool(_read_json(dataset.description).get("dataset"))


def write_description(path: Path, spec: DatasetSpec) -> None:
    """`dataset.json`, readable by nnU-Net v2: fields that are empty are left out."""
    content = json.loads(serde.to_json(spec))
    non_empty = {key: value for key, value in content.items() if value is not False and value not in (None, "", {}, [])}
    write_text(path, json.dumps(non_empty, indent=1, ensure_ascii=False) + "\n")


def update_description(path: Path, **changes: Any) -> None:
    """Change fields of an existing `dataset.json`; all others stay, also those that only other programs know.

    Empty values remove the field.
    """
    content = {**_read_json(path), **changes}
    kept = {key: value for key, value in content.items() if key not in changes or value}
    write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _is_misnamed(path: Path) -> bool:
    return is_image(path) and not is_file_name(path.name)


def _find_label(labels: Path | None, name: str, file_ending: str) -> Path | None:
    if labels is None:
        return None
    for ending in (file_ending, file_ending.lower(), mask_ending(file_ending)):
        path = labels / f"{name}{ending}"
        if path.is_file():
            return path
    return None


def _cases_in_description(dataset: Dataset) -> list[Case]:
    """nnU-Net's optional entry "dataset": case -> paths of its files, relative to the dataset's folder or absolute."""
    entries = _read_json(dataset.description).get("dataset")
    if entries is None:
        return []
    faults = ['"dataset" must be an object: case -> {"images": [...], "label": ...}'] if not isinstance(entries, dict) else []
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not isinstance(images, list) or not images or not all(isinstance(one, str) for one in [*images, label]):
            faults.append(f'dataset.{name}: needs "images", a list of paths, and "label", a path')
        elif not is_file_name(name):
            faults.append(f"dataset.{name!r}: the name of a case must be the name of a file, without folders")
    if faults:
        raise SeveralProblems(f"{dataset.description} lists files in a wrong way:", faults, "fix the entry, or remove it")
    return [
        Case(name, tuple(dataset.raw / file for file in entry["images"]), dataset.raw / entry["label"])
        for name, entry in sorted(entries.items())
    ]


def _label_scheme(spec: DatasetSpec, path: Path) -> LabelScheme:
    try:
        return spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"{path}: {error}", "correct labels in dataset.json, and the masks with them") from error


def _migrate(content: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        return serde.migrate_content(content, DatasetSpec)
    except serde.NewerVersionError as error:
        raise AutosegError(f"{path}: {error}", "update autoseg") from error
    except serde.SchemaError as error:
        raise AutosegError(f"{path}: {error}", "correct the field") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise AutosegError(f"{path} is missing", "a raw dataset needs one: autoseg_convert writes it") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AutosegError(f"{path} cannot be read: {error}", "fix the file") from error
    if not isinstance(content, dict):
        raise AutosegError(f"{path} does not hold an object", "fix the file")
    return content


def _non_empty_mapping(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content[key]
    if not isinstance(value, dict) or not value:
        raise AutosegError(f"{path}: {key} must be an object with at least one entry", "fix the field")
    return value


def _label_value(value: Any) -> Any:
    """A region's values as a tuple; a number written as text as a number, as nnU-Net accepts it."""
    if isinstance(value, list):
        return tuple(_label_value(item) for item in value)
    return int(value) if isinstance(value, str) and value.isdigit() else value
