"""Which files are to be predicted, which belong together, and what their masks will be called."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from autoseg.io import dicom, is_image, mask_ending, read_image, segmentation, stem_of, suffix_of
from autoseg.prediction import deidentify
from autoseg.prediction.deidentify import Names
from autoseg.support.errors import AutosegError

logger = logging.getLogger(__name__)

# What masks of DICOM images become: segmentation objects, pictures or NIfTI.
DicomMasks = Literal["seg", "png", "nii"]
DICOM_MASKS: tuple[DicomMasks, ...] = ("seg", "png", "nii")
_ENDINGS = {"seg": ".dcm", "png": ".png", "nii": ".nii.gz"}
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """One image to predict. name: with the subfolder it was found in. images: its channel files, or one file with all.

    output: path of its mask within the output folder. reference: a mask to draw beside the predicted one. frame: which one
    of a file that holds several. hidden: the files' own names must not be told.
    """

    name: str
    images: tuple[Path, ...]
    output: str
    reference: Path | None = None
    frame: int | None = None
    hidden: bool = False

    def tell(self, text: str) -> str:
        """A message about this case, without what must not be told."""
        if not self.hidden:
            return text
        for path in self.images:
            for known in (str(path), str(path.parent), path.name, stem_of(path)):
                text = text.replace(known, self.name) if len(known) > 1 else text
        return text


@dataclass(frozen=True)
class _Found:
    """One case before it has its final name. within: the folder it was found in, relative to the one given."""

    images: tuple[Path, ...]
    within: Path
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

    Files called `<case>_0000`, `<case>_0001`, ... are the channels of one case, as in nnU-Net's folders, where there are as
    many of them as channels and each holds one channel; a lone `<case>_0000` holds all of them. Each frame of a DICOM file
    and everything else is a case by itself. output: a folder that is left out of the search, and whose files must not take
    the place of inputs. names: see `deidentify`. dicom_masks: None for segmentation objects where highdicom is installed, else
    NIfTI. Raises AutosegError where there is nothing to predict.
    """
    base, files = _listed(inputs, recursive, output)
    tagged = {path for path in files if suffix_of(path) == ".dcm" or dicom.is_dicom(path)}
    ending = _ENDINGS[_dicom_masks(dicom_masks, bool(tagged))]
    patients = deidentify.patients(tagged) if names == "auto" else set()
    jobs = []
    for found in _grouped(base, files, channels, tagged):
        shown = found.within / found.images[0].name
        hidden = names == "hide" or (
            names == "auto" and (found.images[0] in tagged or deidentify.is_identifying(shown, patients))
        )
        name = deidentify.pseudonym(found.images[0]) if hidden else (found.within / found.name).as_posix()
        name += f"_f{found.frame + 1:04d}" if found.frame is not None else ""
        own = ending if found.images[0] in tagged else mask_ending(suffix_of(found.images[0]))
        jobs.append(
            PredictionJob(name=name, images=found.images, output=name + own, reference=None, frame=found.frame, hidden=hidden)
        )
    jobs = _distinct(sorted(jobs, key=lambda job: (job.name, job.images)))
    _protect_inputs(jobs, output)
    return jobs


def _grouped(base: Path | None, files: Sequence[Path], channels: int, tagged: set[Path]) -> list[_Found]:
    """Cases, with the names of their files."""
    groups: dict[tuple[Path, str, str], dict[int, Path]] = defaultdict(dict)
    single: list[Path] = []
    for path in files:
        match = _CHANNEL.match(stem_of(path))
        if match and int(match[2]) < channels:
            groups[path.parent, match[1], suffix_of(path)][int(match[2])] = path
        else:
            single.append(path)
    cases = []
    separate: bool | None = None
    for (folder, name, _), members in groups.items():
        if len(members) > 1 and separate is None:
            # Frames of a video carry numbers too; one look at a file tells whether a file is a channel.
            separate = _holds(next(iter(members.values())), channels)
        if (len(members) > 1 and separate) or (len(members) == 1 and 0 not in members):
            single += members.values()
        else:
            within = folder.relative_to(base) if base is not None else Path()
            cases.append(_Found(tuple(members[index] for index in sorted(members)), within, name))
    for path in single:
        within = path.parent.relative_to(base) if base is not None else Path()
        count = dicom.count_frames(path) if path in tagged else 1
        stem = path.name if path in tagged and suffix_of(path) != ".dcm" else stem_of(path)
        cases += [_Found((path,), within, stem, frame if count > 1 else None) for frame in range(count)]
    return cases


def _listed(inputs: Path | Sequence[Path], recursive: bool, output: Path | None) -> tuple[Path | None, list[Path]]:
    """The folder names are relative to (None for files that were named one by one), and the files."""
    if not isinstance(inputs, Path):
        if not inputs:
            raise AutosegError("no images were given", "name at least one")
        if len(inputs) == 1:
            return _listed(inputs[0], recursive, output)
        folders = [path for path in inputs if path.is_dir()]
        if folders:
            raise AutosegError(f"{folders[0]} is a folder among several inputs", "give one folder, or files only")
        return None, list(inputs)
    if inputs.is_file():
        return None, [inputs]
    if not inputs.is_dir():
        raise AutosegError(f"{inputs} does not exist", "give an image or a folder of images")
    found = sorted(inputs.rglob("*") if recursive else inputs.iterdir())
    inside = output.resolve() if output is not None and output.resolve() != inputs.resolve() else None
    files = [path for path in found if path.is_file() and (inside is None or inside not in path.resolve().parents)]
    images = [path for path in files if is_image(path) or _is_nameless_dicom(path)]
    if not images:
        hint = "give the folder that holds the images" if recursive else "give the folder that holds them, or search subfolders"
        raise AutosegError(f"{inputs} holds no images", hint)
    others = {suffix_of(path) or "without a suffix" for path in set(files) - set(images) if not path.name.startswith(".")}
    if others:
        # By suffix only: names may tell who is shown.
        logger.info(f"files that are no images by their names are left out ({', '.join(sorted(others)[:8])})")
    return inputs, images


def _is_nameless_dicom(path: Path) -> bool:
    """DICOM goes without a suffix as often as not; the index of a medium is one by its mark but holds no image."""
    return not path.name.startswith(".") and path.name.upper() != "DICOMDIR" and dicom.is_dicom(path)


def _dicom_masks(wanted: DicomMasks | None, needed: bool) -> DicomMasks:
    if wanted == "seg" and needed and not segmentation.available():
        raise AutosegError("DICOM-SEG needs highdicom", 'pip install "autoseg[dicom]", or ask for PNG or NIfTI masks')
    if wanted is None:
        return "seg" if segmentation.available() and dicom.available() else "nii"
    return wanted


def _holds(path: Path, channels: int) -> bool:
    """Whether one file holds all channels; False where it cannot be read, which is reported when its turn comes."""
    try:
        return len(read_image(path).array) == channels
    except AutosegError:
        return False


def _distinct(jobs: list[PredictionJob]) -> list[PredictionJob]:
    """Masks of a.png and a.jpg would have one name: such cases take their suffix into it, and a number where that fails."""
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
    given = {path.resolve() for job in jobs for path in job.images}
    for job in jobs:
        mask = output / job.output
        if mask.resolve() in given:
            raise AutosegError(f"the mask of {job.name} would take the place of the image {mask}", "give another output folder")
