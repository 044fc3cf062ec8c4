"""Which files are to be predicted, which belong together, and what their masks will be called."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.io import is_image, mask_ending, read_image, stem_of, suffix_of
from autoseg.support import log
from autoseg.support.errors import AutosegError

_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


@dataclass(frozen=True)
class Job:
    """One image to predict. name: with the subfolder it was found in. images: its channel files, or one file with all.

    output: path of its mask within the output folder. reference: a mask to draw beside the predicted one.
    """

    name: str
    images: tuple[Path, ...]
    output: str
    reference: Path | None = None


def find_jobs(inputs: Path | Sequence[Path], channels: int, recursive: bool = False, output: Path | None = None) -> list[Job]:
    """The images of a folder, one file, or a list of files, by name.

    Files called `<case>_0000`, `<case>_0001`, ... are the channels of one case, as in nnU-Net's folders, where there are as
    many of them as channels and each holds one channel; a lone `<case>_0000` holds all of them. Everything else is a case by
    itself. output: a folder that is left out of the search, and whose files must not take the place of inputs. Raises
    AutosegError where there is nothing to predict.
    """
    base, files = _listed(inputs, recursive, output)
    groups: dict[tuple[Path, str, str], dict[int, Path]] = defaultdict(dict)
    single: list[tuple[str, Path]] = []
    for path in files:
        match = _CHANNEL.match(stem_of(path))
        if match and int(match[2]) < channels:
            groups[path.parent, match[1], suffix_of(path)][int(match[2])] = path
        else:
            single.append((stem_of(path), path))
    jobs = []
    separate: bool | None = None
    for (folder, name, _), members in groups.items():
        if len(members) > 1 and separate is None:
            # Frames of a video carry numbers too; one look at a file tells whether a file is a channel.
            separate = _holds(next(iter(members.values())), channels)
        if (len(members) > 1 and separate) or (len(members) == 1 and 0 not in members):
            single += [(stem_of(path), path) for path in members.values()]
        else:
            jobs.append(_job(_within(folder, base, name), tuple(members[index] for index in sorted(members))))
    jobs += [_job(_within(path.parent, base, name), (path,)) for name, path in single]
    jobs = _distinct(sorted(jobs, key=lambda job: (job.name, job.images)))
    _protect_inputs(jobs, output)
    return jobs


def _listed(inputs: Path | Sequence[Path], recursive: bool, output: Path | None) -> tuple[Path | None, list[Path]]:
    """The folder names are relative to (None for files that were named one by one), and the files."""
    if not isinstance(inputs, Path):
        if not inputs:
            raise AutosegError("no images were given", "name at least one")
        return None, list(inputs)
    if inputs.is_file():
        return None, [inputs]
    if not inputs.is_dir():
        raise AutosegError(f"{inputs} does not exist", "give an image or a folder of images")
    found = sorted(inputs.rglob("*") if recursive else inputs.iterdir())
    inside = output.resolve() if output is not None and output.resolve() != inputs.resolve() else None
    files = [path for path in found if path.is_file() and (inside is None or inside not in path.resolve().parents)]
    images = [path for path in files if is_image(path)]
    if not images:
        hint = "give the folder that holds the images" if recursive else "give the folder that holds them, or search subfolders"
        raise AutosegError(f"{inputs} holds no images", hint)
    others = [path.name for path in files if not is_image(path) and not path.name.startswith(".")]
    if others:
        log.say(f"{len(others)} files are no images by their names and are left out: {', '.join(others[:5])}")
    return inputs, images


def _holds(path: Path, channels: int) -> bool:
    """Whether one file holds all channels; False where it cannot be read, which is reported when its turn comes."""
    try:
        return len(read_image(path).array) == channels
    except AutosegError:
        return False


def _within(folder: Path, base: Path | None, name: str) -> str:
    return name if base is None else (folder.relative_to(base) / name).as_posix()


def _job(name: str, images: tuple[Path, ...]) -> Job:
    return Job(name, images, name + mask_ending(suffix_of(images[0])))


def _distinct(jobs: list[Job]) -> list[Job]:
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


def _protect_inputs(jobs: list[Job], output: Path | None) -> None:
    if output is None:
        return
    given = {path.resolve() for job in jobs for path in job.images}
    for job in jobs:
        mask = output / job.output
        if mask.resolve() in given:
            raise AutosegError(f"the mask of {job.name} would take the place of the image {mask}", "give another output folder")
