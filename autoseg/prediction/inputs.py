"""Find the images to predict, group channel files into cases, and name the masks."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from autoseg.io import (
    deidentify,
    dicom,
    is_dangling_image,
    is_image,
    mask_ending,
    read_image,
    segmentation,
    split_channels,
    stem_of,
    suffix_of,
)
from autoseg.io.deidentify import Names
from autoseg.io.raw_dataset import refuse_raw_folder
from autoseg.schema.limits import is_path_below
from autoseg.support.errors import AutosegError

logger = logging.getLogger(__name__)

# Mask format for DICOM images: DICOM-SEG, PNG or NIfTI.
DicomMasks = Literal["seg", "png", "nii"]
DICOM_MASKS: tuple[DicomMasks, ...] = ("seg", "png", "nii")
_ENDINGS = {"seg": ".dcm", "png": ".png", "nii": ".nii.gz"}


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """One image to predict. name: includes the subfolder. images: one file per channel, or one file with all channels.

    output: path of the mask within the output folder. reference: a mask to draw into the overlay. frame: index in a
    multi-frame file. hidden: the file names must not appear in any output.
    """

    name: str
    images: tuple[Path, ...]
    output: str
    reference: Path | None = None
    frame: int | None = None
    hidden: bool = False

    def redact(self, text: str) -> str:
        """The text with the file names replaced by the case's name, if they are hidden."""
        if not self.hidden:
            return text
        for path in self.images:
            for secret in (str(path), str(path.parent), path.name, stem_of(path)):
                text = text.replace(secret, self.name) if len(secret) > 1 else text
        return text


@dataclass(frozen=True)
class _Candidate:
    """A case before it has its final name. subfolder: relative to the input folder."""

    images: tuple[Path, ...]
    subfolder: Path
    name: str
    frame: int | None = None


def find_jobs(
    inputs: Path | Sequence[Path],
    channels: int,
    recursive: bool = False,
    output: Path | None = None,
    names: Names = "keep",
    dicom_masks: DicomMasks | None = None,
) -> list[PredictionJob]:
    """The images of a folder, one file, or a list of files, by name.

    Files named `<case>_0000`, `<case>_0001`, ... are the channels of one case, as in nnU-Net, if each of them has one
    channel. A lone `<case>_0000` has all channels. Numbers beyond the last channel belong to the names.
    Each frame of a DICOM file and every other file is a case.

    output: excluded from the search; masks in it must not overwrite inputs, nor lie among those of a raw dataset.
    names: see `deidentify`; names that no file of ours may have (other text than UTF-8, control characters, '..\\') are
    always replaced. dicom_masks: None
    means DICOM-SEG if highdicom is installed, else NIfTI. Raises AutosegError if there is no image.
    """
    if output is not None:
        refuse_raw_folder(output)
    base, files = _list_images(inputs, recursive, output)
    dicom_files = {path for path in files if suffix_of(path) == ".dcm" or dicom.is_dicom(path)}
    ending = _ENDINGS[_dicom_masks(dicom_masks, bool(dicom_files))]
    patients = deidentify.patients(dicom_files) if names == "auto" else set()
    jobs = []
    for candidate in _group_channels(base, files, channels, dicom_files):
        shown = candidate.subfolder / candidate.images[0].name
        hidden = (
            names == "hide"
            or not is_path_below(shown.as_posix())
            or (names == "auto" and (candidate.images[0] in dicom_files or deidentify.is_identifying(shown, patients)))
        )
        name = deidentify.pseudonym(candidate.images[0]) if hidden else (candidate.subfolder / candidate.name).as_posix()
        name += f"_f{candidate.frame + 1:04d}" if candidate.frame is not None else ""
        mask_suffix = ending if candidate.images[0] in dicom_files else mask_ending(suffix_of(candidate.images[0]))
        jobs.append(
            PredictionJob(
                name=name,
                images=candidate.images,
                output=name + mask_suffix,
                reference=None,
                frame=candidate.frame,
                hidden=hidden,
            )
        )
    jobs = _make_unique(sorted(jobs, key=lambda job: (job.name, job.images)))
    _protect_inputs(jobs, output)
    return jobs


def _group_channels(base: Path | None, files: Sequence[Path], channels: int, dicom_files: set[Path]) -> list[_Candidate]:
    """Group the files into cases."""
    groups: dict[tuple[Path, str, str], dict[int, Path]] = defaultdict(dict)
    single: list[Path] = []
    stems: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for path in files:
        stems[path.parent, suffix_of(path)].append(stem_of(path))
    numbered = {place: split_channels(names, channels) for place, names in stems.items()}
    for path in files:
        split = numbered[path.parent, suffix_of(path)].get(stem_of(path))
        if split is None:
            single.append(path)
        else:
            groups[path.parent, split[0], suffix_of(path)][split[1]] = path
    cases = []
    separate: bool | None = None
    for (folder, name, _), members in groups.items():
        if len(members) > 1 and separate is None:
            # Frames of a video are numbered too. Read one file: does it have all channels?
            separate = _has_all_channels(next(iter(members.values())), channels)
        if (len(members) > 1 and separate) or (len(members) == 1 and 0 not in members):
            single += members.values()
        else:
            subfolder = folder.relative_to(base) if base is not None else Path()
            cases.append(_Candidate(tuple(members[index] for index in sorted(members)), subfolder, name))
    for path in single:
        subfolder = path.parent.relative_to(base) if base is not None else Path()
        count = dicom.count_frames(path) if path in dicom_files else 1
        stem = path.name if path in dicom_files and suffix_of(path) != ".dcm" else stem_of(path)
        cases += [_Candidate((path,), subfolder, stem, frame if count > 1 else None) for frame in range(count)]
    return cases


def _list_images(inputs: Path | Sequence[Path], recursive: bool, output: Path | None) -> tuple[Path | None, list[Path]]:
    """The input folder (None if files were given) and the image files."""
    if not isinstance(inputs, Path):
        if not inputs:
            raise AutosegError("no images were given", "give at least one image")
        if len(inputs) == 1:
            return _list_images(inputs[0], recursive, output)
        folders = [path for path in inputs if path.is_dir()]
        if folders:
            raise AutosegError(f"{folders[0]} is a folder, but several inputs were given", "give one folder, or files only")
        return None, list(inputs)
    if inputs.is_file():
        return None, [inputs]
    if not inputs.is_dir():
        raise AutosegError(f"{inputs} does not exist", "give an image or a folder of images")
    paths = sorted(inputs.rglob("*") if recursive else inputs.iterdir())
    inside = output.resolve() if output is not None and output.resolve() != inputs.resolve() else None
    candidates = [path for path in paths if path.is_file() or is_dangling_image(path)]
    files = [path for path in candidates if inside is None or inside not in path.resolve().parents]
    # A link to a missing file is a case that fails, so that it is named.
    images = [path for path in files if is_image(path) or is_dangling_image(path) or _is_nameless_dicom(path)]
    if not images:
        remedy = "give the folder that contains the images" if recursive else "give another folder, or search subfolders too"
        raise AutosegError(f"{inputs} contains no images", remedy)
    skipped = {suffix_of(path) or "without a suffix" for path in set(files) - set(images) if not path.name.startswith(".")}
    if skipped:
        # Suffixes only: names may identify patients.
        logger.info(f"files that are not images are skipped ({', '.join(sorted(skipped)[:8])})")
    return inputs, images


def _is_nameless_dicom(path: Path) -> bool:
    """True for DICOM files without a suffix. DICOMDIR, a medium's index, is DICOM but not an image."""
    return not path.name.startswith(".") and path.name.upper() != "DICOMDIR" and dicom.is_dicom(path)


def _dicom_masks(requested: DicomMasks | None, needed: bool) -> DicomMasks:
    if requested == "seg" and needed and not segmentation.available():
        raise AutosegError("DICOM-SEG needs highdicom", 'pip install "autoseg[dicom]", or ask for PNG or NIfTI masks')
    if requested is None:
        return "seg" if segmentation.available() and dicom.available() else "nii"
    return requested


def _has_all_channels(path: Path, channels: int) -> bool:
    """True if the file has all channels. False if it cannot be read: prediction reports that later."""
    try:
        return len(read_image(path).array) == channels
    except AutosegError:
        return False


def _make_unique(jobs: list[PredictionJob]) -> list[PredictionJob]:
    """Masks of a.png and a.jpg would have the same name: add the suffix, and a number if that is not enough."""
    count = Counter(job.output.casefold() for job in jobs)
    taken = {output for output, times in count.items() if times == 1}
    result = []
    for job in jobs:
        if count[job.output.casefold()] > 1:
            ending = job.output.removeprefix(job.name)
            name, number = f"{job.name}_{suffix_of(job.images[0]).strip('.').replace('.', '_')}", 1
            while f"{name}{ending}".casefold() in taken:
                name, number = f"{job.name}_{number + 1}", number + 1
            job = replace(job, name=name, output=f"{name}{ending}")
            taken.add(job.output.casefold())
        result.append(job)
    return result


def _protect_inputs(jobs: list[PredictionJob], output: Path | None) -> None:
    if output is None:
        return
    inputs = {path.resolve() for job in jobs for path in job.images}
    for job in jobs:
        mask = output / job.output
        if mask.resolve() in inputs:
            raise AutosegError(f"the mask of {job.name} would overwrite the image {mask}", "give another output folder")
