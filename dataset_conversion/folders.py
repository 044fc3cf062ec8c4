"""Converts a folder of images and a folder of masks into a raw dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from autoseg.fingerprint.mask_coding import LabelCoding, MaskFacts, count_mask_values, decide_coding, encode
from autoseg.fingerprint.name_groups import NO_GROUPS, find_groups
from autoseg.fingerprint.validation import one_line
from autoseg.io import Image, Label, read_case, read_image, read_label_of
from autoseg.io.deidentify import Names
from autoseg.io.raster import apply_exif_orientation
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Workspace
from dataset_conversion.case_names import CaseNames, groups_of_tags, name_cases, neutral_groups, suggestion
from dataset_conversion.pairing import Pair, pair_files
from dataset_conversion.reading import OVERLAP_NOTE
from dataset_conversion.report import ConversionReport
from dataset_conversion.run import conversion_key, existing_report, target_dataset
from dataset_conversion.source import Source
from dataset_conversion.writer import NewCase, check_free, common_ending, write_dataset

Colour = Literal["gray", "rgb"]
_CHANNELS: dict[Colour, int] = {"gray": 1, "rgb": 3}


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """Content of one image and its masks. turned: which orientation the masks fit, for an image with an EXIF orientation.

    "upright": the image as viewers show it; "stored": the image as stored; "either": both have the same size.
    """

    channels: int = 0
    orientation: int = 1
    turned: str = ""
    masks: tuple[MaskFacts, ...] = ()
    problems: tuple[str, ...] = ()


def convert_folders(
    images: Path,
    masks: Path,
    name: str,
    number: int | None = None,
    labels: Sequence[str] | None = None,
    groups: str | None = None,
    workspace: Workspace | None = None,
    overwrite: bool = False,
    *,
    channels: Sequence[str] | None = None,
    modality: str = "",
    colour: Colour | None = None,
    names: Names = "auto",
    workers: int | None = None,
    dry_run: bool = False,
) -> ConversionReport:
    """Write raw/DatasetXXX_Name from images and masks that are paired by file name (see `pairing`).

    number: 501 or the next free one by default. labels: class names by value, background first; default: from the values.
    groups: a regular expression with one group, searched in each image's path below `images` without its suffix; what
    it matches is the patient; "none": each image is of another patient. channels: their names. modality: such as "ultrasound",
    for the planner. colour: "gray" or "rgb" stores all images like that; gray ones become three equal channels, colours their
    luminance. names: of cases, see `name_cases`; where names are hidden, groups are numbered, and without `groups` they are the
    patients of DICOM's tags.
    Converting the same files with the same options again does nothing. Raises SeveralProblems with all problems, and then
    writes nothing.
    """
    images, masks = Path(images), Path(masks)
    dataset = target_dataset(workspace or Workspace.at(), name, number)
    options = (labels, groups, channels, modality, *([colour] if colour else []), *([names] if names != "auto" else []))
    key = conversion_key("folders", name, options, _signature(images, masks))
    if not overwrite and (existing := existing_report(dataset, key)) is not None:
        return existing
    check_free(dataset, overwrite)
    pairing = pair_files(images, masks, labels)
    pairs = pairing.pairs
    surveys = list(progress_bar(parallel_map(_survey, pairs, workers), "read", len(pairs)))
    problems = [*pairing.problems, *(problem for survey in surveys for problem in survey.problems)]
    coding = decide_coding([fact for survey in surveys for fact in survey.masks], labels)
    case_names = name_cases({pair.stem: pair.images[0] for pair in pairs}, names)
    patients, unnamed, group_notes = _patients(pairs, groups, case_names)
    turns, turning = _turning(pairs, surveys)
    problems += [*coding.problems, *_channel_problems(pairs, surveys, channels, colour), *unnamed, *turning]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise SeveralProblems(
            f"{images} and {masks} have {count}; nothing was written", problems, _remedy(surveys, colour)
        )
    spec = DatasetSpec(
        channel_names=_channel_names(_CHANNELS[colour] if colour else surveys[0].channels, channels),
        labels={label: value for value, label in enumerate(coding.labels)},
        numTraining=len(pairs),
        file_ending=common_ending([path for pair in pairs for path in pair.images]),
        name=name,
        modality=modality,
        independent_cases=groups == NO_GROUPS,
    )
    cases = [
        NewCase(
            name=case_names.cases[pair.stem],
            images=[partial(_recoloured, path, colour) for path in pair.images] if colour else pair.images,
            label=partial(_label, pair, turn, coding),
            group=patients.get(pair.stem, ""),
            turned=True,
            private=pair.stem in case_names.hidden,
        )
        for pair, turn in zip(pairs, turns, strict=True)
    ]
    notes = [
        *pairing.notes, *coding.notes, *_mask_notes(surveys), *case_names.notes(), *group_notes, *_turn_notes(turns),
    ]  # fmt: skip
    return write_dataset(
        dataset, spec, cases, overwrite, workers, key=key, notes=notes, renamed=case_names.renamed, dry_run=dry_run
    )


def _signature(images: Path, masks: Path) -> str:
    """Signature of all files in both folders; "" if a folder is missing, which is reported later."""
    if not images.is_dir() or not masks.is_dir():
        return ""
    with Source(images) as one, Source(masks) as other:
        return one.signature() + other.signature()


def _survey(pair: Pair) -> _Survey:
    """Decode an image and its masks; problems are part of the result."""
    problems: list[str] = []
    facts: list[MaskFacts] = []
    shapes: list[tuple[Path, tuple[int, ...], bool]] = []
    for mask in pair.masks:
        try:
            label = read_label_of(mask.path, pair.images)
        except AutosegError as error:
            problems.append(one_line(error))
            continue
        facts.append(count_mask_values(mask.path, mask.kind, label))
        shapes.append((mask.path, label.array.shape, any(note.startswith("EXIF") for note in label.notes)))
    try:
        image = read_case(pair.images)
    except AutosegError as error:
        return _Survey(masks=tuple(facts), problems=(*problems, one_line(error)))
    shown_size = image.array.shape[1:]
    stored_size = shown_size[::-1] if image.orientation >= 5 else shown_size
    turned = "" if image.orientation == 1 else "either"
    for path, shape, mask_is_turned in shapes:
        fits = {
            "upright": shape == shown_size,
            "stored": shape == stored_size and image.orientation != 1 and not mask_is_turned,
        }
        if not any(fits.values()):
            problems.append(f"{path}: {_size(shape)} pixels, but {pair.images[0].name} has {_size(shown_size)}")
            turned = ""
        elif turned and not all(fits.values()):
            turned = next(way for way, fit in fits.items() if fit)
    return _Survey(
        channels=image.array.shape[0],
        orientation=image.orientation,
        turned=turned,
        masks=tuple(facts),
        problems=tuple(problems),
    )


def _turning(pairs: Sequence[Pair], surveys: Sequence[_Survey]) -> tuple[list[int], list[str]]:
    """The EXIF orientation to apply to the masks of each image, 1 for none; and problems.

    If the size does not decide, the other images of the dataset do."""
    known = {survey.turned for survey in surveys} & {"upright", "stored"}
    problems = []
    turns = []
    for pair, survey in zip(pairs, surveys, strict=True):
        way = survey.turned
        if way == "either":
            way = next(iter(known)) if len(known) == 1 else ""
            if not way:
                problems.append(
                    f"{pair.images[0]}: has an EXIF orientation ({survey.orientation}), and it is unknown whether its mask was "
                    "drawn on the turned or on the stored image; save the image upright and check its mask"
                )
        turns.append(survey.orientation if way == "stored" else 1)
    return turns, problems


def _label(pair: Pair, turn: int, coding: LabelCoding) -> Label:
    labels: list[tuple[Label, str]] = []
    for mask in pair.masks:
        label = read_label_of(mask.path, pair.images)
        if turn != 1:
            label = Label(array=apply_exif_orientation(label.array, turn), spacing=None, lossy=label.lossy)
        labels.append((label, mask.kind))
    ids, pixels = encode(labels, coding)
    if pixels and not coding.kinds:
        raise AutosegError(f"{pair.masks[0].path} and the other masks of {pair.stem} contradict each other in {pixels} pixels")
    return Label(array=ids, spacing=None, notes=(f"{pixels} {OVERLAP_NOTE}",) if pixels else ())


def _recoloured(path: Path, colour: Colour) -> Image:
    """An image as gray (1, H, W) or as RGB (3, H, W), in its own type."""
    image = read_image(path)
    array = image.array
    if array.shape[0] == 1 and colour == "rgb":
        array = np.repeat(array, 3, axis=0)
    elif array.shape[0] == 3 and colour == "gray":
        array = cv2.cvtColor(np.ascontiguousarray(array.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)[None]
    return replace(image, array=array)


def _remedy(surveys: Sequence[_Survey], colour: Colour | None) -> str:
    if colour is None and {survey.channels for survey in surveys} - {0} == {1, 3}:
        return "store all images alike with --colour gray or --colour rgb; fix what else is listed, and convert again"
    return "fix these and convert again"


def _channel_problems(
    pairs: Sequence[Pair], surveys: Sequence[_Survey], names: Sequence[str] | None, colour: Colour | None
) -> list[str]:
    counts = Counter(survey.channels for survey in surveys if survey.channels)
    if colour is not None:
        counts = Counter({channels: number for channels, number in counts.items() if channels not in (1, 3)})
        counts[_CHANNELS[colour]] = sum(survey.channels in (1, 3) for survey in surveys)
    if not counts:
        return []
    usual = _CHANNELS[colour] if colour else counts.most_common(1)[0][0]
    kinds = {1: "gray", 3: "RGB"}
    problems = [
        f"{pair.images[0]}: {kinds.get(survey.channels, f'{survey.channels} channels')}, while {counts[usual]} images are "
        f"{kinds.get(usual, f'{usual} channels')}"
        for pair, survey in zip(pairs, surveys, strict=True)
        if survey.channels not in ((0, 1, 3) if colour else (0, usual))
    ]
    if names is not None and len(names) != usual:
        problems.append(f"{len(names)} channel names, but the images have {usual} channels")
    return problems


def _channel_names(count: int, names: Sequence[str] | None) -> dict[str, str]:
    usual = {1: ("gray",), 3: ("R", "G", "B")}.get(count, tuple(f"channel{number}" for number in range(count)))
    return {str(number): name for number, name in enumerate(names or usual)}


def _patients(
    pairs: Sequence[Pair], expression: str | None, names: CaseNames
) -> tuple[dict[str, str], list[str], list[str]]:
    """Stem -> group, problems, notes."""
    if expression == NO_GROUPS:
        return {}, [], []
    if expression is None:
        by_tags, notes = groups_of_tags({pair.stem: pair.images[0] for pair in pairs}) if names.hidden else ({}, [])
        return neutral_groups(names, by_tags), [], notes or suggestion(names)
    groups = find_groups(expression, [pair.stem for pair in pairs])
    problems = [
        f"{stem}: the expression for groups, {expression!r}, does not match" for stem, group in groups.items() if group is None
    ]
    return neutral_groups(names, {stem: group for stem, group in groups.items() if group is not None}), problems, []


def _mask_notes(surveys: Sequence[_Survey]) -> list[str]:
    counts = Counter(note for survey in surveys for fact in survey.masks for note in fact.notes)
    notes = [f"masks: {note} ({count} file{'s' if count > 1 else ''})" for note, count in sorted(counts.items())]
    several = sum(1 for survey in surveys if len([fact for fact in survey.masks if not fact.kind]) > 1)
    if several:
        notes.append(f"{several} images have several masks, which were joined")
    return notes


def _turn_notes(turns: Sequence[int]) -> list[str]:
    turned = sum(turn != 1 for turn in turns)
    return [f"{turned} masks were turned with their images"] if turned else []


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in np.asarray(shape))
