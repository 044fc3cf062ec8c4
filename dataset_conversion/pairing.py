"""Pairs mask files with images by their names.

A mask has the name of its image, with a word such as `_mask` before or after it, with a number after that word (several
masks of one image), or with a class name; masks may also be in one folder for each class. Matching is case-insensitive.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.io import is_dangling_image, is_image, stem_of
from autoseg.support.errors import AutosegError

_TOOL_WORDS = ("mask", "masks", "seg", "segs", "segmentation", "segmentations", "segmented", "label", "labels", "labelmap")
_PEOPLE_WORDS = ("gt", "groundtruth", "ground", "truth", "annotation", "annotations", "anno", "manual")
_MASK_WORDS = frozenset((*_TOOL_WORDS, *_PEOPLE_WORDS))
_SEPARATORS = " _-.()[]"
_MAX_CHANNELS = 16
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


@dataclass(frozen=True)
class MaskFile:
    """kind: the class in its file or folder name, "" for a mask of all classes."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Pair:
    """stem: the image's name below its folder, without suffix, '/' included. images: its channel files.

    masks: empty if the image has none; that is a problem, but the image is still checked.
    """

    stem: str
    images: tuple[Path, ...]
    masks: tuple[MaskFile, ...]


@dataclass
class Pairing:
    """Pairs, problems, and notes on skipped files."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Match:
    stem: str
    kind: str


def pair_files(images: Path, masks: Path, labels: Sequence[str] | None = None) -> Pairing:
    """Pair the images in one folder with the masks in another, which may be the same. Subfolders are searched.

    labels: declared class names, to recognise in file names. Raises AutosegError if a folder is missing or empty, or if no
    mask matches any image.
    """
    result = Pairing()
    image_files = _files(images, result)
    classes = {_normalise(label): label for label in labels or ()}
    if masks.is_dir() and os.path.samefile(images, masks):
        mask_files = _masks_among_images(image_files)
        chosen = set(mask_files)
        image_files = [path for path in image_files if path not in chosen]
    else:
        mask_files = _files(masks, result)
    stems = _by_stem(images, image_files, masks, mask_files, result)
    names = _ImageNames(stems)
    masks_by_stem: dict[str, list[MaskFile]] = defaultdict(list)
    for path in mask_files:
        match = names.match(_relative_stem(masks, path), classes)
        if match is None:
            result.problems.append(f"{path}: a mask without an image")
        else:
            masks_by_stem[match.stem].append(MaskFile(path, match.kind))
    if not masks_by_stem:
        raise AutosegError(
            f"no mask in {masks} matches an image in {images} by name: {mask_files[0].name} and {image_files[0].name}",
            "name masks like their images, or add _mask or a class name",
        )
    for stem, files in stems.items():
        if stem not in masks_by_stem:
            result.problems.append(f"{files[0]}: no mask for this image in {masks}")
        result.pairs.append(Pair(stem, files, tuple(masks_by_stem.get(stem, ()))))
    return result


def _files(folder: Path, result: Pairing) -> list[Path]:
    if not folder.is_dir():
        raise AutosegError(f"the folder {folder} does not exist", "check the path")
    paths = sorted(folder.rglob("*"))
    result.problems += [f"{path}: a link to a file that does not exist" for path in paths if is_dangling_image(path)]
    all_files = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    image_files = [path for path in all_files if is_image(path)]
    # Suffixes only: names may identify patients.
    others = sorted({path.suffix or "without a suffix" for path in all_files if not is_image(path)})
    if not image_files:
        content = f"files there end in {', '.join(others)}" if others else "it is empty"
        raise AutosegError(f"{folder} has no images that autoseg reads ({content})", "see the documentation for the formats")
    if others:
        result.notes.append(f"{len(all_files) - len(image_files)} other files skipped ({', '.join(others[:6])})")
    return image_files


def _relative_stem(folder: Path, path: Path) -> str:
    parent = path.relative_to(folder).parent.as_posix()
    return stem_of(path) if parent == "." else f"{parent}/{stem_of(path)}"


def _by_stem(
    images: Path, image_files: Iterable[Path], masks: Path, mask_files: Iterable[Path], result: Pairing
) -> dict[str, tuple[Path, ...]]:
    stems: dict[str, tuple[Path, ...]] = {}
    lower: dict[str, Path] = {}
    for path in image_files:
        stem = _relative_stem(images, path)
        other_file = lower.setdefault(stem.casefold(), path)
        if other_file is path:
            stems[stem] = (path,)
        else:
            result.problems.append(f"{path}: has the same name as {other_file.name}, so their masks are ambiguous")
    mask_stems = {_relative_stem(masks, path).casefold() for path in mask_files}
    return _channels(stems, mask_stems) or stems


def _channels(stems: Mapping[str, tuple[Path, ...]], masks: set[str]) -> dict[str, tuple[Path, ...]]:
    """Groups channel files x_0000, x_0001, ...; empty if the numbers mean something else, such as frames."""
    cases: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, files in stems.items():
        match = _CHANNEL.match(stem)
        if match is None or stem.casefold() in masks:
            return {}
        cases[match[1]][int(match[2])] = files[0]
    numbers = {tuple(sorted(files)) for files in cases.values()}
    if len(numbers) != 1 or (count := len(next(iter(numbers)))) > _MAX_CHANNELS or next(iter(numbers)) != tuple(range(count)):
        return {}
    return {stem: tuple(files[number] for number in sorted(files)) for stem, files in cases.items()}


class _ImageNames:
    """Image names by folder."""

    def __init__(self, stems: Iterable[str]) -> None:
        self._folders: dict[str, dict[str, str]] = defaultdict(dict)
        for stem in stems:
            folder, _, name = stem.rpartition("/")
            self._folders[folder.casefold()][name.casefold()] = stem

    def match(self, mask: str, classes: Mapping[str, str]) -> _Match | None:
        """The image of a mask: in the folder of the same name, or with one folder name read as a class."""
        folder, _, name = mask.rpartition("/")
        parts = folder.split("/") if folder else []
        candidates = [(folder, "")] + [("/".join(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(len(parts))]
        for image_folder, kind in candidates:
            result = self._match_name(name, self._folders.get(image_folder.casefold(), {}), classes)
            if result is not None:
                word = "" if _normalise(kind) in _MASK_WORDS else kind
                return _Match(result.stem, result.kind or classes.get(_normalise(word), word))
        return None

    @staticmethod
    def _match_name(name: str, names: Mapping[str, str], classes: Mapping[str, str]) -> _Match | None:
        lower = name.casefold()
        for end in range(len(lower), 0, -1):
            if lower[:end] in names and (end == len(lower) or lower[end] in _SEPARATORS):
                kind = _kind(name[end:], classes)
                if kind is not None:
                    return _Match(names[lower[:end]], kind)
        for start in range(1, len(lower)):
            if lower[start:] in names and lower[start - 1] in _SEPARATORS and _kind(name[:start], {}) == "":
                return _Match(names[lower[start:]], "")
        return None


def _kind(rest: str, classes: Mapping[str, str]) -> str | None:
    """The class in the rest of a mask's name, "" for none; None if it is not a mask of this image."""
    words = _words(rest)
    if not words:
        return ""
    if words[0].isdigit():
        return None  # x_1 is not a mask of x: it is the mask of an image x_1 that is missing.
    class_words = [word for word in words if word.casefold() not in _MASK_WORDS]
    has_mask_word = len(class_words) < len(words)
    for class_name_words in (class_words, [word for word in class_words if not word.isdigit()]):
        if _normalise("_".join(class_name_words)) in classes:
            return classes[_normalise("_".join(class_name_words))]
    if has_mask_word:
        class_words = [word for word in class_words if not word.isdigit()]
    return "_".join(class_words)


def _masks_among_images(files: Sequence[Path]) -> list[Path]:
    """Masks in the image folder: named like another file plus a mask word."""
    names = {(path.parent, stem_of(path).casefold()) for path in files}
    masks = []
    for path in files:
        name = stem_of(path)
        ends = [
            end for end in range(1, len(name)) if name[end] in _SEPARATORS and (path.parent, name[:end].casefold()) in names
        ]
        if any(word.casefold() in _MASK_WORDS for end in ends for word in _words(name[end:])):
            masks.append(path)
    if not masks:
        raise AutosegError(
            "images and masks are in one folder, and no name ends in _mask or similar", "move the masks to another folder"
        )
    return masks


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s_\-.()\[\]]+", text) if word]


def _normalise(text: str) -> str:
    return "_".join(_words(text)).casefold()
