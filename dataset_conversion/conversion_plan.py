"""What a converter says it found: the cases, nothing decoded yet, and everything wrong with the layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from autoseg.support.errors import AutosegError
from autoseg.support.extensions import READERS
from dataset_conversion.reading import foreground_of, gray_image_of, within
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

RGB, GRAY = ("R", "G", "B"), ("gray",)
Options = Mapping[str, Any]


@dataclass(kw_only=True)
class ConversionPlan:
    """labels: names by value, background first. ending: what images and masks are stored as.

    ignore: whether masks may hold the value after the last label, which is neither learned nor scored.
    spec: fields of DatasetSpec that the source itself says, such as regions; they win.
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
class Found:
    """An image with its masks, and what the names of its files say."""

    image: Entry
    masks: tuple[Entry, ...]
    said: Mapping[str, str]


def matched(
    source: Source, images: str, masks: str, draft: ConversionPlan, needs_mask: bool = True, without: str = ""
) -> list[Found]:
    """Images and masks whose paths fit the expressions and agree in their groups `id` and `part` (capitals don't count).

    without: a folder with further copies of the files, which are passed over. Raises AutosegError where no image fits.
    Images without a mask (where they need one), masks without an image and two images of one id go to the draft's problems.
    """
    found: dict[tuple[str, str], tuple[Entry, dict[str, str]]] = {}
    for entry, match in source.find(images):
        if without and f"{without}/" in f"{entry.name}/":
            continue
        said = {key: value or "" for key, value in match.groupdict().items()}
        key = _key(said)
        if key in found:
            draft.problems.append(f"{entry.where}: called as {found[key][0].where}")
        found.setdefault(key, (entry, said))
    if not found:
        raise source.nothing_found("images in the layout this converter knows")
    owned: dict[tuple[str, str], list[Entry]] = {}
    for entry, match in source.find(masks):
        if without and f"{without}/" in f"{entry.name}/":
            continue
        key = _key({key: value or "" for key, value in match.groupdict().items()})
        if key in found:
            owned.setdefault(key, []).append(entry)
        else:
            draft.problems.append(f"{entry.where}: a mask without an image")
    if needs_mask:
        missing = [found[key][0].where for key in found if key not in owned]
        draft.problems += [f"{where}: no mask for this image" for where in missing]
    return [Found(entry, tuple(owned.get(key, ())), said) for key, (entry, said) in sorted(found.items())]


def names_given(options: Options) -> list[str]:
    """The option `labels`, a list or text with commas, with the background first; empty where it is not given."""
    given = options.get("labels") or []
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    return names if not names or names[0].casefold() == "background" else ["background", *names]


def is_test(path: str) -> bool:
    """Whether a folder in a path, or a word of its file's name, says that this is the test split."""
    return any(word == "test" for word in re.split(r"[/_\-. ]", path.casefold()))


class Images:
    """The images of a source by their names, as tables and annotations refer to them."""

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

    def get(self, name: str, near: str = "") -> Entry | None:
        """The image of a path, file name or stem; of several the one in the folder `near`. None for none.

        Raises AutosegError where several have the name and nothing tells them apart.
        """
        plain = name.replace("\\", "/").casefold()
        found = self._names.get(plain) or self._names.get(PurePosixPath(plain).name) or []
        if len(found) > 1:
            ends = [entry for entry in found if f"/{entry.name}".casefold().endswith(f"/{plain}")]
            close = [entry for entry in ends or found if near and entry.name.startswith(f"{near}/")]
            found = close or ends or found
        if len(found) > 1:
            shown = " and ".join(entry.where for entry in found[:2])
            raise AutosegError(f"{name!r} may be {shown}", "give the files different names")
        return found[0] if found else None


def _key(said: Mapping[str, str]) -> tuple[str, str]:
    return said.get("part", "").casefold(), said["id"].casefold()


def binary(
    source: Source,
    images: str,
    masks: str,
    label: str,
    *,
    name: Callable[[Mapping[str, str]], str] = lambda said: said["id"],
    group: Callable[[Mapping[str, str]], str] | None = None,
    test: Callable[[Mapping[str, str]], bool] | None = None,
    attributes: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    keep: Callable[[Found], bool] | None = None,
    gray: bool = False,
    instances: bool = False,
    needs_mask: bool = True,
) -> ConversionPlan:
    """The draft of a set with one class, whose files fit two expressions (see `matched`).

    name, group, test, attributes: what the expressions' groups say of the case's name, the patient, the official test
    split, and else. keep: leaves the others out. gray: colours are turned to gray. instances: masks number objects.
    """
    draft = ConversionPlan(labels=("background", label), channels=GRAY if gray else RGB)
    everything = matched(source, images, masks, draft, needs_mask)
    found = [item for item in everything if keep is None or keep(item)]
    draft.ending = ending_of(found)
    for item in found:
        draft.cases.append(
            NewCase(
                name=name(item.said),
                images=[partial(gray_image_of, item.image) if gray else item.image],
                label=partial(foreground_of, item.masks, instances) if item.masks else None,
                group=group(item.said) if group else "",
                part="Ts" if test and test(item.said) else "Tr",
                attributes=attributes(item.said) if attributes else {},
            )
        )
    return draft


def ignore_outside(draft: ConversionPlan, fields: Mapping[str, Entry]) -> None:
    """Masks get the ignore label outside the field of view. fields: case's name -> the mask of its field."""
    draft.ignore = True
    value = len(draft.labels)
    for place, case in enumerate(draft.cases):
        if callable(case.label):
            field_mask = fields.get(case.name)
            if field_mask is None:
                draft.problems.append(f"{case.name}: no mask of its field of view")
            else:
                draft.cases[place] = replace(case, label=partial(within, case.label, field_mask, value))


def ending_of(found: Sequence[Found]) -> str:
    """What to store images as: the format they come in where that holds masks too, else PNG."""
    suffixes = {item.image.suffix for item in found}
    known = {".tif": ".tif", ".tiff": ".tif", ".bmp": ".bmp"}
    return known.get(suffixes.pop(), ".png") if len(suffixes) == 1 else ".png"
