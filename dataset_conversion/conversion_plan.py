"""What a converter returns: the cases, not yet decoded, and all problems of the layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from autoseg.support.errors import AutosegError
from autoseg.support.extensions import READERS
from dataset_conversion.reading import mask_outside_fov, read_foreground, read_gray_image
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

RGB, GRAY = ("R", "G", "B"), ("gray",)
Options = Mapping[str, Any]


@dataclass(kw_only=True)
class ConversionPlan:
    """labels: names by value, background first. ending: what images and masks are stored as.

    ignore: whether masks may hold the value after the last label, which is neither learned nor scored.
    spec: fields of DatasetSpec that the source defines, such as regions; they take precedence.
    """

    labels: Sequence[str]
    channels: Sequence[str] = RGB
    ending: str = ".png"
    ignore: bool = False
    cases: list[NewCase] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchedImage:
    """An image with its masks. fields: named groups of the regular expression that matched its path."""

    image: Entry
    masks: tuple[Entry, ...]
    fields: Mapping[str, str]


def match_files(
    source: Source, images: str, masks: str, plan: ConversionPlan, needs_mask: bool = True, exclude_folder: str = ""
) -> list[MatchedImage]:
    """Images and masks whose paths match the expressions with the same groups `id` and `part` (case-insensitive).

    exclude_folder: a folder with copies of the files, to skip. Raises AutosegError if no image matches.
    Images without a mask (if needs_mask), masks without an image and two images of one id are added to `plan.problems`.
    """
    images_by_key: dict[tuple[str, str], tuple[Entry, dict[str, str]]] = {}
    for entry, match in source.find(images):
        if exclude_folder and f"{exclude_folder}/" in f"{entry.name}/":
            continue
        fields = {key: value or "" for key, value in match.groupdict().items()}
        key = _match_key(fields)
        if key in images_by_key:
            plan.problems.append(f"{entry.where}: has the same name as {images_by_key[key][0].where}")
        images_by_key.setdefault(key, (entry, fields))
    if not images_by_key:
        raise source.layout_error("images in the layout of this converter")
    masks_by_key: dict[tuple[str, str], list[Entry]] = {}
    for entry, match in source.find(masks):
        if exclude_folder and f"{exclude_folder}/" in f"{entry.name}/":
            continue
        key = _match_key({key: value or "" for key, value in match.groupdict().items()})
        if key in images_by_key:
            masks_by_key.setdefault(key, []).append(entry)
        else:
            plan.problems.append(f"{entry.where}: a mask without an image")
    if needs_mask:
        missing = [images_by_key[key][0].where for key in images_by_key if key not in masks_by_key]
        plan.problems += [f"{where}: no mask for this image" for where in missing]
    return [
        MatchedImage(entry, tuple(masks_by_key.get(key, ())), fields) for key, (entry, fields) in sorted(images_by_key.items())
    ]


def label_names(options: Options) -> list[str]:
    """The option `labels` (a list, or text with commas) with the background first; empty without the option."""
    labels = options.get("labels") or []
    names = [name.strip() for name in (labels.split(",") if isinstance(labels, str) else labels) if name.strip()]
    return names if not names or names[0].casefold() == "background" else ["background", *names]


def is_test(path: str) -> bool:
    """Whether a folder of the path, or a word of the file name, is `test`."""
    return any(word == "test" for word in re.split(r"[/_\-. ]", path.casefold()))


class Images:
    """Looks up the images of a source by the names that tables and annotations use."""

    def __init__(self, source: Source, folder: str = "") -> None:
        """folder: only those with this folder in their path."""
        inside = f"/{folder.strip('/')}/".casefold() if folder else ""
        self.entries = [
            entry for entry in source.entries if entry.suffix in READERS and inside in f"/{entry.folder}/".casefold()
        ]
        self._names: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for name in {entry.name, PurePosixPath(entry.name).name, entry.stem}:
                self._names.setdefault(name.casefold(), []).append(entry)

    def get(self, name: str, folder: str = "") -> Entry | None:
        """The image of a path, file name or stem; of several the one in `folder`. None if there is none.

        Raises AutosegError if several images have the name and `folder` does not decide.
        """
        plain = name.replace("\\", "/").casefold()
        matches = self._names.get(plain) or self._names.get(PurePosixPath(plain).name) or []
        if len(matches) > 1:
            same_path = [entry for entry in matches if f"/{entry.name}".casefold().endswith(f"/{plain}")]
            in_same_folder = [entry for entry in same_path or matches if folder and entry.name.startswith(f"{folder}/")]
            matches = in_same_folder or same_path or matches
        if len(matches) > 1:
            shown = " and ".join(entry.where for entry in matches[:2])
            raise AutosegError(f"{name!r} may be {shown}", "give the files different names")
        return matches[0] if matches else None


def _match_key(fields: Mapping[str, str]) -> tuple[str, str]:
    return fields.get("part", "").casefold(), fields["id"].casefold()


def binary_plan(
    source: Source,
    images: str,
    masks: str,
    label: str,
    *,
    name: Callable[[Mapping[str, str]], str] = lambda fields: fields["id"],
    group: Callable[[Mapping[str, str]], str] | None = None,
    test: Callable[[Mapping[str, str]], bool] | None = None,
    attributes: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    keep: Callable[[MatchedImage], bool] | None = None,
    gray: bool = False,
    instances: bool = False,
    needs_mask: bool = True,
) -> ConversionPlan:
    """The plan of a dataset with one class, whose files match two expressions (see `match_files`).

    name, group, test, attributes: functions of the expression's named groups. They return the case name, the patient,
    whether the case is in the official test split, and further columns of cases.csv. keep: filter of the images.
    gray: convert colours to gray. instances: mask values number objects.
    """
    plan = ConversionPlan(labels=("background", label), channels=GRAY if gray else RGB)
    all_items = match_files(source, images, masks, plan, needs_mask)
    items = [item for item in all_items if keep is None or keep(item)]
    plan.ending = file_ending_of(items)
    for item in items:
        plan.cases.append(
            NewCase(
                name=name(item.fields),
                images=[partial(read_gray_image, item.image) if gray else item.image],
                label=partial(read_foreground, item.masks, instances) if item.masks else None,
                group=group(item.fields) if group else "",
                part="Ts" if test and test(item.fields) else "Tr",
                attributes=attributes(item.fields) if attributes else {},
            )
        )
    return plan


def ignore_outside_fov(plan: ConversionPlan, fov_masks: Mapping[str, Entry]) -> None:
    """Set the ignore label outside the field of view. fov_masks: case name -> mask of its field of view."""
    plan.ignore = True
    value = len(plan.labels)
    for place, case in enumerate(plan.cases):
        if callable(case.label):
            field_mask = fov_masks.get(case.name)
            if field_mask is None:
                plan.problems.append(f"{case.name}: no mask of the field of view for this image")
            else:
                plan.cases[place] = replace(case, label=partial(mask_outside_fov, case.label, field_mask, value))


def file_ending_of(items: Sequence[MatchedImage]) -> str:
    """The file ending to store images with: their own format if it can also hold masks, else PNG."""
    suffixes = {item.image.suffix for item in items}
    lossless = {".tif": ".tif", ".tiff": ".tif", ".bmp": ".bmp"}
    return lossless.get(suffixes.pop(), ".png") if len(suffixes) == 1 else ".png"
